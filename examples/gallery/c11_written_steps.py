"""Claim 11: loops in place of written steps, compared by accuracy and by operations."""

from __future__ import annotations

import math

import numpy as np
from measures_c11 import (
    LAYERS,
    answers,
    chosen,
    depths,
    length,
    operations,
    recipes,
    written_answers,
)
from numpy.typing import NDArray

from looplens.gallery import (
    Claim,
    Outcome,
    Picture,
    Scale,
    Table,
    above,
    paired,
    share_interval,
    train_all,
)
from looplens.gallery.pictures import lines

GUESS = 1 / 6  # a product of uniform elements of S3 is uniform
MARGIN = 0.05  # how far below written steps loops may be and still reach them
ENOUGH = 0.9  # accuracy from which products of n elements count as learned


def run(scale: Scale) -> Outcome:
    """Train all models for every seed; measure accuracy and operations of one answer."""
    most, loops, first = length(scale), depths(scale), scale.seeds[0]
    by_seed = {seed: recipes(seed, scale) for seed in scale.seeds}
    models = train_all([one for given in by_seed.values() for one in given.values()], scale)

    def measured(stream: str) -> NDArray[np.float64]:
        """Return accuracies of the looped models, (loops, seed, elements - 1)."""
        found = [
            [answers(models[by_seed[s][n].name], by_seed[s][n], scale, stream) for s in scale.seeds]
            for n in loops
        ]
        return np.array(found)

    # The loops are chosen on one draw and measured on another.
    needed = chosen(loops, measured("probe")[:, :, -1])
    by_length = measured("held_out")
    whole = by_length[:, :, -1]  # products of all elements, (loops, seed)
    reached = np.array([whole[loops.index(n), place] for place, n in enumerate(needed)])
    writers = [by_seed[s]["written"] for s in scale.seeds]
    once = whole[0]
    wrote = np.array([written_answers(models[one.name], one, scale) for one in writers])

    cost = {n: operations(models[by_seed[first][n].name], most, n, 1) for n in loops}
    written_cost = operations(models[by_seed[first]["written"].name], 2 * most, 1, most)
    equal = max((n for n in loops if cost[n] <= written_cost), default=loops[0])
    against, at_equal = paired(reached, wrote), paired(whole[loops.index(equal)], wrote)
    checks = {
        "loops answer what one pass cannot": above(paired(reached, once)),
        "written steps answer what one pass cannot": above(paired(wrote, once)),
        f"loops come within {MARGIN:g} of written steps": above(against, -MARGIN),
        f"at no more operations ({equal} loops) they do so too": above(at_equal, -MARGIN),
    }
    for n, count in log_lengths(most, loops):
        values = share_interval(by_length[loops.index(count), :, n - 1])
        checks[f"log2({n}) = {count} loops learn products of {n} elements"] = above(values, ENOUGH)
    chose = " or ".join(map(str, sorted(set(needed))))
    return Outcome(
        checks=checks,
        sanity={
            "three loops or more take more operations than written steps": all(
                cost[n] > written_cost for n in loops if n > 2
            ),
            "all loops run fewer layers in a row than written steps": max(loops) < most,
        },
        tables=tables(scale, by_length, wrote, {**cost, "written": written_cost}),
        pictures=pictures(scale, by_length, wrote, {**cost, "written": written_cost}),
        summary=(
            f"Of the products of {most} elements one pass gets {share_interval(once)} right, "
            f"{chose} loops {share_interval(reached)}, written steps {share_interval(wrote)} "
            f"(loops less written steps: {against}). Written steps take {written_cost:.2f} million "
            f"operations and {LAYERS * most} layers in a row; {max(needed)} loops take "
            f"{cost[max(needed)]:.2f} million and {LAYERS * max(needed)} layers. At no more "
            f"operations than written steps there are {equal} loops, and they get "
            f"{share_interval(whole[loops.index(equal)])} right. "
            f"{meaning(above(against, -MARGIN), above(at_equal, -MARGIN))}"
        ),
        limits=(*LIMITS, seen(scale)),
    )


def meaning(reached: bool | None, cheaply: bool | None) -> str:
    """Say what the two comparisons with written steps mean."""
    if not reached:
        return "That loops can stand in for written steps is not shown here."
    if cheaply:
        return "Here loops buy fewer steps in a row at no more operations."
    return (
        "Here loops buy fewer steps in a row, and that is all the theory promises; that they also "
        f"save operations is {'not shown' if cheaply is None else 'not so'}."
    )


