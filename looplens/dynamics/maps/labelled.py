"""Results of the lab as labelled datasets: words, units, tokens, and where numbers come from.

Every experiment returns a Dataset over ``token``, which the command stores and joins over prompts.
What all of them say about their tokens and their computation is said here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
import xarray as xr

from looplens.dynamics.maps.derivatives import FUSED
from looplens.dynamics.maps.recorded import Recorded
from looplens.dynamics.maps.state_map import StateMap

Progress: TypeAlias = "Callable[[int, int], None] | None"
STATE = "state units"  # of lengths in the space of states


def variable(
    dims: str | Sequence[str], values: Any, long_name: str, units: str = "1"
) -> xr.Variable:
    """Return an array with its words and units, 1 where there are none.

    Texts become objects, as the store keeps them.
    """
    array = np.asarray(values)
    array = array.astype(object) if array.dtype.kind == "U" else array
    dims = (dims,) if isinstance(dims, str) else tuple(dims)
    return xr.Variable(dims, array, {"long_name": long_name, "units": units or "1"})


def labelled(
    found: Recorded,
    positions: Sequence[int],
    data: Mapping[str, xr.Variable],
    *,
    method: str,
    maps: Iterable[StateMap] = (),
    coords: Mapping[str, Any] | None = None,
    notes: Iterable[str] = (),
    **attrs: Any,
) -> xr.Dataset:
    """Return a result over tokens.

    Parameters
    ----------
    found : Recorded
        The trajectory that was asked about.
    positions : sequence of int
        The tokens, as positions of the prompt.
    data : mapping
        Variables, see :func:`variable`.
    method : str
        How the numbers came about.
    maps : iterable of StateMap
        Maps that were differentiated: their attention kernel, way of differentiation and notes.
    coords : mapping, optional
        Coordinates besides ``token``, ``prompt`` and ``position``.
    notes : iterable of str
        What a reader should know.
    **attrs
        Parameters.

    Returns
    -------
    Dataset
        Its attributes hold nothing but what JSON can.
    """
    maps = list(maps)
    where = {
        "token": variable("token", found.numbers(positions), "token of the run"),
        "prompt": variable("token", np.full(len(positions), found.prompt), "prompt"),
        "position": variable("token", np.array(positions, np.int64), "position in the prompt"),
    }
    said = {
        "method": method,
        "model": found.step.looped.model_name,
        "restart": found.restart,
        "causal": found.causal,
        "dtype": str(found.states.dtype).removeprefix("torch."),
        "attention": _joined(map_.attention for map_ in maps) or FUSED,
        **_derivative(maps),
        **attrs,
        "notes": list(dict.fromkeys([*notes, *(note for map_ in maps for note in map_.notes)])),
    }
    return xr.Dataset(
        dict(data),
        coords={**where, **(coords or {})},
        attrs={name: plain(value) for name, value in said.items()},
    )


def _joined(words: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(word for word in words if word))


def _derivative(maps: Sequence[StateMap]) -> dict[str, str]:
    ways = _joined(map_.ways.derivative for map_ in maps)
    return {"derivative": ways} if ways else {}


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray | torch.Tensor):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | range):
        return [plain(one) for one in value]
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)
