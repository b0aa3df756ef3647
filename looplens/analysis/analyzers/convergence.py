"""Convergence of every token, at the loop boundary and at every layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from looplens.analysis.algebra.products import Moments
from looplens.analysis.analyzers._analyzer import (
    Analyzer,
    Source,
    Summary,
    coordinates,
    finite_or_none,
    has_layers,
    labelled,
    level_name,
    needs_iterations,
    over_known,
    token_columns,
)
from looplens.analysis.measures.convergence import (
    CURVES,
    array_rounding,
    check_tolerance,
    convergence_of,
    settling_iteration,
)
from looplens.analysis.running.engine import Block, Wants

if TYPE_CHECKING:
    from looplens.store import StoredRun


def plan(source: Source, *, tolerance: float = 1e-2) -> float:
    """Check the tolerance."""
    check_tolerance(tolerance)
    return float(tolerance)


def wants(run: StoredRun, plan: float) -> Wants:
    """Ask for loop states, and for layers where there are any."""
    return Wants(layers=has_layers(run))


def measure(block: Block, plan: float) -> dict[str, np.ndarray]:
    """Measure steps, distances to the limit, norms, rates and settling iterations."""
    assert block.states is not None
    restarts, tokens = block.shape
    shape = (restarts * tokens, block.states.shape[2] - 1)
    rounding = array_rounding(block.states.dtype)
    found = convergence_of(block.state, shape, plan, rounding).reshaped(block.shape)
    # Curves are for figures and thresholds: half the size is precise enough.
    arrays = {name: getattr(found, name).astype(np.float32) for name in CURVES}
    arrays |= {name: getattr(found, name) for name in ("settling_iteration", "rate", "floor")}
    layers = [_layer(part, block, plan) for part in block.layers]
    if layers:
        arrays["layer_relative_step"] = np.stack(layers, axis=2).astype(np.float32)
        arrays["layer_settling_iteration"] = np.stack(
            [settling_iteration(layer, plan) for layer in layers], axis=2
        )
    return arrays


def _layer(parts: list[Moments], block: Block, tolerance: float) -> np.ndarray:
    """Relative steps after one layer, (restart, token, iteration); NaN at the first iteration."""
    iterations = len(block.run.kept_iterations)
    relative = np.full((*block.shape, iterations), np.nan)
    if iterations > 1:
        shape = (block.shape[0] * block.shape[1], iterations - 1)
        found = convergence_of(parts, shape, tolerance, array_rounding(block.layer_dtype))
        relative[..., 1:] = found.reshaped(block.shape).relative_step
    return relative


def build(source: Source, plan: float, found: dict[str, np.ndarray]) -> xr.Dataset:
    """Name the curves and numbers."""
    run, tolerance = source.run, plan
    curve, number = ("restart", "token", "iteration"), ("restart", "token")
    data = {
        "relative_step": labelled(
            curve, found["relative_step"], "step over the norm of the state", threshold=tolerance
        ),
        "distance_to_limit": labelled(
            curve,
            found["distance_to_limit"],
            "distance to the mean of the last quarter of the states over its norm",
        ),
        "state_norm": labelled(curve, found["state_norm"], "norm of the loop state", "state units"),
        "radial_share": labelled(
            curve, found["radial_share"], "share of the squared step along the state before it"
        ),
        "settling_iteration": labelled(
            number,
            found["settling_iteration"],
            "first iteration from which on all relative steps are below the tolerance",
            "iteration",
            tolerance=tolerance,
        ),
        "rate": labelled(
            number,
            found["rate"],
            "factor by which steps shrink in an iteration, fitted above three times the floor",
        ),
        "floor": labelled(
            number, found["floor"], "median relative step over the last quarter of the iterations"
        ),
    }
    dims = ["restart", "token", "iteration"]
    if has_layers(run):
        data["layer_relative_step"] = labelled(
            ("restart", "token", "layer", "iteration"),
            found["layer_relative_step"],
            "step of the residual stream after a layer, over its norm",
            threshold=tolerance,
        )
        data["layer_settling_iteration"] = labelled(
            ("restart", "token", "layer"),
            found["layer_settling_iteration"],
            "first iteration from which on all steps after a layer are below the tolerance",
            "iteration",
            tolerance=tolerance,
        )
        dims.append("layer")
    return xr.Dataset(data, coords=coordinates(run, *dims))


def summarize(dataset: xr.Dataset, run: StoredRun) -> Summary:
    """Shares and medians over all trajectories (restart x token).

    ``settled_share``: with a settling iteration. ``median_settling_iteration``: trajectories that
    never settle count as later than all others; NaN when half or more never do. ``median_rate``,
    ``median_floor``: over those where it is known. ``settling_by_<column>``: median per level of
    each numeric column of the tokens; None where half or more never settle.
    """
    settling = dataset["settling_iteration"].values
    median = _median_with_never(settling)
    summary: Summary = {
        "settled_share": float(np.isfinite(settling).mean()),
        "median_settling_iteration": float("nan") if median is None else median,
        "never_settled": int(np.isnan(settling).sum()),
        "median_rate": over_known(np.median, dataset["rate"].values),
        "median_floor": over_known(np.median, dataset["floor"].values),
        "tolerance": float(dataset["settling_iteration"].attrs["tolerance"]),
    }
    for name, of_all in token_columns(run).items():
        column = of_all[dataset["token"].values]
        levels = np.unique(column[np.isfinite(column)])
        summary[f"settling_by_{name}"] = {
            level_name(level): _median_with_never(settling[:, column == level]) for level in levels
        }
    return summary


def _median_with_never(settling: np.ndarray) -> float | None:
    """Median where NaN, never, is later than all others; None where the median is never."""
    late = np.sort(np.where(np.isnan(settling), np.inf, settling), axis=None)
    middle = (late.size - 1) // 2, late.size // 2
    return finite_or_none(0.5 * (late[middle[0]] + late[middle[1]]))


ANALYZER = Analyzer(
    name="convergence",
    version=3,
    title="How tokens settle",
    needs=needs_iterations,
    plan=plan,
    wants=wants,
    measure=measure,
    build=build,
    summarize=summarize,
    parameters=("tolerance",),
)
