"""Any analysis summed up in groups of tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from looplens.analysis.analyzers._analyzer import Source, labelled, readouts
from looplens.analysis.grouping import Groups, group_tokens
from looplens.analysis.measures.readout import carried
from looplens.analysis.regimes.classifying import REGIMES
from looplens.analysis.running.coverage import Coverage, covered_tokens
from looplens.errors import AnalysisError, InputError, near_matches

if TYPE_CHECKING:
    from looplens.store import StoredRun

STATISTICS = ("known", "mean", "q25", "median", "q75")
"""What is said of a number in a group: the share that is known, then of the known ones."""

_MOST_WORDS = 24


def group_by(
    run: StoredRun, name: str, by: str | None = None, *, variables: tuple[str, ...] | None = None
) -> xr.Dataset:
    """Sum up an analysis in each group of tokens.

    Parameters
    ----------
    run : StoredRun
        The run.
    name : str
        Which analysis; computed in memory where it is not stored.
    by : str or None
        Column of the tokens or prompts; see `group_tokens`.
    variables : tuple of str, optional
        Variables of the analysis; by default all that have a token (or, where the column is of
        prompts, a prompt).

    Returns
    -------
    Dataset
        ``count`` (group): tokens that the analysis is of. Every variable of numbers is ``(group,
        statistic, ...)`` over all its tokens and restarts, `statistic` being `STATISTICS`: the
        share that is known, then mean, quartiles and median of the known ones. A variable of words
        with few levels, such as ``regime``, becomes ``regime_share`` (group, regime, ...).

    Raises
    ------
    InputError
        If there is no such analysis, column or variable.
    AnalysisError
        If the run does not hold the data for the analysis, or nothing in it is of tokens.
    """
    from looplens.analysis.suite import get

    groups, result = group_tokens(run, by), get(run, name)
    covered = covered_tokens(result, run)
    asked = list(map(str, result.data_vars)) if variables is None else list(variables)
    data: dict[str, xr.Variable] = {}
    coords: dict[str, Any] = {"group": list(groups.labels), "statistic": list(STATISTICS)}
    for variable in asked:
        if variable not in result.data_vars:
            raise InputError(
                f"{name} has no variable {variable!r}; it has {', '.join(map(str, result))}."
                f"{near_matches(variable, list(map(str, result)))}"
            )
        array = result[variable]
        number = _members(array, groups, covered)
        if number is None:
            continue
        if array.dtype.kind in "fiu":
            data[variable] = _statistics(array, number, len(groups.labels))
        elif array.dtype.kind in "OUb":
            levels = levels_of(array.values)
            if levels is not None:
                data[f"{variable}_share"] = _shares(array, number, len(groups.labels), levels)
                coords[variable] = list(levels)
        coords |= {str(d): array[d].values for d in array.dims[1:] if d in array.coords}
    if not data:
        raise AnalysisError(
            f"Nothing in {name!r} is of single tokens{' or prompts' * (groups.prompts is not None)}"
            f", so it cannot be grouped by {groups.by!r}. Choose another analysis."
        )
    inside = [(covered & (groups.number == group)).sum() for group in range(len(groups.labels))]
    data["count"] = labelled(("group",), np.array(inside), "tokens")
    used = {dim for variable in data.values() for dim in variable.dims}
    coords = {key: value for key, value in coords.items() if key in used}
    return xr.Dataset(data, coords=coords, attrs={"analysis": name, "by": groups.by})


def final_accuracy(run: StoredRun, groups: Groups) -> NDArray[np.float64] | None:
    """Return the share of targets that are the best token at the last iteration, by group.

    Parameters
    ----------
    run : StoredRun
        The run.
    groups : Groups
        Its tokens in groups.

    Returns
    -------
    ndarray, shape (group,), or None
        NaN for a group without targets; None where the run has no readout or no targets.
    """
    targets = run.tokens["target"].values >= 0
    if not run.has_readout or not targets.any():
        return None
    right, judged = np.zeros(len(groups.labels)), np.zeros(len(groups.labels))
    source = Source(run=run, coverage=Coverage(run))
    for tokens, part in readouts(source, ("topk_ids", "target_rank"), rank=0):
        final = carried(part["target_rank"], part["topk_ids"])[..., -1]
        number = np.where(targets[tokens], groups.number[tokens], -1)
        for group in np.unique(number[number >= 0]):
            ranks = final[:, number == group]
            right[group] += (ranks == 0).sum()
            judged[group] += ranks.size
    return np.divide(right, judged, out=np.full(right.shape, np.nan), where=judged > 0)


def single_values(found: xr.Dataset) -> dict[str, NDArray[np.float64]]:
    """Return what every token has one of, from a result of `group_by`.

    Parameters
    ----------
    found : Dataset
        A result of `group_by`.

    Returns
    -------
    dict
        Median of each number and share of each word (``regime.orbit``), shape (group,); what is
        known in no group is left out.
    """
    rows: dict[str, NDArray[np.float64]] = {}
    for name, values in found.data_vars.items():
        if values.dims == ("group", "statistic"):
            rows[str(name)] = values.sel(statistic="median").values
        elif values.ndim == 2 and str(name) == f"{values.dims[1]}_share":
            word = str(values.dims[1])
            rows |= {
                f"{word}.{level}": values.sel({word: level}).values for level in found[word].values
            }
    return {name: values for name, values in rows.items() if np.isfinite(values).any()}


def levels_of(values: NDArray[Any], most: int = _MOST_WORDS) -> tuple[str, ...] | None:
    """Return the distinct words of an array, regimes in their order; None where there are many."""
    found = sorted({str(value) for value in np.ravel(values)})
    if len(found) > most:
        return None
    return REGIMES if set(found) <= set(REGIMES) else tuple(found)


def _members(
    array: xr.DataArray, groups: Groups, covered: NDArray[np.bool_]
) -> tuple[str, NDArray[np.int_]] | None:
    """Return the axis to group along and the group of each place on it, -1 for none."""
    if "token" in array.dims:
        return "token", np.where(covered, groups.number, -1)
    if "prompt" in array.dims and groups.prompts is not None:
        places = array["prompt"].values if "prompt" in array.coords else slice(None)
        return "prompt", groups.prompts[places]
    return None


def _apart(array: xr.DataArray, axis: str) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return values as (restart, place, ...) with the names of the other axes."""
    rest = tuple(str(dim) for dim in array.dims if dim not in ("restart", axis))
    if "restart" not in array.dims:
        array = array.expand_dims("restart")
    return array.transpose("restart", axis, *rest).values, rest


