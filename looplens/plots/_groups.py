"""Sort the tokens of a run into groups by a number that came with them, and count in the groups.

A group is a value of a metadata column (``difficulty``), or a range of it when it takes many. The
two summaries here count tokens and take a median that treats "never" as infinitely late;
figures and reports share them so that they agree.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from looplens.errors import InputError, near_matches
from looplens.plots import _labels, _theme

_MOST_GROUPS = 16
_RANGES = 8
_NOT_METADATA = {"prompt", "token_id", "text", "target"}


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
        One label a group, in rising order.
    centres : ndarray, shape (group,)
        Value of the group, or the middle of its range.
    """

    by: str
    number: np.ndarray
    values: np.ndarray
    labels: tuple[str, ...]
    centres: np.ndarray


def columns(run: Any) -> list[str]:
    """Return the columns to group tokens by: numbers that came with them, and position."""
    tokens = run.tokens
    named = [
        str(name)
        for name, column in tokens.data_vars.items()
        if name not in _NOT_METADATA
        and np.issubdtype(column.dtype, np.number)
        and np.isfinite(column.values).any()
    ]
    return sorted(named, key=lambda name: (name == "position", name != "difficulty", name))


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
        A numeric column of the token table; None for ``difficulty``, or ``position`` without it.

    Returns
    -------
    Groups
        One group a value, or eight ranges when there are more than sixteen values.

    Raises
    ------
    InputError
        If there is no such column.
    """
    available = columns(run)
    by = default_column(run) if by is None else by
    if by not in available:
        raise InputError(
            f"by must be one of {', '.join(map(repr, available))}, got {by!r}."
            f"{near_matches(str(by), available)}"
        )
    values = np.asarray(run.tokens[by].values, dtype=np.float64)
    defined = np.isfinite(values)
    distinct = np.unique(values[defined])
    number = np.full(values.shape, -1)
    if distinct.size <= _MOST_GROUPS:
        number[defined] = np.searchsorted(distinct, values[defined])
        labels = tuple(_labels.number(value) for value in distinct)
        return Groups(by=by, number=number, values=values, labels=labels, centres=distinct)
    edges = np.linspace(distinct[0], distinct[-1], _RANGES + 1)
    number[defined] = np.clip(np.searchsorted(edges, values[defined], "right") - 1, 0, _RANGES - 1)
    labels = tuple(
        f"{_labels.number(low)} to {_labels.number(high)}"
        for low, high in itertools.pairwise(edges)
    )
    centres = (edges[:-1] + edges[1:]) / 2
    return Groups(by=by, number=number, values=values, labels=labels, centres=centres)


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
    regime = regime.transpose(..., "token")
    is_regime = np.stack([regime.values == name for name in _theme.REGIMES], -1)
    per_token = is_regime.reshape(-1, regime.sizes["token"], len(_theme.REGIMES)).sum(0)
    if groups is None:
        return xr.DataArray(
            per_token.sum(0), dims=("regime",), coords={"regime": list(_theme.REGIMES)}
        )
    counts = np.stack(
        [per_token[groups.number == group].sum(0) for group in range(len(groups.labels))]
        or [np.zeros(len(_theme.REGIMES))]
    )[: len(groups.labels)]
    return xr.DataArray(
        counts,
        dims=("group", "regime"),
        coords={"group": list(groups.labels), "regime": list(_theme.REGIMES)},
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
