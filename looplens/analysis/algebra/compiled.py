"""Compiled functions: machine code that is kept where that is possible.

Loops over states and Gram matrices are compiled by numba at their first call. The code is kept in
a cache beside the sources or in the home of the user.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])

# Sums may be taken in any order; NaN and infinity keep their meaning.
_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "fastmath": {"reassoc", "contract", "arcp", "nsz"},
}


def compiled(function: Function) -> Function:
    """Compile a function at its first call for each kind of arguments.

    Parameters
    ----------
    function : callable
        A function of numbers and arrays.

    Returns
    -------
    callable
        The same, compiled. Other threads run while it does.
    """
    try:
        return njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # nowhere to write: compiled anew in each process
        return njit(**_OPTIONS)(function)
