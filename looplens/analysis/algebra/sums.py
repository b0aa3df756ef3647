"""Compiled loops over Gram matrices: folding on a period, and sums that tell noise from structure.

Each matrix is gone through once or twice while it lies in the cache.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from looplens.analysis.algebra.compiled import compiled

Floats = NDArray[np.float64]


@compiled
def fold_out(grams: Floats, periods: NDArray[np.int64]) -> None:
    """Take the means of all phases of a period, and a line, out of each matrix, in place.

    A projection on phases and a line is the mean of each phase, and the offset of time from its
    mean in the phase: no columns are needed for it.

    Parameters
    ----------
    grams : ndarray, shape (b, n, n)
        Gram matrices.
    periods : ndarray of int, shape (b,)
        The period of each, at most n.
    """
    n = grams.shape[1]
    offset, means, counts = np.empty(n), np.empty((n, n)), np.empty(n)
    total = np.empty(n)
    for row in range(grams.shape[0]):
        gram, period = grams[row], periods[row]
        size = 0.0
        for a in range(period):
            counts[a] = (n - a + period - 1) // period
        for i in range(n):
            a = i % period
            offset[i] = i - (a + 0.5 * period * (counts[a] - 1))
            size += offset[i] * offset[i]
        for i in range(n):
            offset[i] /= np.sqrt(size) if size > 0 else 1.0
        for side in range(2):
            # From the left; the matrix is symmetric, so its transpose does the right side.
            means[:period] = 0.0
            total[:] = 0.0
            for i in range(n):
                a = i % period
                for j in range(n):
                    means[a, j] += gram[i, j]
                    total[j] += offset[i] * gram[i, j]
            for a in range(period):
                for j in range(n):
                    means[a, j] /= counts[a]
            for i in range(n):
                a = i % period
                for j in range(n):
                    gram[i, j] -= means[a, j] + offset[i] * total[j]
            if side == 0:
                for i in range(n):
                    for j in range(i):
                        gram[i, j], gram[j, i] = gram[j, i], gram[i, j]


@compiled
def sums(grams: Floats, found: Floats) -> None:
    """Take the sums that tell noise from structure, into `found` (b, 7).

    The sums along the diagonals of lags 0 to 3, the sum of squares, and the sums of the first and
    of the second half of the diagonal.
    """
    n = grams.shape[1]
    half = n // 2
    for row in range(grams.shape[0]):
        gram = grams[row]
        for lag in range(4):
            total = 0.0
            for i in range(n - lag):
                total += gram[i, i + lag]
            found[row, lag] = total
        squares = 0.0
        for i in range(n):
            for j in range(n):
                squares += gram[i, j] * gram[i, j]
        found[row, 4] = squares
        first, second = 0.0, 0.0
        for i in range(half):
            first += gram[i, i]
            second += gram[n - half + i, n - half + i]
        found[row, 5], found[row, 6] = first, second
