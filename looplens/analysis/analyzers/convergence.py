"""Convergence of every token, at the loop boundary and at every layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from looplens.analysis._convergence import convergence, settling_iteration
from looplens.analysis.analyzers._analyzer import (
    Analyzer,
    Summary,
    blocks,
    coordinates,
    finite_or_none,
    has_layers,
    labelled,
    level_name,
    needs_states,
    over_known,
    stack,
    token_columns,
)

if TYPE_CHECKING:
    from looplens.store import StoredRun


def compute(run: StoredRun, *, tolerance: float = 1e-2) -> xr.Dataset:
    """Measure relative steps, distances to the limit, norms, rates and settling iterations."""
    parts = [_boundary(run, block, tolerance) for block in blocks(run)]
    found = stack(parts, axis=1)
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
        layers = stack([_layers(run, block, tolerance) for block in blocks(run)], axis=1)
        data["layer_relative_step"] = labelled(
            ("restart", "token", "layer", "iteration"),
            layers["relative_step"],
            "step of the residual stream after a layer, over its norm",
            threshold=tolerance,
        )
        data["layer_settling_iteration"] = labelled(
            ("restart", "token", "layer"),
            layers["settling_iteration"],
            "first iteration from which on all steps after a layer are below the tolerance",
            "iteration",
            tolerance=tolerance,
        )
        dims.append("layer")
    return xr.Dataset(data, coords=coordinates(run, *dims))


def _boundary(run: StoredRun, block: slice, tolerance: float) -> dict[str, np.ndarray]:
    found = convergence(run.state(tokens=block).values, tolerance=tolerance)
    curves = ("relative_step", "distance_to_limit", "state_norm", "radial_share")
    # Curves are for figures and thresholds: half the size is precise enough.
    kept = {name: getattr(found, name).astype(np.float32) for name in curves}
    return kept | {name: getattr(found, name) for name in ("settling_iteration", "rate", "floor")}


def _layers(run: StoredRun, block: slice, tolerance: float) -> dict[str, np.ndarray]:
    states = run.site("resid_post", tokens=block).values  # restart token layer iteration d_model
    relative = np.full(states.shape[:-1], np.nan)  # nothing comes before iteration 1
    if states.shape[-2] > 1:
        relative[..., 1:] = convergence(states, tolerance=tolerance).relative_step
    settled = settling_iteration(relative, tolerance)
    finite = np.isfinite(states).all((-2, -1))
    return {
        "relative_step": relative.astype(np.float32),
        "settling_iteration": np.where(finite, settled, np.nan),
    }


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
    for name, column in token_columns(run).items():
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
    version=1,
    title="How tokens settle",
    needs=needs_states,
    compute=compute,
    summarize=summarize,
    parameters=("tolerance",),
)
