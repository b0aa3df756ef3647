"""Where the pace of every token changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from looplens.analysis.algebra.inputs import real_number
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
from looplens.analysis.measures.change_points import LEAST_PIECE, change_points
from looplens.analysis.measures.steps import signal_end
from looplens.analysis.regimes.thresholds import rounding_step
from looplens.analysis.running.engine import Block, Wants
from looplens.errors import InputError

if TYPE_CHECKING:
    from looplens.store import StoredRun

_SHORTEST = 2 * LEAST_PIECE + 1


def needs(run: StoredRun) -> str | None:
    """Ask for enough iterations for two pieces."""
    if run.iterations < _SHORTEST:
        return (
            f"A change of pace needs at least {_SHORTEST} iterations, and this run has "
            f"{run.iterations}. Record more iterations."
        )
    return needs_iterations(run)


def plan(
    source: Source, *, change_penalty: float = 3.0, source_dtype: str | None = None
) -> tuple[float, str]:
    """Check the penalty and the dtype."""
    if real_number(change_penalty, "change_penalty") < 0:
        raise InputError(f"change_penalty must not be negative; got {change_penalty}.")
    dtype = rounding_dtype(source.run, source_dtype)
    return float(change_penalty), dtype


def wants(run: StoredRun, plan: tuple[float, str]) -> Wants:
    """Ask for loop states."""
    return Wants()


def measure(block: Block, plan: tuple[float, str]) -> dict[str, np.ndarray]:
    """Cut the curves of step norms."""
    restarts, tokens = block.shape
    count = restarts * tokens
    size = np.full((count, block.run.iterations), np.nan)
    end = np.zeros(count)
    for part in block.state:
        size[part.rows] = np.sqrt(part.step2)
        norm = np.sqrt(part.norm2[:, -1])
        end[part.rows] = signal_end(size[part.rows], norm, rounding_step(plan[1]))
    found = change_points(size, signal_end=end, penalty=plan[0]).reshaped(block.shape)
    return {
        "n_changes": found.n_changes,
        "change_iteration": found.change_iteration,
        "piece_rate": found.piece_rate,
    }


def build(source: Source, plan: tuple[float, str], whole: dict[str, np.ndarray]) -> xr.Dataset:
    """Name the numbers."""
    pair = ("restart", "token")
    known = {"penalty": plan[0], "least_piece": LEAST_PIECE, "source_dtype": plan[1]}
    data = {
        "n_changes": labelled(pair, whole["n_changes"], "changes of pace", "1", **known),
        "change_iteration": labelled(
            (*pair, "change"),
            whole["change_iteration"],
            "first iteration at another pace",
            "iteration",
            **known,
        ),
        "piece_rate": labelled(
            (*pair, "piece"),
            whole["piece_rate"],
            "factor by which steps shrink in an iteration, of each piece",
            "1",
            **known,
        ),
    }
    axes = {name: np.arange(data[key].shape[-1]) for name, key in _AXES.items()}
    return xr.Dataset(data, coords={**coordinates(source.run, *pair), **axes})


_AXES = {"change": "change_iteration", "piece": "piece_rate"}


def summarize(dataset: xr.Dataset, run: StoredRun) -> Summary:
    """Over all trajectories (restart x token) with a signal that is long enough.

    ``changing_share``: with at least one change; ``mean_changes``: how many they have;
    ``median_first_change``: the first iteration at another pace, over those that have one.
    """
    changes = dataset["n_changes"].values
    known = np.isfinite(changes)
    return {
        "changing_share": over_known(np.mean, np.where(known, changes > 0, np.nan)),
        "mean_changes": over_known(np.mean, changes),
        "median_first_change": over_known(np.median, dataset["change_iteration"].values[..., 0]),
    }


ANALYZER = Analyzer(
    name="change_points",
    version=1,
    title="Changes of pace",
    needs=needs,
    plan=plan,
    wants=wants,
    measure=measure,
    build=build,
    summarize=summarize,
    parameters=("change_penalty", "source_dtype"),
)
