"""Counts and medians in groups of tokens, as figures and reports show them.

Groups are those of `looplens.analysis.grouping`. The median here treats "never" as infinitely
late; figures and reports share it so that they agree.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from looplens.analysis.grouping import Groups, columns, default_column, group_tokens
from looplens.plots import _theme

__all__ = [
    "Groups",
    "columns",
    "count_regimes",
    "default_column",
    "group_tokens",
    "median_by_group",
]


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