def log_lengths(most: int, loops: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return lengths n = 4, 8, ... with log2(n) loops, where that many loops were trained."""
    pairs = [(2**count, count) for count in range(2, int(math.log2(most)) + 1)]
    return [(n, count) for n, count in pairs if count in loops]


def tables(
    scale: Scale, by_length: NDArray[np.float64], wrote: NDArray[np.float64], cost: dict
) -> list[Table]:
    """Tabulate whole products with what they cost, products by length, and each seed."""
    most, loops = length(scale), depths(scale)
    names = [f"{n} loop{'s' * (n > 1)}" for n in loops]
    rows = [
        (name, share_interval(by_length[place, :, -1]), LAYERS * n, cost[n])
        for place, (name, n) in enumerate(zip(names, loops, strict=True))
    ]
    rows.append((f"{most} written steps", share_interval(wrote), LAYERS * most, cost["written"]))
    seeds = [(name, *map(float, by_length[place, :, -1])) for place, name in enumerate(names)]
    return [
        Table(
            title=f"The product of {most} elements of S3 (chance {GUESS:.2f})",
            columns=("model", "accuracy", "layers in a row", "million operations"),
            rows=rows,
        ),
        Table(
            title="Accuracy of the product of the first n elements",
            columns=("trained and read at", *(f"n = {n}" for n in range(2, most + 1))),
            rows=[
                (name, *(share_interval(values) for values in by_length[place].T[1:]))
                for place, name in enumerate(names)
            ],
        ),
        Table(
            title=f"Each seed, products of {most} elements",
            columns=("model", *(f"seed {seed}" for seed in scale.seeds)),
            rows=[*seeds, ("written steps", *map(float, wrote))],
        ),
    ]


def pictures(
    scale: Scale, by_length: NDArray[np.float64], wrote: NDArray[np.float64], cost: dict
) -> list[Picture]:
    """Draw accuracy over operations, and over the number of elements."""
    most, loops = length(scale), depths(scale)
    whole = [share_interval(values) for values in by_length[:, :, -1]]
    sizes = list(range(1, most + 1))
    level = ("guessing", GUESS)
    return [
        Picture(
            name="operations",
            figure=lines(
                {
                    f"{loops[0]} to {loops[-1]} loops": ([cost[n] for n in loops], whole),
                    "written steps": ([cost["written"]], [share_interval(wrote)]),
                },
                title="Accuracy against the operations of one answer",
                subtitle=f"product of {most} elements of S3, {len(scale.seeds)} seeds",
                x="million operations for one answer",
                y="held-out accuracy",
                y_range=(0, 1.05),
                level=level,
            ),
            caption="One point is one number of loops, by models trained and read at it. Left and "
            "up is better.",
        ),
        Picture(
            name="elements",
            figure=lines(
                {
                    f"{n}": (sizes, [share_interval(values) for values in by_length[place].T])
                    for place, n in enumerate(loops)
                },
                title="Accuracy against the number of elements",
                subtitle="each curve: models trained and read at that many loops",
                x="elements multiplied (logarithmic)",
                y="held-out accuracy",
                log_x=True,
                y_range=(0, 1.05),
                level=level,
                legend="loops",
            ),
            caption="If log2(n) loops were just enough, each further loop would carry twice as "
            "far. Two elements stay below 1: one repeated cannot be told from one alone.",
        ),
    ]


def seen(scale: Scale) -> str:
    """Say how much of what is asked can have been trained on."""
    recipe = recipes(scale.seeds[0], scale)["written"]
    drawn = recipe.steps * recipe.batch
    share = min(1.0, drawn / 6 ** length(scale))
    return (
        "Nothing is held out by rule: training draws at most "
        f"{share:.2g} of all texts of {length(scale)} elements (written steps; loops half of that)"
        ", and their short prefixes all occur in training."
    )


LIMITS = (
    "Written steps are supervised one by one in training; the loops see prefix products as "
    "targets, but nothing of what happens inside.",
    "All models are trained for the same number of steps, so more loops also means more "
    "operations in training.",
    "Operations are matrix products of this size of model with a full cache. Written steps pay "
    "once for each of 2n tokens, loops in every loop for each of n; so from three loops on, loops "
    "cost more on any such task. That is arithmetic, not a result, and not counted as a check.",
    "The theorem has one layer and says that weights exist; here there are two layers in a loop, "
    "and training has to find the weights within the steps given. That fewer loops would not do is "
    "not claimed and not checked.",
    "Positions are relative and no token marks the start, so a text of one element repeated looks "
    "like that element alone: of products of two, five in 36 cannot be right, whatever the loops; "
    "of eight elements hardly any text is such.",
    "The written text has a fixed length and its layout is the easiest possible; written steps of "
    "language models are longer than the state that they carry.",
    "Task, sizes and the curriculum are those that learned in trials with four loops: pointer "
    "chasing did not within the time, nor did a loop with a random depth on group products.",
)


CLAIM = Claim(
    number=11,
    slug="written-steps",
    title="Accuracy per operation: loops against written steps",
    paper=(
        "Saunshi et al., Reasoning with Latent Thoughts, arXiv:2502.17416 (L loops can simulate L "
        "steps of chain of thought; ceil(log2 n) loops compose n group elements); Zhu et al. "
        "(Ouro), arXiv:2510.25741, on reachability; against it Lu et al., arXiv:2507.02199"
    ),
    says=(
        "In theory a model looped L times can do what L written steps do, and for composing n "
        "elements of a group ceil(log2 n) loops are enough. Thinking in the loop would then take "
        "fewer steps in a row, and no tokens; the theory does not promise fewer operations. For "
        "Huginn itself, evidence of such latent chains was reported to be weak: on GSM8K it "
        "answers 3.1 to 4.9 % without and 24.9 to 38.1 % with written steps (as summarised by "
        "others; that paper's text was not read)."
    ),
    does=(
        f"Models of the same {LAYERS} layers multiply elements of S3. Silent ones are trained with "
        "a fixed number of loops, one model for each number, on texts that grow from 2 elements to "
        "the full length, and are read after the trained number; one loop is the plain baseline. "
        "The other kind runs once for every token, with the prefix products written after the "
        "question and read again, and is trained on the full length only. Accuracy is that of the "
        "last product; the number of loops called reached is chosen on a draw of its own. "
        "Operations are those of the whole answer, prompt included, by the count of "
        "looplens.analysis.flops."
    ),
    robust=(),
    run=run,
)


if __name__ == "__main__":
    CLAIM.main()
