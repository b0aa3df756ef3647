"""Whether the tokens of a prompt grow alike: their mean cosine, and how far apart they lie.

Both follow from sums over the tokens, so that a prompt can be read in parts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from looplens.analysis.algebra.gram import Floats
from looplens.analysis.algebra.inputs import as_array
from looplens.errors import InputError

_NUMBERS_AT_ONCE = 2**17  # in float64 these lie in the cache


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenCollapse:
    """How alike the tokens of a prompt are; ``...`` are the leading axes.

    Attributes
    ----------
    cosine : ndarray, shape (..., iteration)
        Mean cosine over all pairs of different tokens: 1 when all point the same way. NaN where a
        state is zero or not finite.
    spread : ndarray, shape (..., iteration)
        Root-mean-square distance of the tokens from their mean, over their root-mean-square norm:
        0 when all are the same.
    """

    cosine: Floats
    spread: Floats


class TokenSums:
    """Sums over the tokens of one prompt, gathered part by part."""

    def __init__(self) -> None:
        self.count = 0
        self._directions: Floats | float = 0.0
        self._states: Floats | float = 0.0
        self._squares: Floats | float = 0.0

    def add(self, states: NDArray[np.floating]) -> None:
        """Take in states (..., token, iteration, d_model)."""
        self.count += states.shape[-3]
        each = math.prod((*states.shape[:-3], *states.shape[-2:]))
        step = max(1, _NUMBERS_AT_ONCE // max(each, 1))
        for start in range(0, states.shape[-3], step):
            some = states[..., start : start + step, :, :].astype(np.float64)
            squares = np.vecdot(some, some)
            with np.errstate(divide="ignore", invalid="ignore"):  # of states not finite, or zero
                inverse = np.where(squares > 0, 1 / np.sqrt(squares), np.nan)
                self._states = self._states + some.sum(-3)
                self._squares = self._squares + squares.sum(-2)
                some *= inverse[..., None]
                self._directions = self._directions + some.sum(-3)

    def result(self) -> TokenCollapse:
        """Return what the sums say: NaN with fewer than two tokens."""
        n = self.count
        directions, states = np.asarray(self._directions), np.asarray(self._states)
        if n < 2:
            unknown = np.full(states.shape[:-1], np.nan)
            return TokenCollapse(cosine=unknown, spread=unknown.copy())
        cosine = (np.vecdot(directions, directions) - n) / (n * (n - 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            shared = np.vecdot(states, states) / (n * np.asarray(self._squares))
        return TokenCollapse(
            cosine=np.clip(cosine, -1.0, 1.0), spread=np.sqrt(np.maximum(1.0 - shared, 0.0))
        )


def token_collapse(states: ArrayLike) -> TokenCollapse:
    """Measure how alike the tokens of a prompt are at each iteration.

    With u the direction of a state and S tokens, the mean cosine is
    (|sum of u|^2 - S) / (S (S - 1)), and the spread sqrt(1 - |mean s|^2 / mean |s|^2).

    Parameters
    ----------
    states : array_like, shape (..., token, iteration, d_model)
        States of the tokens of one prompt.

    Returns
    -------
    TokenCollapse

    Raises
    ------
    InputError
        For fewer than two tokens.

    References
    ----------
    The failed run of Geiping et al. 2025, arXiv:2502.05171, in which the correlation of states
    along the token axis goes to 1.
    """
    array = as_array(states, ("token", "iteration", "d_model"))
    if array.shape[-3] < 2:
        raise InputError(f"Token collapse needs at least two tokens; got {array.shape[-3]}.")
    sums = TokenSums()
    sums.add(array)
    return sums.result()
