"""Claim 8: loops improve the manipulation of knowledge, not how much of it can be stored."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from looplens import gallery
from looplens.gallery import Claim, Interval, Outcome, Picture, Scale, above, below, paired
from looplens.gallery.pictures import bars
from looplens.models import LoopedTransformer
from looplens.tasks import Task, get_task
from looplens.training import Recipe, Stage, capacity, evaluate, k_by_l

LOOPS = 3
# Layers and passes: a small model, the same looped, and a model of as many FLOPs as that.
SHAPES = {"1 layer": (1, 1), f"1 layer x {LOOPS}": (1, LOOPS), f"{LOOPS} layers": (LOOPS, 1)}
SMALL, LOOPED, LARGE = SHAPES
GUESSING = "most frequent answer"
EXPRESSIONS, FACTS, COMBINATIONS = "expressions", "facts", "combinations of facts"
BITS, RATE = "bits", "bits per parameter"
STORE_MORE = f"{LARGE} of their own store more bits than one layer looped"
COMPARED = "loops minus equal parameters", "loops minus equal FLOPs", "share of the gap covered"
COLUMNS = ("measurement", *SHAPES, *COMPARED, GUESSING)
EXPOSURES = {"smoke": 80, "quick": 1000, "full": 1000}  # how often a person is shown, on average
CLOSE = 0.1  # an accuracy at most this much below that of equal FLOPs comes near it
NEAR = 0.1  # bits per parameter that change by less than this share count as equal
SEQUENCES = 1024
Values = dict[str, NDArray[np.float64]]  # shape of the model -> one value a seed
Test = tuple[Task, dict[str, int]]  # a task, and what to ask of it


def prepare(task: str, shape: str, seed: int, scale: Scale, **settings: Any) -> Recipe:
    """Return a training; a setting with a list has one value for smoke, quick and full size."""
    place = ("smoke", "quick", "full").index(scale.name)
    here = {k: v[place] if isinstance(v, list) else v for k, v in settings.items()}
    name = f"knowledge-{task.partition(':')[0]}-{shape.replace(' ', '')}-{here['steps']}-{seed}"
    warmup = scale.pick(smoke=10, quick=100, full=100)
    return k_by_l(task, *SHAPES[shape], name=name, n_ctx=16, warmup=warmup, seed=seed, **here)


def mano(shape: str, seed: int, scale: Scale) -> Recipe:
    """Four fifths of the prefix expressions of two operations, after single ones."""
    modulus, longest = scale.pick(smoke=(3, 2), quick=(5, 2), full=(7, 3))
    single = Stage(share=0.15, length=1, difficulty=(1, 1))
    stages = (single, Stage(share=0.85, length=longest, difficulty=(1, longest)))
    sizes = {"d_model": [32, 48, 64], "steps": [30, 1000, 6000], "batch": [32, 128, 128]}
    task = f"mano:modulus={modulus},split=seen"
    return prepare(task, shape, seed, scale, curriculum=stages, weight_decay=0.1, **sizes)


def multihop(shape: str, seed: int, scale: Scale) -> Recipe:
    """Facts, and four fifths of the questions that combine two of them."""
    people, relations = scale.pick(smoke=(5, 4), quick=(8, 16), full=(16, 16))
    sizes = {"d_model": [32, 64, 64], "steps": [30, 800, 4000], "batch": [32, 128, 128]}
    task = f"multihop:people={people},layers=3,relations={relations}"
    return prepare(task, shape, seed, scale, weight_decay=0.1, **sizes)


def bios(shape: str, seed: int, scale: Scale) -> Recipe:
    """More people than one layer can know."""
    people, batch = scale.pick(smoke=(60, 30), quick=(256, 256), full=(1600, 256))
    sizes = {"d_model": [16, 8, 24], "n_heads": 2, "batch": batch}
    sizes["steps"] = EXPOSURES[scale.name] * people // batch
    rates = {"learning_rate": 1e-2, "weight_decay": 0.01, "model": {"tie_embeddings": True}}
    return prepare(f"bios:people={people}", shape, seed, scale, **sizes, **rates)


def tests(recipe: Recipe) -> dict[str, Test]:
    """Return what accuracy is measured on: first the hardest texts that are held out."""
    task, last = get_task(recipe.task), recipe.curriculum[-1]
    unseen = task.held_out()
    assert unseen is not None
    hardest = {"length": last.length, "difficulty": last.difficulty[1]}
    if task.name.startswith("mano"):
        return {EXPRESSIONS: (unseen, hardest)}
    return {COMBINATIONS: (unseen, hardest), FACTS: (task, {"difficulty": 1})}


def accuracy(model: LoopedTransformer, recipe: Recipe, test: Test) -> float:
    """Return accuracy after the trained number of passes."""
    passes, rng = recipe.model.default_iterations, recipe.generator("held_out")
    found = evaluate(
        model, test[0], rng, iterations=(passes,), sequences=SEQUENCES, batch=SEQUENCES, **test[1]
    )
    return found.accuracy_at(passes)


def guessing(recipe: Recipe, test: Test) -> float:
    """Return the share of the answer that is most frequent in the texts of a test."""
    batch = test[0].sample(recipe.generator("held_out"), SEQUENCES, **test[1])
    answers = batch.targets[batch.targets >= 0]
    return float(np.bincount(answers).max() / len(answers))


def met(recipe: Recipe) -> tuple[int, int]:
    """Draw a training again: its different texts, and how many texts of the test are of them."""
    task, (unseen, asked) = get_task(recipe.task), next(iter(tests(recipe).values()))
    trained: set[str] = set()
    for step in range(recipe.steps):
        trained.update(map(task.decode, recipe.training_batch(step).tokens))
    test = unseen.sample(recipe.generator("held_out"), SEQUENCES, **asked)
    return len(trained), sum(task.decode(row) in trained for row in test.tokens)


def measure(scale: Scale) -> dict[str, Values]:
    """Train everything; return each measurement by name and shape, one value a seed."""
    recipes = {
        (make, shape, seed): make(shape, seed, scale)
        for make in (mano, multihop, bios)
        for seed in scale.seeds
        for shape in SHAPES
    }
    models = gallery.train_all(recipes.values(), scale)
    found: dict[str, dict[str, list[float]]] = {}

    def note(name: str, shape: str, value: float) -> None:
        found.setdefault(name, {}).setdefault(shape, []).append(value)

    for (make, shape, _), recipe in recipes.items():
        if make is bios:
            known = capacity(models[recipe.name], get_task(recipe.task))
            note(BITS, shape, known.bits)
            note(RATE, shape, known.per_parameter)
            continue
        for name, test in tests(recipe).items():
            note(name, shape, accuracy(models[recipe.name], recipe, test))
            if shape == SMALL:
                note(name, GUESSING, guessing(recipe, test))
    return {
        name: {shape: np.array(values) for shape, values in shapes.items()}
        for name, shapes in found.items()
    }


def change(values: Values) -> Interval:
    """Return by which share the loops change a measurement, paired by seed."""
    return gallery.mean_interval(values[LOOPED] / values[SMALL] - 1)


def within(value: Interval, bound: float) -> bool | None:
    """Tell whether a mean lies between minus and plus a bound: True, False or None (open)."""
    sides = {below(value, bound), above(value, -bound)}
    return False if False in sides else None if None in sides else True


def covered(values: Values) -> NDArray[np.float64] | None:
    """Return the share of the mean gap to equal FLOPs that loops cover; None for no sure gap."""
    gap = paired(values[LARGE], values[SMALL])
    return (values[LOOPED] - values[SMALL]) / gap.mean if above(gap) else None


def more_covered(used: Values, kept: Values) -> bool | None:
    """Tell whether loops cover a larger share of one gap than of another."""
    first, second = covered(used), covered(kept)
    return None if first is None or second is None else above(paired(first, second))


def row(name: str, values: Values) -> tuple[Any, ...]:
    """Return a line of the table."""
    interval = gallery.share_interval if GUESSING in values else gallery.mean_interval
    share = covered(values)
    return (
        name,
        *(interval(values[shape]) for shape in SHAPES),
        paired(values[LOOPED], values[SMALL]),
        paired(values[LOOPED], values[LARGE]),
        None if share is None else gallery.mean_interval(share),
        interval(values[GUESSING]) if GUESSING in values else None,
    )


def pictures(found: dict[str, Values], texts: str) -> list[Picture]:
    """Draw what is used and what is stored, a bar for each shape."""
    names = (EXPRESSIONS, FACTS, COMBINATIONS)
    used = {
        shape: {name: gallery.share_interval(found[name][shape]) for name in names}
        for shape in (*SHAPES, GUESSING)
    }
    kept = {shape: {"biographies": gallery.mean_interval(found[RATE][shape])} for shape in SHAPES}
    papers = ("about 2 bits, as in the papers", 2.0)
    return [
        Picture(
            name="using",
            figure=bars(used, title="Using knowledge", y="accuracy", y_range=(0, 1.05)),
            caption="Expressions and combinations of two facts are from the fifth that is held "
            f"out, facts are trained on. {texts} The last bar of each group is guessing: the share "
            "of the most frequent answer. Whiskers: 95 % intervals over seeds.",
        ),
        Picture(
            name="storing",
            figure=bars(kept, title="Storing knowledge", y=f"{RATE}, stored", level=papers),
            caption="Bits of the biographies, counted from the losses on names and values, over "
            "all parameters, embedding included. Whiskers: 95 % intervals over seeds.",
        ),
    ]


def run(scale: Scale) -> Outcome:
    """Train three shapes on three tasks and compare what looping changes."""
    found = measure(scale)
    expressions, combined = found[EXPRESSIONS], found[COMBINATIONS]
    bits, rate = found[BITS], found[RATE]
    one, loop = gallery.mean_interval(rate[SMALL]), gallery.mean_interval(rate[LOOPED])
    drawn = [make(SMALL, 0, scale) for make in (mano, multihop)]
    (told, leaked), (asked, leaked_too) = gallery.in_parallel(
        met, drawn, scale, key=Recipe.fingerprint, label=lambda job: f"texts of {job.name}"
    )
    better = [paired(values[LOOPED], values[SMALL]) for values in (expressions, combined)]
    reach = [paired(values[LOOPED], values[LARGE]) for values in (expressions, combined)]
    more_layers = gallery.mean_interval(bits[LARGE] / bits[LOOPED] - 1)
    checks = {
        "unseen expressions: loops beat equal parameters": above(better[0]),
        "unseen combinations: loops beat equal parameters": above(better[1]),
        f"unseen expressions: loops come within {CLOSE:g} of equal FLOPs": above(reach[0], -CLOSE),
        f"bits per parameter change by less than {NEAR:.0%} with loops": within(change(rate), NEAR),
        STORE_MORE: above(more_layers),
        "loops cover more of the gap in expressions than in bits": more_covered(expressions, bits),
        "loops cover more of the gap in combinations than in bits": more_covered(combined, bits),
    }
    apart = above(better[0]) and above(better[1]) and within(change(rate), NEAR)
    hardest = drawn[0].curriculum[-1].length
    best = max(expressions[shape].max() for shape in SHAPES)
    texts = (
        f"Training of the first seed shows {told:,} different expressions and {asked:,} questions; "
        f"{leaked + leaked_too} of the held-out test are among them."
    )
    rows = [row(name, values) for name, values in found.items()]
    return Outcome(
        checks=checks,
        sanity={"nothing of the held-out test was in training": leaked + leaked_too == 0},
        tables=[gallery.Table(title="Using and storing, by shape", columns=COLUMNS, rows=rows)],
        pictures=pictures(found, texts),
        summary=(
            f"Looping one layer {LOOPS} times, without a parameter more, changes accuracy on "
            f"unseen expressions of {hardest} operations by {better[0]} and on unseen combinations "
            f"of two facts by {better[1]}; against {LARGE} of their own, as many FLOPs, the "
            f"differences are {reach[0]} and {reach[1]}. After {EXPOSURES[scale.name]} exposures "
            f"of each person it stores {one} bits per parameter without and {loop} with loops, a "
            f"change of {change(rate):.0%}; {LARGE} of their own store {more_layers:.0%} more bits "
            "than the loop. "
            + ("A loop" if apart else "Not in every comparison is it clear that a loop")
            + " adds use of what is stored, and not room."
        ),
        limits=(
            "Models of a few thousand to some ten thousand parameters, mostly embedding where bits "
            "are counted, with one learning rate and number of steps a task; the papers have 1 M "
            "to 40 M for bits and, for Mano, the best of several learning rates and seeds.",
            f"Expressions are modulo {get_task(drawn[0].task).modulus} with {hardest} operations, "
            f"the paper's modulo 23 with up to 24. The best model gets {best:.0%} of the unseen "
            "ones right. Two hops, not three; accuracy, not the number of questions needed.",
            "Shares of the gap to equal FLOPs leave out the error of the mean gap they divide by.",
            "Sizes were chosen in trials of one seed: three operations modulo 3 were given up, "
            "where loops and one layer stayed below 70 % and within five points of each other, and "
            "two modulo 7, not begun by the loop; at this size it was ahead after 1200 steps, "
            "cut to 1000 for time. Trainings of 100 exposures stored nothing and were dropped. "
            f"The bounds ({CLOSE:g} in accuracy, {NEAR:.0%} of the bits) were set beforehand, the "
            "second for an earlier run of fewer exposures, which stayed open (10 % [4 %, 16 %]).",
        ),
    )


CLAIM = Claim(
    number=8,
    slug="knowledge",
    title="Loops improve the manipulation of knowledge, not its storage",
    paper=(
        "Zhu et al., Scaling Latent Reasoning via Looped Language Models, arXiv:2510.25741, "
        "section 6; Saunshi et al., Reasoning with Latent Thoughts, arXiv:2502.17416"
    ),
    says=(
        "A looped model stores as much as any other of its size: about 2 bits per parameter after "
        "1000 exposures, with and without loops, as Allen-Zhu & Li (arXiv:2404.05405) found for "
        "plain models (about 1 after 100). It is better at using what it knows: on trees of "
        "arithmetic (Mano) it always beats the model of equal parameters and often that of equal "
        "FLOPs, and it learns to combine facts from fewer different questions. In Saunshi et al. "
        "loops cover 34 to 50 % of the gap to equal FLOPs in perplexity, but 131 to 176 % in "
        "reasoning primitives."
    ),
    does=(
        f"One layer, one layer looped {LOOPS} times and {LARGE} (no injection, a fixed number of "
        "passes) see the same batches of three tasks: prefix expressions modulo a small prime; "
        "questions of one and two hops over a made-up knowledge base; and biographies of more "
        "people than one layer can know, each seen 1000 times on average, as in the paper. Of the "
        "expressions of two and more operations and of the two-hop questions a fifth is held out, "
        "by a hash of the text, and the test draws only from it. The share of the gap to equal "
        "FLOPs is that of Saunshi et al., with stored bits in the place of perplexity."
    ),
    robust=(STORE_MORE,),
    run=run,
)


if __name__ == "__main__":
    CLAIM.main()
