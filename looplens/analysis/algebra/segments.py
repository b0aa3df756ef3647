"""Compiled search for the best cut of a series into straight pieces, by dynamic programming."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from looplens.analysis.algebra.compiled import compiled

Floats = NDArray[np.float64]


@compiled
def best_cuts(
    series: Floats,
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    least: int,
    cost: Floats,
    cuts: NDArray[np.int64],
) -> None:
    """Find, for each number of pieces, the cuts with the least sum of squares about lines.

    Parameters
    ----------
    series : ndarray, shape (b, n)
        What is cut.
    starts, stops : ndarray of int, shape (b,)
        The part of each that is looked at.
    least : int
        Points in a piece at least.
    cost : ndarray, shape (b, k)
        Takes the least sum of squares with 1..k pieces; infinite where that many do not fit.
    cuts : ndarray of int, shape (b, k, k)
        Takes where the pieces begin, counted from the beginning of the series; -1 where unused.
    """
    b, width = series.shape
    most = cost.shape[1]
    residual = np.empty((width, width + 1))
    best = np.empty((most, width + 1))
    begin = np.empty((most, width + 1), dtype=np.int64)
    for row in range(b):
        first, n = starts[row], stops[row] - starts[row]
        cost[row] = np.inf
        cuts[row] = -1
        if n < least:
            continue
        for i in range(n - least + 1):
            # Sums grow with the piece, about its first value so that they do not cancel.
            total, square, moment = 0.0, 0.0, 0.0
            origin = series[row, first + i]
            for j in range(i, n):
                value, time = series[row, first + j] - origin, float(j - i)
                total += value
                square += value * value
                moment += time * value
                m = time + 1.0
                if m >= least:
                    middle = 0.5 * time
                    spread = m * (m * m - 1.0) / 12.0
                    slope = moment - middle * total
                    rest = square - total * total / m - slope * slope / spread
                    residual[i, j + 1] = max(rest, 0.0)
        for j in range(n + 1):
            best[0, j] = residual[0, j] if j >= least else np.inf
            begin[0, j] = 0
        for k in range(1, most):
            for j in range(n + 1):
                best[k, j], begin[k, j] = np.inf, -1
                for i in range(k * least, j - least + 1):
                    value = best[k - 1, i] + residual[i, j]
                    if value < best[k, j]:
                        best[k, j], begin[k, j] = value, i
        for k in range(most):
            cost[row, k] = best[k, n]
            stop = n
            if np.isfinite(best[k, n]):
                for piece in range(k, -1, -1):
                    stop = begin[piece, stop]
                    cuts[row, k, piece] = first + stop
