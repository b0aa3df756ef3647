"""Arrays of tokens, stacked with their names and units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from looplens.dynamics.maps.labelled import variable
from looplens.dynamics.planes.plane import Floats

Names = Mapping[str, tuple[tuple[str, ...], str, str]]


def filled(values: Floats, shape: tuple[int, ...]) -> Floats:
    """Return an array of a given shape that begins with some values, NaN after them."""
    found = np.full(shape, np.nan)
    found[: len(values)] = values
    return found


def stacked(parts: Sequence[Mapping[str, Any]], names: Names) -> dict[str, xr.Variable]:
    """Stack the arrays of tokens, with their meaning and units."""
    return {
        name: variable(
            ("token", *dims), np.stack([np.asarray(part[name]) for part in parts]), meaning, units
        )
        for name, (dims, meaning, units) in names.items()
    }
