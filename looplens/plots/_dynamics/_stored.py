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
