"""What the results of pushes have in common: coordinates, words and attributes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from looplens.dynamics.maps.recorded import Recorded

Progress: TypeAlias = "Callable[[int, int], None] | None"


def variable(dims: Sequence[str], values: Any, long_name: str, units: str = "1") -> xr.Variable:
    """Return an array with its words; strings become objects, as the store keeps them."""
    array = np.asarray(values)
    array = array.astype(object) if array.dtype.kind == "U" else array
    return xr.Variable(tuple(dims), array, {"long_name": long_name, "units": units})


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
    """Return a result over tokens.

    Parameters
    ----------
    found : Recorded
        Of what.
    positions : sequence of int
        The tokens, as positions of the prompt.
    data, coords : mapping
        Variables and further coordinates.
    **attrs
        Method and parameters, in values that JSON can hold.
    """
    step = found.step
    where = {
        "token": found.numbers(positions),
        "prompt": ("token", np.full(len(positions), found.prompt)),
        "position": ("token", np.asarray(positions)),
    }
    said = {
        "model": step.looped.model_name,
        "restart": found.restart,
        "dtype": str(step.looped.dtype).removeprefix("torch."),
        "attention": "as in the forward",
        "causal": found.causal,
        **attrs,
    }
    return xr.Dataset(
        dict(data), coords={**where, **coords}, attrs=json.loads(json.dumps(said, default=str))
    )
