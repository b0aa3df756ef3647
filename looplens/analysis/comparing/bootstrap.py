"""Intervals for means over tokens, from resampled prompts.

Tokens of one prompt are not independent: they read each other. So whole prompts are drawn, and of
two runs the same ones, which leaves the variation between prompts out of their difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from looplens.errors import InputError

_NUMBERS_AT_ONCE = 4_000_000


class PairedBootstrap:
    r"""Draws prompts with replacement, the same draws for everything that is asked of it.

    With :math:`S_p` the sum and :math:`N_p` the number of the known tokens of prompt p, the mean is
    :math:`\sum_p S_p / \sum_p N_p`. Each draw counts how often every prompt was taken, and the
    interval lies between the quantiles of the means of the draws (percentile bootstrap).

    Parameters
    ----------
    prompts : int
        How many prompts there are.
    n_boot : int
        Draws; at least 100.
    level : float
        Share of the draws inside an interval, between 0 and 1.
    seed : int
        Of the draws.

    Raises
    ------
    InputError
        If a parameter is out of range.

    References
    ----------
    Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 13 (percentile intervals);
    written from general knowledge of the method.
    """

    def __init__(
        self, prompts: int, *, n_boot: int = 1000, level: float = 0.95, seed: int = 0
    ) -> None:
        if n_boot < 100:
            raise InputError(f"n_boot must be at least 100 for an interval, got {n_boot}.")
        if not 0 < level < 1:
            raise InputError(f"level must lie between 0 and 1, such as 0.95, got {level}.")
        self.prompts, self.n_boot, self.level = prompts, n_boot, level
        self._seed = seed
        self._kept: NDArray[np.float64] | None = None

    def draws(self) -> NDArray[np.int64]:
        """Return which prompts each draw takes; shape (draw, prompt)."""
        generator = np.random.default_rng(self._seed)
        return generator.integers(self.prompts, size=(self.n_boot, self.prompts))

    def interval(
        self, total: NDArray[Any], known: NDArray[Any]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the interval of a mean over tokens.

        Parameters
        ----------
        total, known : ndarray, shape (prompt, ...)
            Sum over the known tokens of each prompt, and how many they are.

        Returns
        -------
        low, high : ndarray, shape (...)
            NaN where fewer than two prompts have a known token: one prompt says nothing of others.
        """
        shape = total.shape[1:]
        total, known = total.reshape(self.prompts, -1), known.reshape(self.prompts, -1)
        means = np.full((self.n_boot, total.shape[1]), np.nan)
        start = 0
        for weights in self._weights():
            below = weights @ known
            inside = means[start : start + len(weights)]
            np.divide(weights @ total, below, out=inside, where=below > 0)
            start += len(weights)
        return self.between(means, (known > 0).sum(0), shape)

    def _weights(self) -> Iterator[NDArray[np.float64]]:
        """Yield how often each draw takes each prompt, some draws at a time; (draw, prompt)."""
        if self._kept is not None:
            yield self._kept
            return
        generator = np.random.default_rng(self._seed)
        at_once = max(1, _NUMBERS_AT_ONCE // self.prompts)
        for start in range(0, self.n_boot, at_once):
            number = min(at_once, self.n_boot - start)
            taken = generator.integers(self.prompts, size=(number, self.prompts))
            row = np.arange(number)[:, None] * self.prompts
            counts = np.bincount((taken + row).ravel(), minlength=number * self.prompts)
            weights = counts.reshape(number, self.prompts).astype(np.float64)
            if number == self.n_boot:
                self._kept = weights
            yield weights

    def between(
        self,
        means: NDArray[np.float64],
        prompts_known: NDArray[np.int64],
        shape: tuple[int, ...],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return quantiles of the values of all draws, (draw, value), in another shape."""
        bounds = np.full((2, means.shape[1]), np.nan)
        enough = (prompts_known > 1) & np.isfinite(means).any(0)
        if enough.any():
            tails = [(1 - self.level) / 2, (1 + self.level) / 2]
            inside = means[:, enough]
            # nanquantile sorts column by column, many times slower.
            quantile = np.quantile if np.isfinite(inside).all() else np.nanquantile
            bounds[:, enough] = quantile(inside, tails, axis=0)
        low, high = bounds.reshape(2, *shape)
        return low, high
