"""What a labelled analysis is, and the few steps that several of them share.

Knows how a run is read block by block; knows nothing of what is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

if TYPE_CHECKING:
    from looplens.store import StoredRun

# What a summary may hold: a number, a word, or a small table from a number in words to a number.
Scalar = float | int | str | None
Summary = dict[str, Scalar | dict[str, Scalar]]

# Columns of the token table that the store writes itself; all others came with the prompts.
_OWN_COLUMNS = frozenset({"prompt", "position", "token_id", "text", "target"})
_MOST_LEVELS = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class Analyzer:
    """One labelled analysis.

    Attributes
    ----------
    name : str
        What it is called in the run, in ``ANALYZERS`` and on the command line.
    version : int
        Raised when the same run would give other numbers.
    title : str
        A few words for headings.
    needs : callable
        ``needs(run)``: None when the run holds what is needed, else what is missing and what to do.
    compute : callable
        ``compute(run, **parameters)``: the Dataset.
    summarize : callable
        ``summarize(dataset, run)``: a few numbers.
    parameters : tuple of str
        Names of the parameters that `compute` takes.
    """

    name: str
    version: int
    title: str
    needs: Callable[[StoredRun], str | None]
    compute: Callable[..., xr.Dataset]
    summarize: Callable[[xr.Dataset, StoredRun], Summary]
    parameters: tuple[str, ...] = ()


def needs_states(run: StoredRun) -> str | None:
    """Loop states are in every recording that finished."""
    if not run.complete:
        return (
            "The recording did not finish, so some states are missing. Record again with "
            "overwrite=True."
        )
    return None


def has_layers(run: StoredRun) -> bool:
    """Whether the residual stream after each core layer was recorded."""
    return "resid_post" in run.site_names


def blocks(run: StoredRun) -> Iterator[slice]:
    """Slices of tokens small enough to be held a few times over in float64."""
    return run.blocks(2**25)


def labelled(
    dims: tuple[str, ...], values: Any, long_name: str, units: str = "1", **attributes: Any
) -> xr.Variable:
    """Make a variable that says what it is, in what unit, and against which threshold."""
    return xr.Variable(dims, values, {"long_name": long_name, "units": units, **attributes})


def coordinates(run: StoredRun, *dims: str, first_iteration: int = 1) -> dict[str, np.ndarray]:
    """Numbers of restarts, tokens, layers and iterations (from `first_iteration`)."""
    known = {
        "restart": np.arange(run.restarts),
        "token": np.arange(run.n_tokens),
        "layer": np.arange(run.n_layers),
        "iteration": np.arange(first_iteration, run.iterations + 1),
    }
    return {dim: known[dim] for dim in dims}


def token_columns(run: StoredRun) -> dict[str, np.ndarray]:
    """Numeric columns that came with the tokens and have few enough levels to group by."""
    found: dict[str, np.ndarray] = {}
    for name, column in run.tokens.data_vars.items():
        values = column.values
        if name in _OWN_COLUMNS or values.dtype.kind not in "fiu":
            continue
        numbers = values.astype(np.float64)
        levels = np.unique(numbers[np.isfinite(numbers)])
        if 0 < len(levels) <= _MOST_LEVELS:
            found[str(name)] = numbers
    return found


def level_name(level: float) -> str:
    """Write a level of a column: 3 for 3.0, 0.25 for 0.25."""
    return f"{level:g}"


def over_known(statistic: Callable[[np.ndarray], Any], values: np.ndarray) -> float:
    """Return a statistic, such as ``np.median``, of the finite values; NaN without any."""
    known = values[np.isfinite(values)]
    return float(statistic(known)) if known.size else float("nan")


def pairs_that_agree(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Share of pairs of restarts with equal values, of those pairs where both are known.

    Parameters
    ----------
    values, known : ndarray, shape (restart, ...)
        What is compared, and whether it means anything.

    Returns
    -------
    ndarray, shape (...)
        NaN where no pair is known.
    """
    equal, count = np.zeros(values.shape[1:]), np.zeros(values.shape[1:])
    for one, other in combinations(range(len(values)), 2):
        both = known[one] & known[other]
        equal += both & (values[one] == values[other])
        count += both
    return np.divide(equal, count, out=np.full(count.shape, np.nan), where=count > 0)


def finite_or_none(value: float) -> float | None:
    """Return a number, or None where it is infinite or not known."""
    return float(value) if np.isfinite(value) else None


def stack(parts: Sequence[Mapping[str, np.ndarray]], axis: int) -> dict[str, np.ndarray]:
    """Join what the blocks gave along the token axis."""
    return {name: np.concatenate([part[name] for part in parts], axis) for name in parts[0]}
