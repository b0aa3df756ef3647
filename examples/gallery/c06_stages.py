"""Claim 6: every loop goes through the stages of inference again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from measures_c06 import (
    ASKED,
    LAYERS,
    following,
    guessing,
    kept,
    mirrored,
    profiles,
    settled,
    side_by_side,
)
from numpy.typing import NDArray

from looplens import gallery
from looplens.analysis.measures.stages import STAGES, profile_correlation
from looplens.gallery import Claim, Interval, Outcome, Picture, Scale, Table, above, paired
from looplens.gallery import mean_interval as mean
from looplens.tasks import get_task
from looplens.training import Recipe, Stage, equal_flops, evaluate, k_by_l
from looplens.training.step import build_model

TASK = "phop"  # trained with a target at every letter, asked at the last one alone
LOOPS = 4  # the paper's number of recurrences
BEYOND = 8 * LOOPS
LONG = 128  # loops after which states are called settled or not
PLAIN, FED, DEEP = "no injection", "injection", "feed-forward"
NEW = ", untrained"


def recipe(kind: str, seed: int, scale: Scale) -> Recipe:
    """Describe one model: looped without or with injection, or all layers in a row."""
    length, hops = scale.pick(smoke=(12, 1), quick=(16, 2), full=(32, 4))
    looped = k_by_l(
        TASK,
        LAYERS,
        LOOPS,
        prelude=1,
        coda=1,
        d_model=scale.pick(smoke=16, quick=32, full=64),
        n_ctx=64,
        model={"injection": "linear"} if kind == FED else None,
        name=f"{kind}, seed {seed}",
        steps=scale.pick(smoke=5, quick=450, full=3000),
        batch=32,
        learning_rate=scale.pick(smoke=6e-3, quick=6e-3, full=3e-3),
        warmup=50,
        curriculum=(
            Stage(share=0.3, length=length, difficulty=(1, 1)),
            Stage(share=0.7, length=length, difficulty=(1, hops)),
        ),
        seed=seed,
    )
    return equal_flops(looped, name=looped.name) if kind == DEEP else looped


def correlation(values: list[float] | NDArray[np.float64]) -> Interval:
    """Return the mean over seeds, with the ends of its interval kept within -1 and 1."""
    free = mean(values)
    return replace(free, low=max(free.low, -1.0), high=min(free.high, 1.0))


def run(scale: Scale) -> Outcome:
    """Train the models, measure them on the same texts and compare their profiles."""
    seeds = range(scale.pick(smoke=1, quick=5, full=6))
    recipes = {(kind, s): recipe(kind, s, scale) for kind in (PLAIN, FED, DEEP) for s in seeds}
    models = gallery.train_all(list(recipes.values()), scale)
    models = {place: models[wanted.name] for place, wanted in recipes.items()}
    task, last = get_task(ASKED), recipes[PLAIN, 0].curriculum[-1]
    hardest = {"length": last.length, "difficulty": last.difficulty[1]}
    texts = task.sample(
        np.random.default_rng(100), scale.pick(smoke=4, quick=24, full=48), **hardest
    )
    found: dict[tuple[str, int], NDArray[np.float64]] = {}  # (stage, loop, layer)
    accuracy: dict[str, list[list[float]]] = {PLAIN: [], FED: [], DEEP: []}
    fixed: dict[str, list[float]] = {PLAIN: [], FED: []}
    for (kind, seed), model in models.items():
        far = BEYOND if kind != DEEP else 1
        found[kind, seed] = profiles(model, texts.tokens, far)
        fresh = build_model(recipes[kind, seed]).eval()
        found[kind + NEW, seed] = profiles(fresh, texts.tokens, far)
        depths = (LOOPS, BEYOND) if kind != DEEP else (1,)
        rng = recipes[kind, seed].generator("held_out")
        held_out = evaluate(model, task, rng, iterations=depths, sequences=512, **hardest)
        accuracy[kind].append([held_out.accuracy_at(depth) for depth in depths])
        if kind in fixed:
            fixed[kind].append(settled(model, texts.tokens[:6], LONG))

    # Every measure by kind: (seed, stage), of which only stages are used that no model has flat.
    measures: dict[tuple[str, str], NDArray[np.float64]] = {}
    for kind in sorted({kind for kind, _ in found}):
        mine = [found[kind, s] for s in seeds]
        steps = np.stack([following(one[:, :LOOPS]) for one in mine])
        learned = (
            None if NEW in kind else [one - found[kind + NEW, s] for s, one in enumerate(mine)]
        )
        for pair in range(LOOPS - 1):
            measures[f"{pair + 1} and {pair + 2}", kind] = steps[..., pair]
        measures["later", kind] = steps[..., 1:].mean(-1)
        if learned is not None:
            added = np.stack([following(one[:, :LOOPS])[:, 1:].mean(-1) for one in learned])
            measures["learned", kind] = added
        if not kind.startswith(DEEP):
            both = [mirrored(one[:, :LOOPS], found[DEEP, s]) for s, one in enumerate(mine)]
            measures["whole", kind] = np.stack([whole for whole, _ in both])
            measures["part", kind] = np.stack([part for _, part in both])
            far = [profile_correlation(one[:, -1], one[:, LOOPS - 1]) for one in mine]
            measures[f"{LOOPS} and {BEYOND}", kind] = np.stack(far)
    common = np.isfinite(np.concatenate(list(measures.values()))).all(0)
    of = {place: values[:, common].mean(1) for place, values in measures.items()}
    left = {
        part: np.array(
            [
                [
                    kept(
                        profiles(models[PLAIN, s], texts.tokens, LOOPS, f"core.{layer}.{site}"),
                        found[PLAIN, s][:, :LOOPS],
                    )[common].mean()
                    for layer in range(LAYERS)
                ]
                for s in seeds
            ]
        )  # (seed, layer)
        for part, site in (("attention", "hook_attn_out"), ("MLP", "hook_mlp_out"))
    }

    settle = paired(fixed[FED], fixed[PLAIN])
    last_longer = paired(of[f"{LOOPS} and {BEYOND}", FED], of[f"{LOOPS} and {BEYOND}", PLAIN])
    learned = paired(of["learned", PLAIN], of["learned", DEEP])
    repeat = paired(of["later", PLAIN], of["later", DEEP])
    worst = {part: values.min(1) for part, values in left.items()}
    taken = paired(worst["attention"], worst["MLP"])
    checks = {
        "from loop 2 on, loops repeat their stages more than parts of a feed-forward model": above(
            repeat
        ),
        "so does loop 2 those of loop 1": above(paired(of["1 and 2", PLAIN], of["1 and 2", DEEP])),
        "what training changes in the stages repeats more than in a feed-forward model": above(
            learned
        ),
        "a loop mirrors the whole feed-forward model": above(mean(of["whole", PLAIN])),
        "more than before training": above(paired(of["whole", PLAIN], of["whole", PLAIN + NEW])),
        "more than it mirrors the same depth": above(paired(of["whole", PLAIN], of["part", PLAIN])),
        "injection gives fixed points, and there the stages last longer": (
            above(last_longer) if above(settle) else None
        ),
        "zeroing one MLP takes more of the stages away than zeroing any attention": above(taken),
    }
    pairs = [f"{t} and {t + 1}" for t in range(1, LOOPS)]
    kinds = (PLAIN, FED, DEEP, PLAIN + NEW, FED + NEW)
    shown = [*pairs, f"{LOOPS} and {BEYOND}"]
    drawn = {k: {p: correlation(of[p, k]) for p in shown if (p, k) in of} for k in kinds}
    guess = guessing(task, hardest)
    used = [name.replace("_", " ") for name, ok in zip(STAGES, common, strict=True) if ok]
    answers = {
        k: [gallery.share_interval(v) for v in zip(*a, strict=True)] for k, a in accuracy.items()
    }
    ends = {kind: gallery.share_interval(values) for kind, values in fixed.items()}
    others = ["learned", "whole", "part"]
    return Outcome(
        checks=checks,
        tables=[
            Table(
                title=f"Correlation of profiles over {LAYERS} layers, mean of {', '.join(used)}",
                columns=(
                    *("model", *(f"loops {pair}" for pair in shown)),
                    "trained minus untrained, from loop 2",
                    *("whole feed-forward", "same depth of it"),
                ),
                rows=[
                    [k, *(correlation(of[m, k]) if (m, k) in of else "" for m in shown + others)]
                    for k in (*kinds, DEEP + NEW)
                ],
            ),
            Table(
                title=f"The models; guessing is right {guess:.2f} of the time",
                columns=(
                    *("model", f"accuracy after {LOOPS} loops", f"after {BEYOND}"),
                    f"fixed points after {LONG} loops",
                ),
                rows=[
                    [
                        *(kind, *answers[kind], *([""] if kind == DEEP else [])),
                        ends.get(kind, ""),
                    ]
                    for kind in (PLAIN, FED, DEEP)
                ],
            ),
            Table(
                title=f"{PLAIN}: correlation with the intact profile, one part of a layer zeroed",
                columns=("zeroed", *(f"layer {layer}" for layer in range(LAYERS)), "least"),
                rows=[
                    [part, *map(correlation, values.T), correlation(worst[part])]
                    for part, values in left.items()
                ],
            ),
        ],
        pictures=[
            Picture(
                name="repeats",
                figure=gallery.pictures.bars(
                    drawn,
                    title="How alike the profiles of two loops are",
                    subtitle=f"feed-forward: every {LAYERS} layers count as a loop",
                    x="loops",
                    y="correlation over layers",
                    y_range=(-1.05, 1.05),
                ),
                caption="Means over stages and seeds with 95 % intervals.",
            ),
            Picture(
                name="stages",
                figure=side_by_side(models[PLAIN, 0], models[DEEP, 0], hardest, scale),
                caption="Four stages at every depth, seed 0, without injection. Vertical lines "
                f"part the loops; a shape that comes back every {LAYERS} layers is a loop that "
                "repeats its stages.",
            ),
        ],
        summary=summarise(of, repeat, learned, worst, taken, settle, last_longer, ends),
        limits=(
            f"Profiles of {LAYERS} layers correlate by chance alone often and strongly; what is "
            "compared are means over stages, from loop 2 on over pairs of loops, and "
            f"{len(seeds)} seeds. Loop 1 starts from the prelude, a transient, and stands alone.",
            "Loops of the same weights repeat much of their profile before they learn anything. "
            "Therefore the untrained models are shown, and the change by training is compared.",
            "The feed-forward comparison is our correlation; the paper compares curves by eye. "
            "Its ablation was of one MLP with massive activations, which our models need not have.",
            f"A correlation says nothing of how large the stages are. Sizes, {len(seeds)} seeds "
            "and steps were chosen after three loops and three seeds had left every check open, "
            "and after trial runs that measured accuracy alone.",
        ),
    )


def summarise(
    of: dict, repeat: Interval, learned: Interval, worst: dict, taken: Interval,
    settle: Interval, last_longer: Interval, ends: dict[str, Interval],
) -> str:  # fmt: skip
    """Compose the summary from what was measured."""
    far = f"{LOOPS} and {BEYOND}"
    gained = paired(of["later", PLAIN], of["later", PLAIN + NEW])
    whole, part = (correlation(of[name, PLAIN]) for name in ("whole", "part"))
    again = {True: "repeats", False: "does not repeat", None: "may or may not repeat"}
    return (
        f"From loop 2 on a loop {again[above(repeat)]} the stages of the one before: profiles "
        f"correlate by {correlation(of['later', PLAIN])}, those of successive {LAYERS} layers of a "
        f"feed-forward model by {correlation(of['later', DEEP])} (difference {repeat}). Shared "
        f"weights do so before they learn anything ({correlation(of['later', PLAIN + NEW])}; "
        f"trained minus untrained {gained}), but what training changes "
        f"{again[above(learned)]} as well ({correlation(of['learned', PLAIN])}, {learned} more "
        f"than in a feed-forward model). Loop 1 has {correlation(of['1 and 2', PLAIN])} with loop "
        f"2. A loop has {whole} with a whole feed-forward model and {part} with the same depth of "
        f"it. Loop {BEYOND} has {correlation(of[far, FED])} with loop {LOOPS} with injection and "
        f"{correlation(of[far, PLAIN])} without (difference {last_longer}); {ends[FED]} and "
        f"{ends[PLAIN]} of their states settle (difference {settle}). The worst attention to zero "
        f"leaves a correlation of {correlation(worst['attention'])} with the intact profile, the "
        f"worst MLP {correlation(worst['MLP'])} (difference {taken})."
    )


CLAIM = Claim(
    number=6,
    slug="stages",
    title="Every loop goes through the stages of inference again",
    paper=(
        "Blayney et al., arXiv:2604.11791, on stages of inference: the metrics, the comparison "
        "with a feed-forward model, the extrapolation to more recurrences, and the ablation"
    ),
    says=(
        "The layers of a looped block differ in how they mix tokens, in how far attention "
        "gathers in a few keys, and in how far the residual stream is compressed, in the way the "
        "layers of a feed-forward model do from its first to its last. Each recurrence repeats "
        "these stages, without any training pressure to do so. Models with fixed points keep "
        "them for arbitrarily many recurrences, models that drift do not. In one model they go "
        "when a single MLP is zeroed."
    ),
    does=(
        f"Pre-norm models of {LAYERS} layers looped {LOOPS} times, with and without injection, "
        f"and a feed-forward model of {LAYERS * LOOPS} layers, each between one layer of prelude "
        "and one of coda, are trained on p-hop with the last step's loss; all loops start from "
        "the prelude's output. Four profiles over the layers are correlated: concentration and "
        "sinks of attention, mixing, and matrix entropy of the residual stream, where none is "
        "flat in any model. Texts and accuracy are of p-hop at the last letter. All differences "
        "are paired by seed; a check that does not name injection is of the model without. The "
        "paper's own models have blocks of 4 to 12 layers, 4 recurrences, 512 dimensions and are "
        "trained on text."
    ),
    robust=(),
    run=run,
)


if __name__ == "__main__":
    CLAIM.main()
