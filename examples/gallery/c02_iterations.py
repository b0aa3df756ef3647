"""Claim 2: accuracy rises with iterations at test time, and later on harder items."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

import looplens
from looplens.analysis import overthinking
from looplens.gallery import Claim, Outcome, Picture, Scale, Table, mean_interval, paired, train_all
from looplens.gallery.pictures import lines
from looplens.models import LoopedTransformer
from looplens.tasks import get_task
from looplens.training import DepthSampling, Recipe, Stage, evaluate, huginn

TASK = "phop"
TRAINED = 6  # iterations, on average less one
NEAR = 0.02  # accuracy this close to the best counts as saturated


def recipe(seed: int, scale: Scale) -> Recipe:
    """Describe a model in the style of Huginn: prelude, a looped layer, coda, random depth."""
    width = scale.pick(smoke=32, quick=48, full=64)
    length = scale.pick(smoke=16, quick=32, full=48)
    hops = scale.pick(smoke=2, quick=6, full=8)
    return huginn(
        TASK,
        iterations=2 * TRAINED,
        d_model=width,
        n_ctx=64,
        name=f"iterations-{seed}",
        steps=scale.pick(smoke=150, quick=1500, full=4000),
        batch=scale.pick(smoke=16, quick=32, full=64),
        learning_rate=4e-3,
        warmup=50,
        curriculum=(
            Stage(share=0.12, length=length, difficulty=(1, 1)),
            Stage(share=0.13, length=length, difficulty=(1, 2)),
            Stage(share=0.25, length=length, difficulty=(1, min(4, hops))),
            Stage(share=0.5, length=length, difficulty=(1, hops)),
        ),
        depth=DepthSampling(mean=TRAINED),
        backprop_iterations=4,
        seed=seed,
    )


def depths(scale: Scale) -> tuple[int, ...]:
    """Return the iterations that are read out, up to many times the trained depth."""
    return scale.pick(
        smoke=(1, 2, 4, 8), quick=(*range(1, 13), 16, 24, 32), full=(*range(1, 17), 24, 32, 64)
    )


def measure(model: LoopedTransformer, wanted: Recipe, scale: Scale) -> NDArray[np.float64]:
    """Return held-out accuracy, (iterations, hops)."""
    last = wanted.curriculum[-1]
    found = evaluate(
        model,
        get_task(TASK),
        wanted.generator("held_out"),
        iterations=depths(scale),
        sequences=scale.pick(smoke=64, quick=1024, full=2048),
        length=last.length,
        difficulty=last.difficulty,
    )
    return np.array(found.accuracy_by_difficulty)


def saturation(accuracy: NDArray[np.float64], scale: Scale) -> NDArray[np.float64]:
    """Return the first iteration whose accuracy is near the best, for each difficulty."""
    near = accuracy >= accuracy.max(axis=0) - NEAR
    return np.array(depths(scale), dtype=float)[near.argmax(axis=0)]


def exits(model: LoopedTransformer, wanted: Recipe, scale: Scale) -> NDArray[np.float64]:
    """Return the mean iteration at which the KL rule leaves, for each difficulty."""
    last = wanted.curriculum[-1]
    prompts = get_task(TASK).prompts(
        scale.pick(smoke=12, quick=60, full=120),
        seed=100,
        length=last.length,
        difficulty=last.difficulty,
    )
    run = looplens.record(
        model,
        [prompt for prompt in prompts if max(prompt.targets) >= 0],
        out=scale.run_folder(wanted.name),
        iterations=depths(scale)[-1],
        sites=(),
        progress=False,
        overwrite=True,
    )
    grouped = run.group_by("exits", by="difficulty", variables=("exit_iteration",))
    policies = looplens.analysis.get(run, "exits")
    chosen = (policies["rule"] == "kl") & policies["is_default"]
    return grouped["exit_iteration"].sel(statistic="mean").isel(policy=chosen.values).values[:, 0]


def rank(values: NDArray[np.float64]) -> float:
    """Rank correlation with the difficulty; 0 where all values are the same."""
    if np.ptp(values) == 0:
        return 0.0
    return float(spearmanr(np.arange(len(values)), values).statistic)


def run(scale: Scale) -> Outcome:
    """Train a model a seed, and read it out after every number of iterations."""
    recipes = [recipe(seed, scale) for seed in scale.seeds]
    models = train_all(recipes, scale)
    at = depths(scale)
    curves = np.stack([measure(models[one.name], one, scale) for one in recipes])
    hops = list(range(1, curves.shape[2] + 1))
    settled = np.stack([saturation(accuracy, scale) for accuracy in curves])
    left = np.stack([exits(models[one.name], one, scale) for one in recipes])
    overall = curves.mean(axis=2)
    gain = paired(overall[:, -1], overall[:, 0])
    hardest = paired(curves[:, -1, -1], curves[:, 0, -1])
    lost = mean_interval(overthinking(np.moveaxis(curves, 1, 2)).score.max(axis=1))
    order = mean_interval([rank(values) for values in settled])
    apart = paired(settled[:, -1], settled[:, 0])
    exit_order = mean_interval([rank(values) for values in left])
    exit_apart = paired(left[:, -1], left[:, 0])
    checks = {
        "accuracy rises from one iteration to many": gain.low > 0,
        "harder items saturate later": order.low > 0 and apart.low > 0,
        "accuracy stays far beyond the trained depth": lost.high < 0.05,
        "a rule that leaves when the output stops changing spends more on harder items": (
            exit_order.low > 0 and exit_apart.low > 0
        ),
    }
    shown = sorted({1, 2, 4, 8, at[-1]})
    return Outcome(
        checks=checks,
        tables=[
            Table(
                title="Accuracy by hops and iterations at test time",
                columns=(
                    *("hops", *(f"r = {count}" for count in shown)),
                    *("saturates at", "KL rule leaves at"),
                ),
                rows=[
                    (
                        p,
                        *(mean_interval(curves[:, at.index(count), p - 1]) for count in shown),
                        mean_interval(settled[:, p - 1]),
                        mean_interval(left[:, p - 1]),
                    )
                    for p in hops
                ],
            )
        ],
        pictures=[
            Picture(
                name="accuracy",
                figure=lines(
                    {
                        f"{p} hop{'s' if p > 1 else ''}": (
                            at,
                            [mean_interval(curves[:, i, p - 1]) for i in range(len(at))],
                        )
                        for p in hops
                    },
                    title="Accuracy rises with iterations, later on harder items",
                    subtitle=f"p-hop, {len(scale.seeds)} seeds; bands are intervals over seeds",
                    x="iterations at test time",
                    y="held-out accuracy",
                    log_x=True,
                    marks={"mean depth in training": TRAINED + 1},
                ),
                caption="Each curve rises, then stays. All texts have one length, so hops are "
                "not confused with the position or the length.",
            )
        ],
        summary=(
            f"Mean accuracy goes from {mean_interval(overall[:, 0])} after one iteration to "
            f"{mean_interval(overall[:, -1])} after {at[-1]} (difference {gain}); with "
            f"{hops[-1]} hops the difference is {hardest}. Items of 1 hop saturate at "
            f"{mean_interval(settled[:, 0])} iterations, of {hops[-1]} hops at "
            f"{mean_interval(settled[:, -1])}; the rank correlation of hops and saturation is "
            f"{order}. The KL rule leaves after {mean_interval(left[:, 0])} iterations with 1 hop "
            f"and {mean_interval(left[:, -1])} with {hops[-1]}. At the worst number of hops, "
            f"{lost} of the best accuracy is lost by {at[-1]} iterations."
        ),
        limits=(
            f"Saturated means within {NEAR:g} of the best accuracy at that number of hops; one "
            "iteration can do more than one hop, so neighbouring numbers of hops may tie.",
            "Difficulty is the number of hops of a synthetic task. The paper varies benchmarks "
            "and the number of examples in the prompt, which are not tried here.",
            "Positions from which p hops exist are rarer and later for large p.",
        ),
    )


CLAIM = Claim(
    number=2,
    slug="iterations",
    title="Accuracy rises with iterations at test time, and saturates later on harder items",
    paper=(
        "Geiping et al., Scaling up Test-Time Compute with Latent Reasoning, arXiv:2502.05171, on "
        "benchmarks against the number of recurrences and on per-token exits"
    ),
    says=(
        "One model, read out after more recurrences, becomes more accurate without any more "
        "training, and then stays as it is. Easy tasks saturate early and hard ones late: ARC "
        "Challenge at 8 to 12 recurrences without examples, at about 20 with one and at 32 with "
        "25 to 50 examples in the prompt. Leaving the loop when the divergence of successive "
        "outputs is small spends more on hard subjects, about 3.5 steps more on moral scenarios "
        "than on school mathematics."
    ),
    does=(
        "Models in the style of Huginn (one layer of prelude, one looped, one of coda; random "
        "start, injection, a log-normal-Poisson number of iterations, truncated gradients) are "
        "trained on p-hop induction and read out after every iteration. The difficulty is the "
        "number of hops, which changes neither the length nor the form of a text."
    ),
    robust=("accuracy rises from one iteration to many",),
    run=run,
)


if __name__ == "__main__":
    CLAIM.main()
