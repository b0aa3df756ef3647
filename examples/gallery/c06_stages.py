"""Claim 6: every loop goes through the stages of inference again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

import looplens
from looplens.analysis import compare_stages
from looplens.analysis.analyzers.stages import mean_profiles
from looplens.analysis.measures.stages import profile_correlation
from looplens.gallery import Claim, Outcome, Picture, Scale, Table, mean_interval, paired, train_all
from looplens.models import LoopedTransformer
from looplens.plots import compare_stages as draw_stages
from looplens.tasks import get_task
from looplens.training import Recipe, Stage, equal_flops, evaluate, k_by_l
from looplens.training.step import build_model

TASK = "phop"
LAYERS, LOOPS = 4, 3
BEYOND = 4  # times the trained number of loops, for what becomes of the stages later


def recipe(kind: str, seed: int, scale: Scale) -> Recipe:
    """Describe one model: looped without or with injection, or all layers in a row."""
    width = scale.pick(smoke=16, quick=32, full=64)
    length, hops = scale.pick(smoke=(8, 1), quick=(24, 3), full=(32, 6))
    looped = k_by_l(
        TASK,
        LAYERS,
        LOOPS,
        prelude=1,
        coda=1,
        d_model=width,
        n_ctx=64,
        model={"injection": "linear"} if kind == "injection" else None,
        name=f"stages-{kind}-{seed}",
        steps=scale.pick(smoke=20, quick=600, full=2500),
        batch=scale.pick(smoke=16, quick=32, full=64),
        warmup=50,
        curriculum=(
            Stage(share=0.2, length=length, difficulty=(1, 1)),
            Stage(share=0.2, length=length, difficulty=(1, max(1, hops // 2))),
            Stage(share=0.6, length=length, difficulty=(1, hops)),
        ),
        seed=seed,
    )
    return equal_flops(looped, name=looped.name) if kind == "feed-forward" else looped


def record(model: LoopedTransformer, wanted: Recipe, name: str, scale: Scale) -> looplens.Run:
    """Record attention and residual stream on prompts that are the same for all models."""
    last = wanted.curriculum[-1]
    loops = model.cfg.default_iterations
    run = looplens.record(
        model,
        get_task(TASK).prompts(
            scale.pick(smoke=4, quick=24, full=48),
            seed=100,
            length=last.length,
            difficulty=last.difficulty,
        ),
        out=scale.run_folder(name.replace(" ", "-")),
        iterations=loops * (BEYOND if loops > 1 else 1),
        attention=True,
        progress=False,
        overwrite=True,
    )
    run.analyze(["stages"])  # stored: it is asked for several times
    return run


def stages(run: looplens.Run) -> NDArray[np.float64]:
    """Return the profiles of a run, (stage, loop, layer); a feed-forward model is cut in loops."""
    profiles = mean_profiles(looplens.analysis.get(run, "stages")).values
    return profiles.reshape(len(profiles), -1, LAYERS)


def alike(profiles: NDArray[np.float64], loop: int, others: slice) -> float:
    """Correlation over layers of one loop with others, mean over stages and those loops."""
    return float(np.nanmean(profile_correlation(profiles[:, others], profiles[:, loop : loop + 1])))


def run(scale: Scale) -> Outcome:
    """Train the models, record them on the same prompts and compare their profiles."""
    kinds = ("no injection", "injection", "feed-forward")
    recipes = {(kind, seed): recipe(kind, seed, scale) for kind in kinds for seed in scale.seeds}
    models = train_all(list(recipes.values()), scale)
    runs, accuracy = {}, {kind: [] for kind in kinds}
    for (kind, seed), wanted in recipes.items():
        model = models[wanted.name]
        runs[kind, seed] = record(model, wanted, wanted.name, scale)
        accuracy[kind].append(score(model, wanted))
        if kind != "feed-forward":
            runs[f"{kind}, untrained", seed] = record(
                build_model(wanted), wanted, f"{wanted.name}-untrained", scale
            )
    before, last = slice(0, LOOPS - 1), LOOPS - 1
    everyone = sorted({kind for kind, _ in runs})
    repeats = {
        kind: [alike(stages(runs[kind, seed]), last, before) for seed in scale.seeds]
        for kind in everyone
    }
    later = {
        kind: [
            alike(stages(runs[kind, seed]), last, slice(BEYOND * LOOPS - 1, None))
            for seed in scale.seeds
        ]
        for kind in everyone
        if kind != "feed-forward"
    }
    whole, part = {}, {}
    for kind in everyone:
        if kind == "feed-forward":
            continue
        found = [
            compare_stages(runs[kind, seed], runs["feed-forward", seed], loops=LOOPS)
            for seed in scale.seeds
        ]
        whole[kind] = [float(one["like_whole"].mean()) for one in found]
        part[kind] = [float(one["like_part"].mean()) for one in found]
    plain = "no injection"
    against = paired(repeats[plain], repeats["feed-forward"])
    mirrored = mean_interval(whole[plain])
    same_depth = paired(whole[plain], part[plain])
    kept = paired(later["injection"], later[plain])
    checks = {
        "loops repeat their stages": mean_interval(repeats[plain]).low > 0.5,
        "a feed-forward model of the same depth does not repeat them so": against.low > 0,
        "a loop mirrors the whole feed-forward model": mirrored.low > 0,
        "it is more like the whole than like the same depth": same_depth.low > 0,
        "with injection the stages last longer beyond the trained depth": kept.low > 0,
    }
    seed = scale.seeds[0]
    return Outcome(
        checks=checks,
        tables=[
            Table(
                title="Correlation of profiles over the layers of a loop",
                columns=(
                    *("model", "accuracy", "earlier loops with the last"),
                    *(f"loop {BEYOND * LOOPS} with loop {LOOPS}", "with the whole feed-forward"),
                    "with the same depth of it",
                ),
                rows=[
                    (
                        kind,
                        mean_interval(accuracy[kind]) if kind in accuracy else "",
                        *(
                            mean_interval(of[kind]) if kind in of else ""
                            for of in (repeats, later, whole, part)
                        ),
                    )
                    for kind in everyone
                ],
            )
        ],
        pictures=[
            Picture(
                name="stages",
                figure=draw_stages(runs[plain, seed], runs["feed-forward", seed], loops=LOOPS),
                caption=f"Four stages at every depth, seed {seed}: a sawtooth with the period of "
                f"{LAYERS} layers is a loop that goes through its stages again.",
            ),
            Picture(
                name="beyond",
                figure=looplens.plots.stages(runs["injection", seed]),
                caption=f"With injection, through {BEYOND} times the trained loops, seed {seed}.",
            ),
        ],
        summary=(
            f"The profiles of earlier loops correlate with that of the last by "
            f"{mean_interval(repeats[plain])}, {LAYERS} layers of a feed-forward model with its "
            f"last {LAYERS} by {mean_interval(repeats['feed-forward'])} (difference {against}). "
            f"Before any training the loops have {mean_interval(repeats[f'{plain}, untrained'])}. "
            f"With the whole feed-forward model a loop correlates by {mirrored}, which is "
            f"{same_depth} more than with the same depth of it. After {BEYOND} times the trained "
            f"loops the profile correlates with the trained one by {mean_interval(later[plain])} "
            f"without and {mean_interval(later['injection'])} with injection."
        ),
        limits=(
            f"Profiles of {LAYERS} layers: single correlations are coarse, so they are means over "
            "four stages and over loops.",
            "Models of the same weights in every loop repeat much of their profile before they "
            "learn anything; the row of the untrained models says how much.",
            "A profile that rises or falls through all layers correlates in every part of them; "
            "the row of the feed-forward model says how much of the correlation is that.",
            "Attention of one synthetic task; massive activations, which the paper finds behind "
            "the stages of language models, need not appear in models of this size.",
        ),
    )


def score(model: LoopedTransformer, wanted: Recipe) -> float:
    """Held-out accuracy at the trained number of loops."""
    last, loops = wanted.curriculum[-1], model.cfg.default_iterations
    found = evaluate(
        model,
        get_task(TASK),
        wanted.generator("held_out"),
        iterations=(loops,),
        sequences=256,
        length=last.length,
        difficulty=last.difficulty,
    )
    return found.accuracy_at(loops)


CLAIM = Claim(
    number=6,
    slug="stages",
    title="Every loop goes through the stages of inference again",
    paper=(
        "Blayney et al., arXiv:2604.11791, on stages of inference: the metrics, the comparison "
        "with a feed-forward model, and the extrapolation to more recurrences"
    ),
    says=(
        "The layers of a looped block differ in how they mix tokens, in how far attention "
        "gathers in a few keys, and in how far the residual stream is compressed, in the way the "
        "layers of a feed-forward model do from its first to its last. Each recurrence repeats "
        "these stages, without any training pressure to do so. Models with fixed points keep "
        "them for arbitrarily many recurrences, models that drift do not."
    ),
    does=(
        f"Pre-norm models of {LAYERS} layers looped {LOOPS} times, with and without injection, "
        f"and a feed-forward model of {LAYERS * LOOPS} layers, each between one layer of prelude "
        "and one of coda, are trained on p-hop with the last step's loss. Four profiles over the "
        "layers are correlated: concentration and sinks of attention, mixing, and matrix entropy "
        "of the residual stream. The paper's own models have blocks of 4 to 12 layers, 4 "
        "recurrences, 512 dimensions and are trained on text."
    ),
    robust=(),
    run=run,
)


if __name__ == "__main__":
    CLAIM.main()