def _statistics(
    array: xr.DataArray, members: tuple[str, NDArray[np.int_]], count: int
) -> xr.Variable:
    axis, number = members
    values, rest = _apart(array, axis)
    found = np.full((count, len(STATISTICS), *values.shape[2:]), np.nan)
    for group in range(count):
        chosen = values[:, number == group].reshape(-1, *values.shape[2:]).astype(np.float64)
        if len(chosen):
            found[group] = describe(chosen)
    about = {key: array.attrs[key] for key in ("long_name", "units") if key in array.attrs}
    return xr.Variable(("group", "statistic", *rest), found, about)


def describe(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `STATISTICS` of the finite values along the first axis; shape (statistic, ...)."""
    ordered = np.sort(np.where(np.isfinite(values), values, np.inf), axis=0)
    known = np.isfinite(ordered).sum(0)
    total = np.where(np.isfinite(ordered), ordered, 0.0).sum(0)
    missing = np.full(known.shape, np.nan)
    mean = np.divide(total, known, out=missing.copy(), where=known > 0)
    found = [known / len(values), mean]
    for share in (0.25, 0.5, 0.75):
        place = share * np.maximum(known - 1, 0)
        low = np.floor(place).astype(int)
        high = np.minimum(low + 1, np.maximum(known - 1, 0))
        below = np.take_along_axis(ordered, low[None], 0)[0]
        above = np.take_along_axis(ordered, high[None], 0)[0]
        with np.errstate(invalid="ignore"):  # inf - inf where nothing is known
            found.append(np.where(known > 0, below + (place - low) * (above - below), np.nan))
    return np.stack(found)


def _shares(
    array: xr.DataArray,
    members: tuple[str, NDArray[np.int_]],
    count: int,
    levels: tuple[str, ...],
) -> xr.Variable:
    axis, number = members
    values, rest = _apart(array.astype(str), axis)
    found = np.full((count, len(levels), *values.shape[2:]), np.nan)
    for group in range(count):
        chosen = values[:, number == group]
        if chosen.size:
            found[group] = [(chosen == level).mean((0, 1)) for level in levels]
    long_name = f"share of trajectories: {array.attrs.get('long_name', array.name)}"
    return labelled(("group", str(array.name), *rest), found, long_name)
