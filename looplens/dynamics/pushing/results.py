"""What the results of pushes have in common: coordinates, words and attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from looplens.dynamics.maps.labelled import Progress, labelled, variable
from looplens.dynamics.maps.recorded import Recorded

__all__ = ["Progress", "dataset", "relative", "variable"]

def relative(
    gap: Float[Tensor, "*rows d_model"], base: Float[Tensor, "*rows d_model"]
) -> Float[Tensor, "*rows"]:
    """Return |gap| / |base|, in double precision; nothing over nothing is 0."""
    size = base.double().norm(dim=-1).clamp(min=torch.finfo(torch.float64).tiny)
    return gap.double().norm(dim=-1) / size


def dataset(
    found: Recorded,
    positions: Sequence[int],
    data: Mapping[str, xr.Variable],
    coords: Mapping[str, Any],
    **attrs: Any,
) -> xr.Dataset:
    """Return a result over tokens: :func:`labelled` with coordinates by position."""
    return labelled(found, positions, data, coords=coords, **attrs)
