"""One result out of those of several prompts, or of several calls.

Prompts have different lengths and tokens different numbers of points, so what is along another axis
than the token is filled up: NaN, an empty text, -1, False.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from looplens.errors import AnalysisError

_FILL: dict[str, Any] = {"f": np.nan, "c": np.nan, "b": False, "i": -1, "u": 0, "O": "", "U": ""}


def join(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """Join results along ``token``, in the order of the tokens; a token of two is of the last.

    Parameters
    ----------
    parts : sequence of Dataset
        Results of one experiment, each with the coordinate ``token``.

    Returns
    -------
    Dataset
        With every token once. Attributes that differ become the list of the values that they have.

    Raises
    ------
    AnalysisError
        If a variable without a token axis differs: they were not made in the same way.
    """
    parts = _without_repeated(parts)
    if len(parts) == 1:
        return parts[0].sortby("token")
    parts = [part.drop_encoding() for part in parts]
    for name in {str(name) for part in parts for name in part.variables}:
        if len({name in part.variables for part in parts}) > 1:
            raise AnalysisError(f"{name!r} is in some of the results that are to be joined only")
    for dim in sorted({str(dim) for part in parts for dim in part.dims} - {"token"}):
        parts = _aligned(parts, dim)
    found = xr.concat(
        parts, dim="token", data_vars="minimal", coords="minimal", compat="override", join="exact"
    )
    for fixed, variable in found.variables.items():
        if "token" in variable.dims:
            continue
        if not all(part[fixed].variable.equals(parts[0][fixed].variable) for part in parts):
            raise AnalysisError(
                f"{fixed!r} has no token axis and differs between the results that are to be joined"
            )
    found.attrs = _attributes([part.attrs for part in parts])
    return found.sortby("token")


def _without_repeated(parts: Sequence[xr.Dataset]) -> list[xr.Dataset]:
    """Leave every token to the last result that has it."""
    kept, seen = [], np.array([], dtype=np.int64)
    for part in reversed(parts):
        mine = ~np.isin(part["token"].values, seen)
        seen = np.concatenate([seen, part["token"].values])
        if mine.any():
            kept.append(part.isel(token=mine))
    return kept[::-1]


def _aligned(parts: list[xr.Dataset], dim: str) -> list[xr.Dataset]:
    """Give an axis the same labels, or the same length, in all results."""
    if any(dim in part.indexes for part in parts):
        labels = list(dict.fromkeys(x for part in parts for x in part[dim].values.tolist()))
        if all(isinstance(label, int | float) for label in labels):
            labels.sort()
        return [
            part
            if part[dim].values.tolist() == labels
            else part.reindex({dim: labels}, fill_value=_fills(part, dim))
            for part in parts
        ]
    longest = max(part.sizes[dim] for part in parts)
    return [
        part
        if part.sizes[dim] == longest
        else part.pad({dim: (0, longest - part.sizes[dim])}, constant_values=_fills(part, dim))
        for part in parts
    ]


def _fills(part: xr.Dataset, dim: str) -> dict[Any, Any]:
    return {
        name: _FILL[variable.dtype.kind]
        for name, variable in part.variables.items()
        if dim in variable.dims and name != dim
    }


def _attributes(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join attributes: what is the same stays, lists are united, other values become a list."""
    joined: dict[str, Any] = {}
    for key in dict.fromkeys(key for attributes in found for key in attributes):
        values = [attributes[key] for attributes in found if key in attributes]
        if all(_same(value, values[0]) for value in values):
            joined[key] = values[0]
            continue
        flat = [x for value in values for x in (value if isinstance(value, list) else [value])]
        joined[key] = [x for place, x in enumerate(flat) if x not in flat[:place]]
    return joined


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) or (one != one and other != other)
