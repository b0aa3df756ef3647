"""Tokens sorted into groups by a number or word that came with them.

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

from looplens.analysis.regimes.classifying import REGIMES
from looplens.errors import InputError, near_matches

if TYPE_CHECKING:
    from looplens.store import StoredRun

OTHER = "other"
_MOST_GROUPS = 16
_RANGES = 8
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


def count_regimes(regime: xr.DataArray, groups: Groups | None = None) -> xr.DataArray:
    """Count trajectories per regime, in all or in each group of tokens.

    Parameters
    ----------
    regime : DataArray (restart, token)
        Regime of each trajectory.
    groups : Groups or None
        Groups of tokens; None counts all together.

    Returns
    -------
    DataArray (group, regime) or (regime)
        Number of trajectories (restarts counted apart).
    """
    names = list(REGIMES)
    values = regime.transpose(..., "token").values
    place = {name: number for number, name in enumerate(names)}
    words = values.ravel().tolist()
    found = np.fromiter((place.get(str(word), -1) for word in words), np.intp, len(words))
    if groups is None:
        counts = np.bincount(found[found >= 0], minlength=len(names))
        return xr.DataArray(counts, dims=("regime",), coords={"regime": names})
    group = np.broadcast_to(groups.number, values.shape).ravel()
    counted = (found >= 0) & (group >= 0)
    size = len(groups.labels) * len(names)
    counts = np.bincount((group * len(names) + found)[counted], minlength=size)
    return xr.DataArray(
        counts[:size].reshape(-1, len(names)),
        dims=("group", "regime"),
        coords={"group": list(groups.labels), "regime": names},
    )


def median_by_group(values: xr.DataArray, groups: Groups) -> xr.DataArray:
    """Return the median of a first-time in each group, with "never" counted as infinitely late.

    Parameters
    ----------
    values : DataArray (restart, token)
        First iteration at which something happens; NaN where it never does.
    groups : Groups
        Groups of tokens.

    Returns
    -------
    DataArray (group)
        Median; NaN where at least half of the group never gets there, or the group is empty.
    """
    flat = values.transpose(..., "token").values.reshape(-1, values.sizes["token"])
    late = np.where(np.isfinite(flat), flat, np.inf)
    medians = []
    for group in range(len(groups.labels)):
        members = late[:, groups.number == group]
        middle = float(np.median(members)) if members.size else np.nan
        medians.append(middle if np.isfinite(middle) else np.nan)
    return xr.DataArray(medians, dims=("group",), coords={"group": list(groups.labels)})
