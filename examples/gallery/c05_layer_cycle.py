"""Claim 5: each layer has a fixed point of its own, and attention settles on the way there."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

from measures_c05 import LOOPS, draw_cycle, draw_settling, guessing, measure, quiet_together

from looplens import gallery
from looplens.gallery import Claim, Interval, Outcome, Picture, Scale, Table, above, below, paired
from looplens.training import DepthSampling, Recipe, Stage, huginn
from looplens.training.step import build_model

TASK = "phop"  # trained with a target at every letter, asked at the last one alone
NORMS = {"pre": "pre-norm", "huginn": "Huginn's norm", "sandwich": "Ouro's norm"}
INJECTIONS = {"linear": "injection", "none": "none"}
CELLS = [(norm, injection) for norm in NORMS for injection in INJECTIONS]
FED, ALONE = [("pre", "linear"), ("huginn", "linear")], ("pre", "none")
LEARNING = [*FED, ("sandwich", "linear"), ("sandwich", "none")]  # cells that are trained as well
MOST, ALIKE = 0.9, 0.99  # ours: share of trajectories that counts as all, cosine as one direction
NEW, BEFORE, TRAINED = "untrained", "before training", "trained"
COLUMNS = {
    "settles": "settles (cosine rule)", "fixed": "fixed point", "drifts": "slider",
    "turns": "orbit", "movement": "motion left", "apart": "distance of limits",
    "degeneracy": "smallest cosine of limits", "cyclic": "cyclic",
    "together": "attention with states", "band": "band of attention",
    "accuracy": f"accuracy after {LOOPS}",
}  # fmt: skip
SHARES = ("settles", "fixed", "drifts", "turns", "cyclic", "accuracy")
Found = dict[Any, list[dict[str, Any]]]  # (trained or not, layers, norm, injection) to seeds


def recipe(norm: str, injection: str, layers: int, seed: int, scale: Scale) -> Recipe:
    """Describe one cell of the grid: prelude 1, so many layers looped, coda 1."""
    length, hops = scale.pick(smoke=(8, 1), quick=(16, 2), full=(24, 4))
    # One start for all: injection is the only difference between the cells of a norm.
    cell = {"norm": norm, "injection": injection, "initial_state": "prelude"}
    return huginn(
        TASK,
        name=f"cycle-{norm}-{injection}-{layers}-{seed}",
        summary=f"p-hop, {layers} layers, {NORMS[norm]}, injection {injection}.",
        iterations=LOOPS,
        core=layers,
        d_model=scale.pick(smoke=16, quick=32, full=64),
        n_ctx=64,
        model={**cell, "loop_norm": norm == "sandwich"},
        depth=DepthSampling(kind="fixed", mean=LOOPS),
        steps=scale.pick(smoke=5, quick=350, full=1200),
        batch=32,
        learning_rate=scale.pick(smoke=5e-3, quick=5e-3, full=2e-3),
        warmup=50,
        curriculum=tuple(
            Stage(share=share, length=length, difficulty=(1, most))
            for share, most in ((0.3, 1), (0.7, hops))
        ),
        seed=seed,
    )


def untrained(wanted: Recipe, *, iterations: int, sequences: int) -> dict[str, Any]:
    """Measure a model before any training."""
    return measure(build_model(wanted).eval(), wanted, iterations, sequences)


def every(checks: Iterable[bool | None]) -> bool | None:
    """All of several checks: against when one is, held when all are, else open."""
    found = list(checks)
    return False if False in found else (None if None in found else True)


def run(scale: Scale) -> Outcome:
    """Measure the grid at random weights for several block sizes, and after training for one."""
    sizes = scale.pick(smoke=(2,), quick=(4, 12), full=(4, 12, 16))
    drawn = range(scale.pick(smoke=1, quick=8, full=10))  # random weights cost a second a seed
    seeds = range(scale.pick(smoke=1, quick=5, full=6))
    layers, iterations = scale.pick(smoke=(2, 32), quick=(3, 128), full=(4, 128))
    far = {"iterations": iterations, "sequences": scale.pick(smoke=2, quick=6, full=8)}
    fresh = [recipe(*cell, k, seed, scale) for k in sizes for cell in CELLS for seed in drawn]
    recipes = [recipe(*cell, layers, seed, scale) for cell in LEARNING for seed in seeds]
    measured = gallery.in_parallel(
        functools.partial(untrained, **far), fresh + recipes, scale, label=lambda job: job.name
    )
    found: Found = {}
    states = [NEW] * len(fresh) + [BEFORE] * len(recipes)
    for state, one, values in zip(states, fresh + recipes, measured, strict=True):
        found.setdefault(place(state, one), []).append(values)
    models, motion = gallery.train_all(recipes, scale), {}
    for wanted in recipes:
        values = measure(models[wanted.name], wanted, **far)
        motion[values["movement"]] = wanted
        found.setdefault(place(TRAINED, wanted), []).append(values)

    def of(what: str, *cell: Any) -> Interval:
        values = [one[what] for one in found[cell]]
        return gallery.share_interval(values) if what in SHARES else gallery.mean_interval(values)

    def more(what: str, one: tuple, other: tuple) -> Interval:
        return paired(*([values[what] for values in found[cell]] for cell in (one, other)))

    def learned(what: str, cell: tuple[str, str]) -> Interval:
        return more(what, (TRAINED, layers, *cell), (BEFORE, layers, *cell))

    trained = [(TRAINED, layers, *cell) for cell in FED]
    grid = {k: [found[NEW, k, *cell] for cell in CELLS] for k in sizes}
    quiet = {k: gallery.mean_interval(quiet_together(grid[k])) for k in sizes}
    most = max(values["bounded"] for several in found.values() for values in several)
    checks = {
        "untrained, injection lets pre-norm and Huginn's norm settle": every(
            above(of("settles", NEW, k, *cell), MOST) for k in sizes for cell in FED
        ),
        "untrained, Ouro's norm settles less in spite of injection": every(
            above(more("settles", (NEW, k, *cell), (NEW, k, "sandwich", "linear")))
            for k in sizes
            for cell in FED
        ),
        "untrained and without injection, pre-norm settles": every(
            above(of("settles", NEW, k, *ALONE), MOST) for k in sizes
        ),
        "and more than the other norms": every(
            above(more("settles", (NEW, k, *ALONE), (NEW, k, norm, "none")))
            for k in sizes
            for norm in ("huginn", "sandwich")
        ),
        "and there all layers share one direction": every(
            above(of("degeneracy", NEW, k, *ALONE), ALIKE) for k in sizes
        ),
        "untrained, where less motion is left attention changes less": every(
            above(quiet[k]) for k in sizes
        ),
        "trained with injection, the layers settle": every(
            above(of("settles", *cell), MOST) for cell in trained
        ),
        "trained with injection, each layer has a limit of its own": every(
            check
            for cell in trained
            for check in (above(of("cyclic", *cell), MOST), below(of("degeneracy", *cell), ALIKE))
        ),
        "trained with injection, attention changes less as the states do": every(
            above(of("together", *cell)) for cell in trained
        ),
        "each loop shows the attention of the loop before, more than untrained": every(
            above(learned("band", c)) for c in FED
        ),
    }
    names = {cell: f"{NORMS[cell[0]]}, {INJECTIONS[cell[1]]}" for cell in CELLS}
    blocks = [*((NEW, k) for k in sizes), (BEFORE, layers), (TRAINED, layers)]
    rows = [
        [f"{block[0]}, {block[1]}", names[c], *(of(what, *block, *c) for what in COLUMNS)]
        for block in blocks
        for c in CELLS
        if (*block, *c) in found
    ]
    bars = gallery.pictures.bars(
        {
            f"{state}, {k} layers": {
                names[c].replace(", ", "<br>"): of("settles", state, k, *c)
                for c in CELLS
                if (state, k, *c) in found
            }
            for state, k in blocks
        },
        title="Which layers stay near their last state",
        subtitle=f"cosine rule over {iterations} loops; 95 % intervals over seeds",
        y="share of tokens and layers",
        y_range=(0, 1.05),
    )
    calm = motion[min(motion)]
    cell = (calm.model.norm, calm.model.injection)
    k, guess = sizes[-1], guessing(recipes[0])
    ouro = [of("settles", TRAINED, layers, "sandwich", injection) for injection in INJECTIONS]
    ouro_right = of("accuracy", TRAINED, layers, "sandwich", "none")
    return Outcome(
        checks=checks,
        sanity={"the change of attention stays under its bound": most <= 1},
        tables=[
            Table(
                title=f"After {iterations} loops; guessing has an accuracy of {guess:.2f}",
                columns=("layers", "norm, injection", *COLUMNS.values()),
                rows=rows,
            )
        ],
        pictures=[
            draw_cycle(models[calm.name], calm, iterations, f"{names[cell]}, seed {calm.seed}"),
            Picture(
                name="grid",
                figure=bars,
                caption="The paper's grid, by its cosine rule; bars of no height are 0. Without "
                "injection only Ouro's norm was trained.",
            ),
            draw_settling({NORMS[c[0]]: found[TRAINED, layers, *c] for c in FED}),
        ],
        summary=(
            f"Untrained blocks of {k} layers: with injection, tokens and layers that settle are "
            f"{of('settles', NEW, k, *FED[0])} (pre-norm), {of('settles', NEW, k, *FED[1])} "
            f"(Huginn's) and {of('settles', NEW, k, 'sandwich', 'linear')} (Ouro's), without it "
            f"{of('settles', NEW, k, *ALONE)}, {of('settles', NEW, k, 'huginn', 'none')} and "
            f"{of('settles', NEW, k, 'sandwich', 'none')}. Pre-norm without injection has limits "
            f"of cosine {of('degeneracy', NEW, k, *ALONE)}, but "
            f"{of('drifts', NEW, k, *ALONE)} of its trajectories are sliders: norms grow, and the "
            f"rule sees directions alone. Of trained blocks of {layers} layers with injection "
            f"{of('settles', *trained[0])}, {of('settles', *trained[1])} and {ouro[0]} settle, "
            f"and {ouro[1]} with Ouro's norm without it; {of('turns', *trained[0])} and "
            f"{of('turns', *trained[1])} of the first two are orbits. Training changed what "
            f"settles of these by {learned('settles', FED[0])} and "
            f"{learned('settles', FED[1])}, and moved their limits apart by "
            f"{learned('apart', FED[0])} and {learned('apart', FED[1])} of their norm. There "
            f"attention changes with the states at rank correlations of "
            f"{of('together', *trained[0])} and {of('together', *trained[1])}, over the untrained "
            f"cells at {quiet[k]}, and at most by {most:.2g} of its bound; the bands of alike "
            f"loops differ from untrained by {learned('band', FED[0])} and "
            f"{learned('band', FED[1])}."
        ),
        limits=(
            "The paper's rule is an algorithm that we have not read; ours is a reading of its two "
            f"numbers, on the last half of the loops. That {MOST} of all counts as all, and a "
            f"cosine of {ALIKE} as one direction, is ours.",
            "Random weights differ much: a first look at three seeds left most of the grid open, "
            "so that there are more seeds here. Steps were chosen by accuracy alone.",
            "Untrained branches are drawn small, so that limits have cosines near 1 and are told "
            "apart because so little moves. The paper shows bands and distances of trained models "
            "alone; that training adds to the bands is our question, as shared weights give bands "
            "before any training.",
            "All cells start from the prelude's output, so that injection is the only difference. "
            "Huginn starts from noise and trains random depths; in a run before this one (three "
            "seeds, cells with injection started from noise) trained pre-norm and Huginn's norm "
            "did settle. What a varying start adds is not told apart here.",
            "Trained are small blocks on one synthetic task, the paper's have up to 24 layers; "
            f"with Ouro's norm and no injection accuracy is {ouro_right}, where guessing has "
            f"{guess:.2f}.",
        ),
    )


def place(state: str, wanted: Recipe) -> tuple[str, int, str, str]:
    """Return under what the measurements of a model are kept."""
    return state, wanted.model.n_core, wanted.model.norm, wanted.model.injection


CLAIM = Claim(
    number=5,
    slug="layer-cycle",
    title="Each layer has a fixed point of its own, and attention settles on the way there",
    paper=(
        "Blayney et al., arXiv:2604.11791: propositions 4.1 and 4.2, the grid of norm placement "
        "and injection at random weights, and the figures of attention over 8 loops"
    ),
    says=(
        "If a block of k layers has a fixed point, so has every rotation of its layers: each "
        "settles at a point of its own and the state goes around a cycle, unless the layers "
        "contribute nothing any more. Changes of attention are bounded by those of the state, so "
        "it settles too, and maps of a layer are alike from loop to loop. At random weights "
        "injection gives fixed points for all norm placements but Ouro's; without it only "
        "pre-norm is stable, and degenerate."
    ),
    does=(
        "Pre-norm, Huginn's norm and Ouro's norm with and without injection run for 128 loops, "
        "from the prelude's output: untrained blocks of 4 and 12 layers (full size: 16 too), and "
        "blocks of 3 layers (full size: 4) before and after training on p-hop with always 4 "
        "loops, as the paper's own models are (all norms with injection, Ouro's also without); "
        "differences are paired by seed. Texts and accuracy are of p-hop at the last letter, with "
        "the most hops of the training."
    ),
    robust=(),
    run=run,
)


if __name__ == "__main__":
    CLAIM.main()
