"""Results of the dynamics lab in a run, as its figures find them."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from looplens.errors import AnalysisError, InputError


def stored(run: Any, name: str, token: int | None = None) -> tuple[xr.Dataset, int]:
    """Return a stored result of the lab and the token it is asked for, by default its first.

    Parameters
    ----------
    run : looplens.Run
        The run.
    name : str
        Of the result, without ``dynamics/``.
    token : int or None
        Token number in the run.

    Raises
    ------
    AnalysisError
        If there is no such result, or it says nothing of this token.
    InputError
        If the run has no such token.
    """
    tokens = "" if token is None else f" --tokens {token}"
    make = f"`looplens dynamics {run.path}{tokens} --parts {name}` (which needs the model)"
    found = run.analysis(f"dynamics/{name}")
    if found is None:
        raise AnalysisError(f"This run does not hold dynamics/{name}: make it with {make}.")
    held = found["token"].values
    if token is None:
        return found, int(held[0])
    if not 0 <= token < run.n_tokens:
        raise InputError(f"token={token}, but this run has the tokens 0 to {run.n_tokens - 1}.")
    if not np.isin(token, held):
        raise AnalysisError(
            f"dynamics/{name} of this run does not hold token {token}: make it with {make}."
        )
    return found, int(token)


def of_token(result: xr.Dataset, token: int | None) -> xr.Dataset:
    """Return the part of a result that belongs to one token, by default its first.

    Raises
    ------
    InputError
        If the result does not hold that token.
    """
    held = result["token"].values
    if token is None:
        token = int(held[0])
    if not np.isin(token, held):
        raise InputError(
            f"token={token}, but this result holds {', '.join(map(str, held[:12].tolist()))}"
            + (", ..." if len(held) > 12 else "")
        )
    return result.sel(token=token)


def name_of(one: xr.Dataset) -> str:
    """Return the name of the model and the token of a part that belongs to one token."""
    return f"{one.attrs.get('model', '')} · token {int(one['token'])}"
