"""The piece of an analysis that one view shows: some tokens, a restart, a layer, a head.

A piece carries the texts of its tokens, and can be turned into what JSON holds.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from looplens.errors import AnalysisError, InputError

if TYPE_CHECKING:
    from looplens.store import StoredRun


def select(
    run: StoredRun,
    name: str,
    *,
    prompt: int | None = None,
    tokens: int | Iterable[int] | None = None,
    restart: int | None = None,
    layer: int | None = None,
    head: int | None = None,
    iteration: int | None = None,
) -> xr.Dataset:
    """Return a piece of an analysis, with the texts of its tokens.

    Parameters
    ----------
    run : StoredRun
        The run.
    name : str
        Which analysis; computed in memory where it is not stored.
    prompt : int, optional
        Its tokens, and its place in variables that are of prompts.
    tokens : int or iterable of int, optional
        Global token numbers; an int leaves no token axis. Those of `prompt` by default, else all.
    restart, layer, head, iteration : int, optional
        Numbers of the run; the axis goes, in the variables that have it. None keeps all.

    Returns
    -------
    Dataset
        Coordinates ``text``, ``position`` and ``prompt_of_token`` along the tokens. The prompt axis
        has `prompt`, or the prompts of `tokens`.

    Raises
    ------
    InputError
        If something of the selection is not in the run.
    AnalysisError
        If the run does not hold the data for the analysis, or the analysis is not of that prompt.
    """
    from looplens.analysis.suite import get

    result = get(run, name)
    chosen = _tokens(run, prompt, tokens)
    table = run.tokens
    if "token" in result.dims:
        # Index first: of a large run only what is chosen is read.
        result = result.isel(token=chosen)
        for new, old in (("text", "text"), ("position", "position"), ("prompt_of_token", "prompt")):
            values = table[old].values[chosen]
            result = result.assign_coords({new: (("token",) * np.ndim(values), values)})
    if "prompt" in result.dims and (prompt is not None or tokens is not None):
        wanted = np.unique(table["prompt"].values[chosen]) if prompt is None else prompt
        result = _at(result, "prompt", wanted, run.n_prompts)
    sizes = {"restart": run.restarts, "layer": run.n_layers, "head": run.attrs.get("n_heads") or 0}
    for axis, value in (("restart", restart), ("layer", layer), ("head", head)):
        if value is not None:
            result = _at(result, axis, _index(axis, value, sizes[axis]), sizes[axis])
    if iteration is not None:
        result = _at(result, "iteration", iteration, run.iterations + 1)
    return result


def _tokens(run: StoredRun, prompt: int | None, tokens: int | Iterable[int] | None) -> Any:
    """Return places on the token axis: a number, a list or a slice."""
    if tokens is None:
        return slice(None) if prompt is None else run.token_range(prompt)
    if not isinstance(tokens, Iterable):
        return _index("token", tokens, run.n_tokens)
    return [_index("token", token, run.n_tokens) for token in tokens]


def _index(name: str, value: Any, size: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise InputError(f"{name} must be a whole number, got {value!r}.") from None
    if not 0 <= number < size:
        held = f"0 to {size - 1}" if size else "none"
        raise InputError(f"{name} {number} is not in this run, which has {held}.")
    return number


def _at(result: xr.Dataset, axis: str, wanted: Any, size: int) -> xr.Dataset:
    """Select by number along an axis, where there is one."""
    if axis not in result.dims:
        return result
    if axis not in result.coords:
        return result.isel({axis: wanted})
    there = set(result[axis].values.tolist())
    missing = [number for number in np.ravel(wanted).tolist() if number not in there]
    if missing:
        shown = ", ".join(map(str, sorted(there)[:12])) + (", …" if len(there) > 12 else "")
        raise AnalysisError(
            f"{axis} {missing[0]} is not in the analysis, which is of {shown} (of {size}). Choose "
            "one of them, or record more."
        )
    return result.sel({axis: wanted})


def plain(piece: xr.Dataset) -> dict[str, Any]:
    """Return a piece of an analysis as what JSON can hold.

    Returns
    -------
    dict
        ``coords`` and ``variables``: for each its ``dims``, ``long_name``, ``units`` and ``values``
        as nested lists; what is not finite is None.
    """
    return {
        part: {
            str(name): {
                "dims": list(map(str, array.dims)),
                "long_name": str(array.attrs.get("long_name", name)),
                "units": str(array.attrs.get("units", "")),
                "values": _plain(array.values.tolist()),
            }
            for name, array in arrays.items()
        }
        for part, arrays in (("coords", piece.coords), ("variables", piece.data_vars))
    }


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
