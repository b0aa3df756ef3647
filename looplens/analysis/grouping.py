"""Tokens sorted by a number or word that came with them, and any analysis summed up per group.

A group is a value of a metadata column (``difficulty``), or a range of a number that takes many.
The columns are those of the token table and of the prompt table, whose values hold for all tokens
of the prompt.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from looplens.analysis.analyzers._analyzer import Source, labelled, readouts
from looplens.analysis.regimes.classifying import REGIMES
from looplens.analysis.running.coverage import Coverage, covered_tokens
from looplens.errors import AnalysisError, InputError, near_matches

if TYPE_CHECKING:
    from looplens.store import StoredRun

STATISTICS = ("known", "mean", "q25", "median", "q75")
"""What is said of a number in a group: the share that is known, then of the known ones."""

OTHER = "other"
_MOST_GROUPS = 16
_RANGES = 8
_MOST_WORDS = 24
# Columns that the store writes itself, and that say nothing about a token by themselves.
_OF_TOKENS = {"prompt", "token_id", "text", "target"}
_OF_PROMPTS = {"first_token", "n_tokens", "text", "token_ids"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Groups:
    """Tokens in groups.

    Attributes
    ----------
    by : str
        Name of the column.
    number : ndarray of int, shape (token,)
        Group of each token, -1 where the column is undefined.
    values : ndarray, shape (token,)
        The column itself.
    labels : tuple of str
        One label a group; numbers in rising order, words with the most frequent first.
    centres : ndarray, shape (group,)
        Value of the group, or the middle of its range; 0, 1, ... for words.
    prompts : ndarray of int, shape (prompt,), or None
        Group of each prompt, where the column is of prompts.
    """

    by: str
    number: NDArray[np.int_]
    values: NDArray[Any]
    labels: tuple[str, ...]
    centres: NDArray[np.float64]
    prompts: NDArray[np.int_] | None = None


def columns(run: Any) -> list[str]:
    """Return numeric columns of the tokens to group by: difficulty first, position last."""
    named = [
        str(name)
        for name, column in run.tokens.data_vars.items()
        if name not in _OF_TOKENS
        and np.issubdtype(column.dtype, np.number)
        and np.isfinite(column.values).any()
    ]
    return sorted(named, key=lambda name: (name == "position", name != "difficulty", name))


def all_columns(run: StoredRun) -> list[str]:
    """Return every column to group by: of tokens, of prompts, then position and text of tokens."""
    of_tokens = [str(name) for name in run.tokens.data_vars if name not in _OF_TOKENS]
    of_prompts = [str(name) for name in run.prompts.data_vars if name not in _OF_PROMPTS]
    metadata = [name for name in dict.fromkeys([*of_tokens, *of_prompts]) if name != "position"]
    return [*sorted(metadata, key=lambda name: (name != "difficulty", name)), "position", "text"]


def metadata_columns(run: StoredRun) -> list[str]:
    """Return the columns that came with the prompts and have more than one value."""
    own = {"position", "text", "length", "seed"}
    return [
        name
        for name in all_columns(run)
        if name not in own and len(group_tokens(run, name).labels) > 1
    ]


def default_column(run: Any) -> str:
    """Return ``difficulty`` where the prompts carry it, ``position`` otherwise."""
    return "difficulty" if "difficulty" in columns(run) else "position"


def group_tokens(run: Any, by: str | None = None) -> Groups:
    """Sort the tokens of a run into groups.

    Parameters
    ----------
    run : looplens.Run
        The opened run.
    by : str or None
        A column of the token table or of the prompt table, numbers or words; None for
        ``difficulty``, or ``position`` without it. A column of the tokens hides one of the prompts.

    Returns
    -------
    Groups
        One group a value. Of a number with more than 16 values, eight ranges of equal width; of
        words the 15 most frequent and ``other``.

    Raises
    ------
    InputError
        If there is no such column, or nothing is known in it.
    """
    by = default_column(run) if by is None else by
    if by in run.tokens.data_vars:
        column, prompts = run.tokens[by].values, None
    else:
        if by not in run.prompts.data_vars:
            available = all_columns(run)
            raise InputError(
                f"by must be one of {', '.join(map(repr, available))}, got {by!r}."
                f"{near_matches(str(by), available)}"
            )
        column, prompts = run.prompts[by].values, run.tokens["prompt"].values
    numeric = np.issubdtype(column.dtype, np.number)
    values, number, labels, centres = _numbers(column) if numeric else _words(column)
    if not labels:
        raise InputError(f"The column {by!r} has no value for any token: choose another one.")
    return Groups(
        by=by,
        number=number if prompts is None else number[prompts],
        values=values if prompts is None else values[prompts],
        labels=labels,
        centres=centres,
        prompts=None if prompts is None else number,
    )


_Sorted = tuple[NDArray[Any], NDArray[np.int_], tuple[str, ...], NDArray[np.float64]]


def _numbers(column: NDArray[Any]) -> _Sorted:
    values = np.asarray(column, dtype=np.float64)
    defined = np.isfinite(values)
    distinct = np.unique(values[defined])
    number = np.full(values.shape, -1)
    if distinct.size <= _MOST_GROUPS:
        number[defined] = np.searchsorted(distinct, values[defined])
        short = tuple(f"{value:.3g}" for value in distinct)
        exact = tuple(repr(float(value)) for value in distinct)
        return values, number, short if len(set(short)) == len(short) else exact, distinct
    edges = np.linspace(distinct[0], distinct[-1], _RANGES + 1)
    number[defined] = np.clip(np.searchsorted(edges, values[defined], "right") - 1, 0, _RANGES - 1)
    labels = tuple(f"{low:.3g} to {high:.3g}" for low, high in itertools.pairwise(edges))
    return values, number, labels, (edges[:-1] + edges[1:]) / 2


def _words(column: NDArray[Any]) -> _Sorted:
    words = np.array(["" if value is None else str(value) for value in column], dtype=object)
    found, counts = np.unique(words[words != ""].astype(str), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    kept = [str(found[place]) for place in order]
    if len(kept) > _MOST_GROUPS:
        kept = kept[: _MOST_GROUPS - 1]
    place_of = {word: place for place, word in enumerate(kept)}
    number = np.array([-1 if word == "" else place_of.get(word, len(kept)) for word in words])
    labels = tuple(kept) if len(kept) == len(found) else (*kept, OTHER)
    return words, number.astype(np.int_), labels, np.arange(len(labels), dtype=np.float64)


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
    for tokens, part in readouts(source, ("target_rank",), iteration=-1):
        number = np.where(targets[tokens], groups.number[tokens], -1)
        for group in np.unique(number[number >= 0]):
            ranks = part["target_rank"][:, number == group]
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
