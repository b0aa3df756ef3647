"""Claim 5: each layer has a fixed point of its own, and attention settles on the way there."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

import looplens
from looplens import analysis
from looplens.gallery import (
    Claim,
    Outcome,
    Picture,
    Scale,
    Table,
    in_parallel,
    mean_interval,
    paired,
    pictures,
    train_all,
)
from looplens.models import LoopedTransformer
from looplens.models.native import as_looped
from looplens.plots import cycle_figure
from looplens.recording.attention_kappa import attention_kappa
from looplens.tasks import get_task
from looplens.training import DepthSampling, Recipe, Stage, evaluate, huginn
from looplens.training.step import build_model

TASK = "phop"
NORMS = {"pre": "pre-norm", "huginn": "Huginn's norm", "sandwich": "Ouro's norm"}
INJECTIONS = {"linear": "injection", "none": "none"}
CELLS = [(norm, injection) for norm in NORMS for injection in INJECTIONS]
LOOPS = 4  # in training, as in the paper's own models
TAU, RHO = 0.05, 0.9  # of the paper's rule: the cosine to the last state stays above 1 - TAU
APART = 3.0  # limits further apart than this many times the motion that is left are several points


def recipe(norm: str, injection: str, layers: int, seed: int, scale: Scale) -> Recipe:
    """Describe one cell of the grid: prelude 1, so many layers looped, coda 1."""
    length, hops = scale.pick(smoke=(8, 1), quick=(16, 2), full=(24, 4))
    start = "noise" if injection == "linear" else "prelude"
    return huginn(
        TASK,
        name=f"cycle-{norm}-{injection}-{layers}-{seed}",
        summary=f"p-hop, {layers} layers, {NORMS[norm]}, injection {injection}.",
        iterations=LOOPS,
        core=layers,
        d_model=scale.pick(smoke=16, quick=32, full=64),
        n_ctx=64,
        model={
            "norm": norm,
            "injection": injection,
            "initial_state": start,
            "loop_norm": norm == "sandwich",
        },
        depth=DepthSampling(kind="fixed", mean=LOOPS),
        steps=scale.pick(smoke=5, quick=400, full=2000),
        batch=32,
        learning_rate=scale.pick(smoke=5e-3, quick=5e-3, full=2e-3),
        warmup=50,
        curriculum=(
            Stage(share=0.3, length=length, difficulty=(1, 1)),
            Stage(share=0.7, length=length, difficulty=(1, hops)),
        ),
        seed=seed,
    )


def measure(
    model: LoopedTransformer, wanted: Recipe, iterations: int, sequences: int
) -> dict[str, Any]:
    """Run a model far beyond its depth and measure limits, motion and attention of every layer."""
    last = wanted.curriculum[-1]
    batch = get_task(TASK).sample(
        np.random.default_rng(7), sequences, length=last.length, difficulty=last.difficulty
    )
    trace = looplens.trace(model, torch.from_numpy(batch.tokens), iterations, attention=True)
    layers = model.cfg.n_core
    states = np.stack([trace.trajectories(layer) for layer in range(layers)], axis=-3)
    maps = np.moveaxis(trace.attention.numpy(), (1, 2), (1, 0))  # batch, layer, iteration, head, ..
    cycle = analysis.cycle(states)
    regimes = analysis.classify(states, surrogates=0)
    step = np.median(analysis.convergence(states).relative_step, axis=(0, 1))  # layer, iteration
    change = analysis.attention_change(maps).mean(axis=(0, -1))  # layer, iteration
    moving = step > 1e-5  # below, rounding decides both
    # The paper's maps have 8 loops.
    apart = analysis.attention_distance(maps[:, :, :8])
    return {
        "settles": settles(states),
        "fixed": float((regimes.regime == "fixed_point").mean()),
        "drifts": float((regimes.regime == "slider").mean()),
        "movement": float(np.median(cycle.movement)),
        "cyclic": float((cycle.separation_ratio > APART).mean()),
        "degeneracy": float(np.median(cycle.degeneracy)),
        "apart": float(np.median(cycle.distance[..., ~np.eye(layers, dtype=bool)])),
        "together": float(spearmanr(step[moving], change[moving]).statistic),
        "bounded": bounded(model, states, maps),
        "band": float(analysis.band_contrast(apart, layers)[..., 1:].mean()),
        "step": step.mean(axis=0),
        "change": change.mean(axis=0),
    }


def settles(states: NDArray[np.floating]) -> float:
    """Share of trajectories that stay near their last state, by our reading of the paper's rule."""
    unit = states / np.linalg.norm(states, axis=-1, keepdims=True)
    cosine = np.vecdot(unit, unit[..., -1:, :])
    late = cosine[..., cosine.shape[-1] // 2 :]
    return float(((late > 1 - TAU).mean(axis=-1) >= RHO).mean())


def bounded(
    model: LoopedTransformer, states: NDArray[np.floating], maps: NDArray[np.floating]
) -> float:
    """Largest change of attention over what its input's change allows, but for the first layer."""
    kappa = attention_kappa(as_looped(model))
    ratios = []
    for layer in range(1, model.cfg.n_core):
        below = np.swapaxes(states[:, :, layer - 1], 1, 2).astype(np.float64)
        size = np.sqrt((below**2).mean(-1, keepdims=True) + model.cfg.norm_eps)
        found = analysis.attention_bound(
            below / size, maps[:, layer], kappa[layer], d_head=model.cfg.d_head
        )
        ratios.append(np.max(found.measured / np.maximum(found.bound, np.finfo(float).tiny)))
    return float(max(ratios))


def untrained(wanted: Recipe, *, iterations: int, sequences: int) -> dict[str, Any]:
    """Measure a model before any training."""
    return measure(build_model(wanted).eval(), wanted, iterations, sequences)


def run(scale: Scale) -> Outcome:
    """Measure the grid at random weights for several block sizes, and after training for one."""
    sizes = scale.pick(smoke=(2,), quick=(4, 12), full=(4, 12, 16))
    layers, size = scale.pick(smoke=(2, (32, 2)), quick=(3, (128, 6)), full=(4, (128, 16)))
    far = {"iterations": size[0], "sequences": size[1]}
    fresh = [
        recipe(*cell, blocks, seed, scale)
        for blocks in sizes
        for cell in CELLS
        for seed in scale.seeds
    ]
    measured = in_parallel(
        functools.partial(untrained, **far),
        fresh,
        scale,
        key=lambda job: f"{job.fingerprint()} {far}",
        label=lambda job: f"{job.name}, untrained",
    )
    found: dict[Any, list[dict[str, Any]]] = {}
    for one, values in zip(fresh, measured, strict=True):
        place = (one.model.n_core, one.model.norm, one.model.injection)
        found.setdefault(place, []).append(values)
    recipes = {
        (*cell, seed): recipe(*cell, layers, seed, scale) for cell in CELLS for seed in scale.seeds
    }
    models = train_all(list(recipes.values()), scale)
    for (norm, injection, _), wanted in recipes.items():
        values = measure(models[wanted.name], wanted, **far)
        values["accuracy"] = score(models[wanted.name], wanted)
        found.setdefault(("trained", norm, injection), []).append(values)

    def of(what: str, place: Any, norm: str, injection: str) -> list[float]:
        return [values[what] for values in found[place, norm, injection]]

    def interval(what: str, place: Any, norm: str, injection: str) -> Any:
        return mean_interval(of(what, place, norm, injection))

    def more(place: Any, a: tuple[str, str], b: tuple[str, str]) -> bool:
        return paired(of("settles", place, *a), of("settles", place, *b)).low > 0

    fed = [("pre", "linear"), ("huginn", "linear")]
    alone = ("pre", "none")
    everything = [values for several in found.values() for values in several]
    checks = {
        "untrained, injection lets pre-norm and Huginn's norm settle": all(
            interval("settles", blocks, *cell).low > 0.9 for blocks in sizes for cell in fed
        ),
        "untrained, Ouro's norm settles less in spite of injection": all(
            more(blocks, cell, ("sandwich", "linear")) for blocks in sizes for cell in fed
        ),
        "untrained and without injection, pre-norm alone settles": all(
            interval("settles", blocks, *alone).low > 0.9 and more(blocks, alone, (norm, "none"))
            for blocks in sizes
            for norm in ("huginn", "sandwich")
        ),
        "and there all layers share one direction": all(
            interval("degeneracy", blocks, *alone).low > 0.99 for blocks in sizes
        ),
        "trained with injection, the layers settle": all(
            interval("settles", "trained", *cell).low > 0.9 for cell in fed
        ),
        "trained with injection, each layer has a limit of its own": all(
            interval("cyclic", "trained", *cell).low > 0.9
            and interval("degeneracy", "trained", *cell).high < 0.9
            for cell in fed
        ),
        "attention changes less as the states do": all(
            interval("together", "trained", *cell).low > 0.9 for cell in fed
        ),
        "the change of attention stays under its bound": all(
            values["bounded"] <= 1 for values in everything
        ),
        "each loop shows the attention of the loop before, layer by layer": all(
            interval("band", "trained", *cell).low > 0 for cell in fed
        ),
    }
    columns = ("settles", "fixed", "drifts", "movement", "apart", "degeneracy", "cyclic")
    columns += ("together", "band")
    return Outcome(
        checks=checks,
        tables=[
            Table(
                title=f"Limits after {size[0]} iterations, means over seeds",
                columns=(
                    *("layers", "norm", "injection", "settles (cosine rule)", "fixed point"),
                    *("slider", "movement left", "distance of limits", "smallest cosine of limits"),
                    *("cyclic", "attention with states", "band of attention", "accuracy"),
                ),
                rows=[
                    (
                        f"{layers}, trained" if place == "trained" else place,
                        NORMS[norm],
                        INJECTIONS[injection],
                        *(interval(what, place, norm, injection) for what in columns),
                        interval("accuracy", place, norm, injection)
                        if place == "trained"
                        else None,
                    )
                    for place, norm, injection in found
                ],
            )
        ],
        pictures=[
            Picture(
                name="cycle",
                figure=draw_cycle(models[recipes["pre", "linear", 0].name], recipes, size[0]),
                caption=f"The last token of one text in the trained model with pre-norm and "
                f"injection, seed 0: the way around its {layers} limits.",
            ),
            Picture(
                name="grid",
                figure=pictures.bars(
                    {
                        "trained" if place == "trained" else f"untrained, {place} layers": {
                            f"{NORMS[norm]}, {INJECTIONS[injection]}": interval(
                                "settles", place, norm, injection
                            )
                            for norm, injection in CELLS
                        }
                        for place in (*sizes, "trained")
                    },
                    title="Which layers stay near their last state",
                    y="share of tokens and layers",
                ),
                caption="The paper's grid of norm placement and injection, by its cosine rule.",
            ),
            *(draw_settling(found, what) for what in ("step", "change")),
        ],
        summary=(
            f"Untrained blocks of {sizes[-1]} layers settle with injection in "
            f"{interval('settles', sizes[-1], 'pre', 'linear')} (pre-norm), "
            f"{interval('settles', sizes[-1], 'huginn', 'linear')} (Huginn's norm) and "
            f"{interval('settles', sizes[-1], 'sandwich', 'linear')} (Ouro's norm) of all tokens "
            f"and layers, without it in {interval('settles', sizes[-1], 'pre', 'none')}, "
            f"{interval('settles', sizes[-1], 'huginn', 'none')} and "
            f"{interval('settles', sizes[-1], 'sandwich', 'none')}. Pre-norm without injection "
            f"has limits of cosine {interval('degeneracy', sizes[-1], *alone)}, but "
            f"{interval('drifts', sizes[-1], *alone)} of its trajectories are sliders whose norm "
            f"grows: the rule sees the direction alone. Trained with injection, the limits of the "
            f"{layers} layers lie {interval('apart', 'trained', 'pre', 'linear')} (pre-norm) and "
            f"{interval('apart', 'trained', 'huginn', 'linear')} (Huginn's norm) of their norm "
            f"apart, with {interval('movement', 'trained', 'pre', 'linear')} and "
            f"{interval('movement', 'trained', 'huginn', 'linear')} of motion left. Attention "
            f"changes with the states at rank correlations of "
            f"{interval('together', 'trained', 'pre', 'linear')} and "
            f"{interval('together', 'trained', 'huginn', 'linear')}, and reaches at most "
            f"{max(values['bounded'] for values in everything):.2g} of its bound."
        ),
        limits=(
            "The rule of the paper is given there as an algorithm that we have not read; ours is "
            "a reading of its two numbers.",
            "Untrained models draw small branches (variance over the depth passed), so that "
            "their limits have cosines near 1 though they are told apart exactly.",
            f"Trained models have {layers} layers and one synthetic task; the paper's have 4 to "
            "24 layers and are trained on text.",
        ),
    )


def score(model: LoopedTransformer, wanted: Recipe) -> float:
    """Held-out accuracy at the trained number of loops."""
    last = wanted.curriculum[-1]
    return evaluate(
        model,
        get_task(TASK),
        wanted.generator("held_out"),
        iterations=(LOOPS,),
        sequences=128,
        length=last.length,
        difficulty=last.difficulty,
    ).accuracy_at(LOOPS)


def draw_cycle(model: LoopedTransformer, recipes: dict[Any, Recipe], iterations: int) -> Any:
    """Draw the paths and limits of all layers at the last token of one text."""
    last = recipes["pre", "linear", 0].curriculum[-1]
    prompt = get_task(TASK).prompts(1, seed=3, length=last.length, difficulty=last.difficulty)[0]
    trace = looplens.trace(model, prompt.token_ids, iterations)
    states = np.stack([trace.trajectories(layer)[0, -1] for layer in range(model.cfg.n_core)])
    cycle, basis = analysis.cycle(states), analysis.pca(states, n_components=2)
    return cycle_figure(
        basis.projection,
        (cycle.limits - basis.mean) @ basis.components.T,
        cycle.distance,
        cycle.movement,
        explained=basis.explained_variance_ratio,
        subtitle=f"{prompt.text}, last token",
    )


def draw_settling(found: dict[Any, list[dict[str, Any]]], what: str) -> Picture:
    """Draw how states or attention of the trained cells settle."""
    title = {"step": "Relative step of the states", "change": "Change of attention"}[what]
    curves = {}
    for norm, injection in CELLS:
        values = np.array([one[what] for one in found["trained", norm, injection]])
        at = [t for t in (2 ** np.arange(8)) if t <= values.shape[1]]  # iteration t to t + 1
        curves[f"{NORMS[norm]}, {INJECTIONS[injection]}"] = (
            [int(t) + 1 for t in at],
            [max(float(value), 1e-9) for value in values[:, np.array(at) - 1].mean(axis=0)],
        )
    drawn = pictures.lines(
        curves, title=f"{title}, trained models", x="iteration", y=title.lower(), log_x=True,
        log_y=True,
    )  # fmt: skip
    name = {"step": "states", "change": "attention"}[what]
    return Picture(
        name=name, figure=drawn, caption=f"{title}, mean over layers and seeds, by iteration."
    )


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
        "layer settles at a point of its own and the state goes around a cycle, unless the "
        "layers contribute nothing any more and share one point. Changes of attention are "
        "bounded by those of the state, so attention settles with it, and maps of one layer are "
        "alike from loop to loop. At random weights injection gives fixed points for all norm "
        "placements but Ouro's; without it only pre-norm is stable, and degenerate."
    ),
    does=(
        "The grid of pre-norm, Huginn's norm and Ouro's norm with and without injection, run for "
        "128 iterations: untrained blocks of 4 and 12 layers (full size: 16 too), and blocks of 3 "
        "layers (full size: 4) trained on p-hop with always 4 loops, as the paper's own models "
        "are. Reported are the paper's cosine rule and looplens' regimes, limits and bound."
    ),
    robust=("the change of attention stays under its bound",),
    run=run,
)


if __name__ == "__main__":
    CLAIM.main()
