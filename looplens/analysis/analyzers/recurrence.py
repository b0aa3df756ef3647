"""How every token comes back to where it was, in the last half of the record."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from looplens.analysis.analyzers._analyzer import (
    Analyzer,
    Source,
    Summary,
    coordinates,
    labelled,
    needs_iterations,
    over_known,
    rounding_dtype,
)
from looplens.analysis.measures.recurrence import (
    LEAST_LAG,
    NUMBERS,
    check_radius,
    recurrence_of,
    recurrence_points,
)
from looplens.analysis.regimes.thresholds import rounding_step
from looplens.analysis.running.engine import Block, Wants

if TYPE_CHECKING:
    from looplens.store import StoredRun

CLOSED = 0.1  # chord over arc under which the path counts as closed, from the source
_SHORTEST = 16
_LONG_NAMES = {
    "recurrence_rate": ("share of pairs of states that are nearly the same", "1"),
    "determinism": ("share of these on diagonal lines", "1"),
    "closest_return": ("least chord over arc", "1"),
    "extent": ("largest distance between two states over the norm", "1"),
    "frequency": ("dominant frequency", "turns per iteration"),
    "frequency_share": ("share of the variance at the dominant frequency", "1"),
}


def needs(run: StoredRun) -> str | None:
    """Ask for at least 16 iterations, all of them."""
    if run.iterations < _SHORTEST:
        return (
            f"Returns need at least {_SHORTEST} iterations, and this run has {run.iterations}. "
            "Record more iterations."
        )
    return needs_iterations(run)


def plan(
    source: Source, *, recurrence_radius: float = 0.1, source_dtype: str | None = None
) -> tuple[float, str]:
    """Check the radius and the dtype."""
    check_radius(recurrence_radius)
    dtype = rounding_dtype(source.run, source_dtype)
    return float(recurrence_radius), dtype


def wants(run: StoredRun, plan: tuple[float, str]) -> Wants:
    """Ask for the window at the end of the loop states."""
    return Wants(window=recurrence_points(run.iterations))


def measure(block: Block, plan: tuple[float, str]) -> dict[str, np.ndarray]:
    """Measure returns."""
    restarts, tokens = block.shape
    points = recurrence_points(block.run.iterations)
    found = recurrence_of(
        block.state, restarts * tokens, points, plan[0], rounding_step(plan[1])
    ).reshaped(block.shape)
    return {name: getattr(found, name) for name in NUMBERS}


def build(source: Source, plan: tuple[float, str], whole: dict[str, np.ndarray]) -> xr.Dataset:
    """Name the numbers."""
    window = recurrence_points(source.run.iterations)
    extra = {"recurrence_rate": {"radius": plan[0], "least_lag": LEAST_LAG}}
    extra["closest_return"] = {"threshold": CLOSED, "least_lag": LEAST_LAG}
    data = {}
    for name in NUMBERS:
        long_name, units = _LONG_NAMES[name]
        data[name] = labelled(
            ("restart", "token"),
            whole[name],
            long_name,
            units,
            window=window,
            source_dtype=plan[1],
            **extra.get(name, {}),
        )
    return xr.Dataset(data, coords=coordinates(source.run, "restart", "token"))


def summarize(dataset: xr.Dataset, run: StoredRun) -> Summary:
    """Medians over the trajectories that still move in the window.

    ``moving_share``: of all trajectories, those that move by more than rounding; ``closed_share``:
    of all, those whose closest return is under its threshold.
    """
    closest = dataset["closest_return"]
    summary: Summary = {
        "moving_share": float(np.isfinite(closest.values).mean()),
        "closed_share": float((closest.values < closest.attrs["threshold"]).mean()),
    }
    for name in NUMBERS:
        summary[f"median_{name}"] = over_known(np.median, dataset[name].values)
    return summary


ANALYZER = Analyzer(
    name="recurrence",
    version=1,
    title="Recurrence",
    needs=needs,
    plan=plan,
    wants=wants,
    measure=measure,
    build=build,
    summarize=summarize,
    parameters=("recurrence_radius", "source_dtype"),
)
