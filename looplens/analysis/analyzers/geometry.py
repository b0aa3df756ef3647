"""The geometry of the steps of every token, at the loop boundary and from layer to layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from looplens.analysis.analyzers._analyzer import (
    Analyzer,
    Source,
    Summary,
    coordinates,
    has_layers,
    labelled,
    needs_iterations,
    over_known,
    rounding_dtype,
)
from looplens.analysis.measures.steps import CURVES, NUMBERS, geometry_of
from looplens.analysis.measures.two_scale import mean_step, two_scale_of
from looplens.analysis.regimes.thresholds import rounding_step
from looplens.analysis.running.engine import Block, Wants
from looplens.errors import CorruptRunError

if TYPE_CHECKING:
    from looplens.store import StoredRun

_LONG_NAMES = {
    "step_norm": ("length of the step", "state units"),
    "step_cosine": ("cosine of the step and the one before it", "1"),
    "acceleration": ("length of the difference of two successive steps, over the norm", "1"),
    "radial_step": ("part of the step along the state before it, over the norm", "1"),
    "tangential_step": ("part of the step across the state before it, over the norm", "1"),
    "signal_end": ("last iteration that is not the noise floor", "iteration"),
    "mean_step_cosine": ("mean cosine of successive steps over the signal", "1"),
    "turning_angle": ("mean angle between successive steps over the signal", "radians"),
    "curvature": ("median turning angle over the step, times the norm, over the signal", "1"),
    "path_length": ("sum of the steps of the signal over the norm of the last state", "1"),
    "straightness": ("distance from the first to the last state over the path between", "1"),
    "two_scale_ratio": ("jump to the next layer over the mean step of this one", "1"),
    "entry_ratio": ("distance from the injected input to state 1 over the mean step", "1"),
}


def needs(run: StoredRun) -> str | None:
    """Ask for all iterations, at least two."""
    if run.iterations < 2:
        return "The geometry of steps needs at least two iterations, and this run has one."
    return needs_iterations(run)


def plan(source: Source, *, source_dtype: str | None = None) -> str:
    """Check the dtype."""
    return rounding_dtype(source.run, source_dtype)


def wants(run: StoredRun, plan: str) -> Wants:
    """Ask for loop states, and for layers where there are several."""
    return Wants(layers=_jumps(run))


def _jumps(run: StoredRun) -> bool:
    return has_layers(run) and len(run.recorded_layers) > 1 and run.iterations > 2


def measure(block: Block, plan: str) -> dict[str, np.ndarray]:
    """Measure the steps, and the jumps from layer to layer."""
    assert block.states is not None
    restarts, tokens = block.shape
    count, rounding = restarts * tokens, rounding_step(plan)
    found = geometry_of(block.state, (count, block.states.shape[2] - 1), rounding)
    found = found.reshaped(block.shape)
    # Curves are for figures and thresholds: half the size is precise enough.
    arrays = {name: getattr(found, name).astype(np.float32) for name in CURVES}
    arrays |= {name: getattr(found, name) for name in ("signal_end", *NUMBERS)}
    if _jumps(block.run):
        ratio = two_scale_of(block.layers, (count, block.run.width), rounding)
        ratio = np.concatenate([ratio, np.full((count, 1), np.nan)], axis=1)
        arrays["two_scale_ratio"] = ratio.reshape(restarts, tokens, -1)
    if block.run.has_injected:
        arrays["entry_ratio"] = _entry(block, rounding)
    return arrays


def _entry(block: Block, rounding: float) -> np.ndarray:
    """Distance from the injected input to state 1 over the mean step, (restart, token)."""
    assert block.states is not None
    try:
        injected = block.run.injected(tokens=block.tokens).values.astype(np.float64)
    except CorruptRunError:  # of one small array: the rest of the block is known
        return np.full(block.shape, np.nan)
    step = np.full(block.shape[0] * block.shape[1], np.nan)
    for part in block.state:
        step[part.rows] = mean_step(part, rounding, first=2)
    return np.linalg.norm(block.states[:, :, 1] - injected, axis=-1) / step.reshape(block.shape)


def build(source: Source, plan: str, whole: dict[str, np.ndarray]) -> xr.Dataset:
    """Name the curves and numbers."""
    run, pair = source.run, ("restart", "token")
    data = {}
    for name, values in whole.items():
        dims: tuple[str, ...] = pair
        if name in CURVES:
            dims = (*pair, "iteration")
        elif name == "two_scale_ratio":
            dims = (*pair, "layer")
        long_name, units = _LONG_NAMES[name]
        data[name] = labelled(dims, values, long_name, units, source_dtype=plan)
    axes = ["restart", "token", "iteration"] + ["layer"] * ("two_scale_ratio" in whole)
    return xr.Dataset(data, coords=coordinates(run, *axes))


def summarize(dataset: xr.Dataset, run: StoredRun) -> Summary:
    """Medians over all trajectories (restart x token) of the variables of the same name.

    ``median_two_scale_ratio`` is over layers too. All are of the signal, without what is rounding.
    """
    names = (*NUMBERS, *(name for name in ("two_scale_ratio", "entry_ratio") if name in dataset))
    summary: Summary = {
        f"median_{name}": over_known(np.median, dataset[name].values) for name in names
    }
    summary["median_signal_end"] = over_known(np.median, dataset["signal_end"].values)
    return summary


ANALYZER = Analyzer(
    name="geometry",
    version=1,
    title="Step geometry",
    needs=needs,
    plan=plan,
    wants=wants,
    measure=measure,
    build=build,
    summarize=summarize,
    parameters=("source_dtype",),
)
