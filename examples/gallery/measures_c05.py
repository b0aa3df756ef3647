"""What claim 5 measures of a model far beyond its depth, and how that is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

import looplens
from looplens import analysis, gallery
from looplens.analysis.analyzers.cycle import APART
from looplens.gallery import Interval, Picture
from looplens.models import LoopedTransformer
from looplens.models.native import as_looped
from looplens.plots import cycle_figure
from looplens.recording.attention_kappa import attention_kappa
from looplens.tasks import get_task
from looplens.training import Recipe, evaluate

ASKED = "phop:last=true"
LOOPS = 4  # in training, as in the paper's own models
TAU, RHO = 0.05, 0.9  # of the paper's rule: the cosine to the last state stays above 1 - TAU
Seeds = Sequence[dict[str, Any]]  # what was measured of models that differ in their seeds


def measure(
    model: LoopedTransformer, wanted: Recipe, iterations: int, sequences: int
) -> dict[str, Any]:
    """Run a model far beyond its depth and measure limits, motion and attention of every layer."""
    task, rng, last = get_task(ASKED), np.random.default_rng(7), wanted.curriculum[-1]
    texts = {"length": last.length, "difficulty": last.difficulty[1]}
    batch = task.sample(rng, sequences, **texts)
    trace = looplens.trace(model, torch.from_numpy(batch.tokens), iterations, attention=True)
    held_out = evaluate(model, task, rng, iterations=(LOOPS,), sequences=256, **texts)
    layers = model.cfg.n_core
    states = np.stack([trace.trajectories(layer) for layer in range(layers)], axis=-3)
    maps = np.moveaxis(trace.attention.numpy(), (1, 2), (1, 0))  # batch, layer, iteration, head, ..
    cycle = analysis.cycle(states)
    regimes = analysis.classify(states, surrogates=0)
    step = np.median(analysis.convergence(states).relative_step, axis=(0, 1))  # layer, iteration
    change = analysis.attention_change(maps).mean(axis=(0, -1))  # layer, iteration
    moving = step > 1e-5  # below, rounding decides both
    apart = analysis.attention_distance(maps[:, :, :8])  # the paper's maps have 8 loops
    return {
        "settles": settles(states),
        "fixed": float((regimes.regime == "fixed_point").mean()),
        "drifts": float((regimes.regime == "slider").mean()),
        "turns": float((regimes.regime == "orbit").mean()),
        "movement": float(np.median(cycle.movement)),
        "cyclic": float((cycle.separation_ratio > APART).mean()),
        "degeneracy": float(np.median(cycle.degeneracy)),
        "apart": float(np.median(cycle.distance[..., ~np.eye(layers, dtype=bool)])),
        "together": float(spearmanr(step[moving], change[moving]).statistic),
        "bounded": bounded(model, states, maps),
        "band": float(analysis.band_contrast(apart, layers)[..., 1:].mean()),
        "accuracy": held_out.accuracy_at(LOOPS),
        "step": np.median(step, axis=0),
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
    least = []
    for layer in range(1, model.cfg.n_core):
        below = np.swapaxes(states[:, :, layer - 1], 1, 2).astype(np.float64)
        seen = below / np.sqrt((below**2).mean(-1, keepdims=True) + model.cfg.norm_eps)
        d_head = model.cfg.d_head
        found = analysis.attention_bound(seen, maps[:, layer], kappa[layer], d_head=d_head)
        least.append(np.nanmin(found.slack))
    return 1 / float(min(least))


def quiet_together(cells: Sequence[Seeds]) -> list[float]:
    """Rank correlation over cells of late motion and late change of attention, for every seed."""
    late = -(-len(cells[0][0]["step"]) // 4)  # the last quarter
    motion, change = (
        np.array([[one[what][-late:].mean() for one in seeds] for seeds in cells])
        for what in ("step", "change")
    )
    return [float(spearmanr(*both).statistic) for both in zip(motion.T, change.T, strict=True)]


def draw_cycle(model: LoopedTransformer, wanted: Recipe, iterations: int, name: str) -> Picture:
    """Draw the paths and limits of all layers at the last token of one text."""
    last = wanted.curriculum[-1]
    asked = {"length": last.length, "difficulty": last.difficulty[1]}
    prompt = get_task(ASKED).prompts(1, seed=3, **asked)[0]
    trace = looplens.trace(model, prompt.token_ids, iterations)
    states = np.stack([trace.trajectories(layer)[0, -1] for layer in range(model.cfg.n_core)])
    cycle, basis = analysis.cycle(states), analysis.pca(states, n_components=2)
    drawn = cycle_figure(
        basis.projection, (cycle.limits - basis.mean) @ basis.components.T, cycle.distance,
        cycle.movement, explained=basis.explained_variance_ratio,
        subtitle=f"{prompt.text}, last token",
    )  # fmt: skip
    caption = (
        f"The trained model with least motion left ({name}): the way around the limits of its "
        "layers. Faint: states on the way there."
    )
    return Picture(name="cycle", figure=drawn, caption=caption)


def draw_settling(by_norm: Mapping[str, Seeds]) -> Picture:
    """Draw how states and attention of the trained models with injection settle."""
    curves = {}
    for norm, models in by_norm.items():
        for what, name in (("step", "states"), ("change", "attention")):
            seeds = np.array([one[what] for one in models])
            at = [2**power for power in range(7) if 2**power <= seeds.shape[1]]
            logs = np.log10(np.maximum(seeds[:, np.array(at) - 1], 1e-9))  # a logarithm needs some
            free = [gallery.mean_interval(column) for column in logs.T]
            heights = [
                Interval(mean=10**v.mean, low=10**v.low, high=10**v.high, n=v.n) for v in free
            ]
            curves[f"{norm}: {name}"] = (at, heights)
    drawn = gallery.pictures.lines(
        curves, title="Change from one loop to the next", x="loop",
        subtitle="trained, with injection", log_x=True, log_y=True,
        y="relative step, total variation",
    )  # fmt: skip
    caption = (
        "States: length of the step over the norm, median over layers; attention: total variation, "
        "mean over layers and heads. Geometric means over seeds with 95 % intervals."
    )
    return Picture(name="attention", figure=drawn, caption=caption)
