"""Claim 4: from any initial state to the same end, and what breaks it.

The 2x2 of input injection and random depth, each trained over seeds on the same task. After
training, every model is run far beyond its depth, and from states that noise was added to.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

import looplens
from looplens.gallery import (
    Claim,
    Interval,
    Outcome,
    Picture,
    Scale,
    Table,
    mean_interval,
    paired,
    train_all,
)
from looplens.gallery.pictures import lines
from looplens.models import LoopedTransformer
from looplens.tasks import get_task
from looplens.training import DepthSampling, Recipe, Stage, evaluate, ouro

TASK, LENGTH, HOPS = "phop", 20, 2
TRAINED = 4  # iterations; the mean where the depth is random
RANDOM, FIXED = "log_normal_poisson", "fixed"
CELLS = {
    "injection, random depth": ("add", RANDOM),
    "injection, fixed depth": ("add", FIXED),
    "no injection, random depth": ("none", RANDOM),
    "no injection, fixed depth": ("none", FIXED),
}
BOTH, NEITHER = "injection, random depth", "no injection, fixed depth"
ONE = [name for name in CELLS if name not in (BOTH, NEITHER)]
READ = (1, 2, 3, 4, 6, 8, 12, 16, 32, 64)  # iterations that are read out
FAR = 64
START = "perturbed:1.0"  # noise as large as the state that it is added to
KEPT = 0.05  # accuracy that may be lost between the trained depth and FAR
SAME = 0.01  # relative gap under which two restarts count as one


def recipe(name: str, seed: int, scale: Scale) -> Recipe:
    """Describe one model: a single looped layer with a norm at the loop boundary.

    The loop starts from the embedding in all cells, so that nothing but the two factors differs:
    without injection a random start would keep the input from the model altogether.
    """
    injection, depth = CELLS[name]
    return ouro(
        TASK,
        iterations=TRAINED,
        gate=False,
        d_model=scale.pick(smoke=16, quick=48, full=64),
        n_ctx=64,
        name=f"{name} {seed}",
        model={"injection": injection},
        depth=DepthSampling(kind=depth, mean=TRAINED),
        backprop_iterations=6,
        steps=scale.pick(smoke=15, quick=700, full=2500),
        batch=scale.pick(smoke=8, quick=32, full=64),
        curriculum=(
            Stage(share=0.3, length=LENGTH, difficulty=(1, 1)),
            Stage(share=0.7, length=LENGTH, difficulty=(1, HOPS)),
        ),
        seed=seed,
    )


def accuracy(model: LoopedTransformer, wanted: Recipe, scale: Scale) -> list[float]:
    """Return held-out accuracy after each of the iterations of READ."""
    found = evaluate(
        model,
        get_task(TASK),
        wanted.generator("held_out"),
        iterations=READ,
        sequences=scale.pick(smoke=32, quick=512, full=1024),
        length=LENGTH,
        difficulty=(1, HOPS),
    )
    return list(found.accuracy)


def restarts(model: LoopedTransformer, name: str, scale: Scale) -> dict[str, NDArray | float]:
    """Run the loop from perturbed starts and compare where it goes."""
    run = looplens.record(
        model,
        get_task(TASK).prompts(
            scale.pick(smoke=2, quick=12, full=32), seed=1, length=LENGTH, difficulty=(1, HOPS)
        ),
        out=scale.run_folder("c04-" + name.replace(" ", "-").replace(",", "")),
        iterations=FAR,
        restarts=scale.pick(smoke=2, quick=4, full=8),
        initial_state=START,
        overwrite=True,
        progress=False,
    )
    found = run.results("path_independence")
    gaps = found["gap"].values[:, 1:]  # (token, iteration); state 0 is the start itself
    return {
        "gap": np.median(gaps, axis=0),
        "aa": float(found["aa_score"]),
        "agreement": float(found["agreement"]),
        "apart": float((gaps[:, -1] > SAME).mean()),
    }


def run(scale: Scale) -> Outcome:
    """Train the four kinds, run them far beyond their depth, and from perturbed starts."""
    recipes = {(name, seed): recipe(name, seed, scale) for name in CELLS for seed in scale.seeds}
    models = train_all(recipes.values(), scale)
    right, found = {}, {}
    for (name, seed), wanted in recipes.items():
        model = models[wanted.name]
        right[name, seed] = accuracy(model, wanted, scale)
        found[name, seed] = restarts(model, wanted.name, scale)
        scale.say(f"  measured {wanted.name}")

    def over_seeds(name: str, what: str) -> list[float]:
        return [found[name, seed][what] for seed in scale.seeds]

    def at(name: str, iterations: int) -> list[float]:
        return [right[name, seed][READ.index(iterations)] for seed in scale.seeds]

    lost = {name: paired(at(name, TRAINED), at(name, FAR)) for name in CELLS}
    aa = {name: mean_interval(over_seeds(name, "aa")) for name in CELLS}
    better = paired(over_seeds(BOTH, "aa"), over_seeds(NEITHER, "aa"))
    kept = [right[key][-1] / right[key][READ.index(TRAINED)] for key in recipes]
    rank = float(spearmanr([found[key]["aa"] for key in recipes], kept).statistic)
    return Outcome(
        checks={
            "with injection and random depth, the limits agree (alignment above 0.95)": (
                aa[BOTH].low > 0.95
            ),
            "with both, the limits agree more than with neither": better.low > 0,
            "with neither, accuracy is lost beyond the trained depth": lost[NEITHER].low > KEPT,
            f"with both, accuracy lasts to {FAR} iterations": lost[BOTH].high < KEPT,
            f"with either one alone, accuracy lasts to {FAR} iterations": all(
                lost[name].high < KEPT for name in ONE
            ),
            "over all models, alignment and lasting accuracy rise together (rank correlation "
            "above 0.5)": rank > 0.5,
        },
        tables=(
            Table(
                title=f"Accuracy at and beyond the trained depth, and {FAR} iterations from "
                "perturbed starts",
                columns=(
                    "model",
                    f"accuracy, {TRAINED} iterations",
                    f"accuracy, {FAR} iterations",
                    "lost",
                    "alignment of the limits",
                    "restarts that answer alike",
                    f"tokens with a gap above {SAME:g}",
                ),
                rows=[
                    (
                        name,
                        mean_interval(at(name, TRAINED)),
                        mean_interval(at(name, FAR)),
                        lost[name],
                        aa[name],
                        mean_interval(over_seeds(name, "agreement")),
                        mean_interval(over_seeds(name, "apart")),
                    )
                    for name in CELLS
                ],
            ),
        ),
        pictures=(
            Picture(
                name="accuracy",
                figure=lines(
                    {
                        name: (READ, [mean_interval(at(name, count)) for count in READ])
                        for name in CELLS
                    },
                    title="Accuracy by iterations at test time",
                    subtitle=f"p-hop of 1 to {HOPS} hops, {LENGTH} letters",
                    x="iterations",
                    y="held-out accuracy",
                    log_x=True,
                    y_range=(0, 1.02),
                    marks={"trained depth": TRAINED},
                ),
                caption="Held-out accuracy when the loop goes on beyond the depth it was trained "
                "at; bands are 95 % intervals over seeds.",
            ),
            Picture(
                name="gaps",
                figure=lines(
                    {
                        name: _gap_curve([found[name, s]["gap"] for s in scale.seeds])
                        for name in CELLS
                    },
                    title="How far apart perturbed starts stay",
                    subtitle="distance between restarts over their norm, median over tokens",
                    x="iteration",
                    y="relative gap",
                    log_x=True,
                    log_y=True,
                ),
                caption="The gap between restarts of the same token; in float32 it cannot fall "
                "below about 1e-7. The geometric mean over seeds.",
            ),
        ),
        summary=_summary(aa, lost, better, rank),
        limits=(
            "One layer, two hops and twenty letters: the task is so small that it says nothing "
            "about which models find hard problems.",
            "Starts are perturbed around the embedding and not drawn from noise alone, since a "
            "model without injection would not see its input then. Its start is part of its "
            "input, so that some of its path dependence is memory that it needs.",
            "The paper's text was not read for the alignment score, only its public code, and its "
            "models are not transformers.",
        ),
    )


def _gap_curve(gaps: list[NDArray]) -> tuple[list[int], list[float]]:
    mean = np.exp(np.log(np.maximum(gaps, 1e-9)).mean(axis=0))
    counts = [count for count in READ if count <= len(mean)]
    return counts, [float(mean[count - 1]) for count in counts]


def _summary(
    aa: dict[str, Interval], lost: dict[str, Interval], better: Interval, rank: float
) -> str:
    return (
        f"The limits of perturbed starts align to {aa[BOTH]:.3f} with injection and random depth "
        f"and to {aa[NEITHER]:.3f} with neither (difference {better:.3f}). From {TRAINED} to "
        f"{FAR} iterations accuracy falls by {lost[BOTH]:.3f} with both, by "
        + " and ".join(f"{lost[name]:.3f} with {name}" for name in ONE)
        + f", and by {lost[NEITHER]:.3f} with neither. Over all models the rank correlation "
        f"between alignment and the share of accuracy that lasts is {rank:.2f}."
    )


CLAIM = Claim(
    number=4,
    slug="path-independence",
    title="With injection and random depth, a loop forgets where it started",
    paper="Anil et al., Path Independent Equilibrium Models Can Better Exploit Test-Time "
    "Computation, arXiv:2211.09961 (code and notes only); Geiping et al., Scaling up Test-Time "
    "Compute with Latent Reasoning, arXiv:2502.05171, figure 22",
    says="Networks that reach the same limit from every initial state (an asymptotic alignment "
    "score near 1) make better use of more iterations than they were trained with. Injecting the "
    "input into every iteration and training with a random depth bring that about. For Huginn, "
    "which has both, the same orbits and fixed points are seen from several random starts, by "
    "eye; no score is given.",
    does="One looped layer (norm at the loop boundary, start from the embedding) learns p-hop "
    "induction in the four combinations of input injection (added, or none) and depth (always "
    "four iterations, or log-normal-Poisson with that mean). Each model is read out at up to 64 "
    "iterations, and run from four starts that noise of the size of the state was added to.",
    robust=("with injection and random depth, the limits agree (alignment above 0.95)",),
    run=run,
)

if __name__ == "__main__":
    CLAIM.main()
