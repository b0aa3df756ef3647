"""Compiled loops over all pairs of states of a window: how near the path comes to itself.

Each Gram matrix is gone through while it lies in the cache. Nothing is judged here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from looplens.analysis.algebra.compiled import compiled

Floats = NDArray[np.float64]


@compiled
def returns(
    across: NDArray[np.floating],
    along: Floats,
    path: Floats,
    radius: float,
    least_lag: int,
    least_line: int,
    found: Floats,
) -> None:
    """Count recurrences, those on diagonal lines, and the closest return over its arc.

    Parameters
    ----------
    across : ndarray, shape (b, n, n)
        Gram matrix of the states about the last one, less what `along` holds.
    along : ndarray, shape (b, n)
        Their places along one more direction.
    path : ndarray, shape (b, n)
        Length of the path up to each state.
    radius : float
        Two states nearer than this share of the largest distance recur.
    least_lag : int
        Iterations that lie between the states of a pair at least.
    least_line : int
        Successive pairs that make a line.
    found : ndarray, shape (b, 4)
        Takes the squared largest distance, the share of pairs that recur, the share of those that
        lie on lines, and the least distance over the length of the path between.
    """
    b, n, _ = across.shape
    square = np.empty((n, n))
    for row in range(b):
        largest = 0.0
        for i in range(n):
            own = across[row, i, i] + along[row, i] * along[row, i]
            for j in range(i):
                other = across[row, j, j] + along[row, j] * along[row, j]
                product = across[row, i, j] + along[row, i] * along[row, j]
                value = max(own + other - 2.0 * product, 0.0)
                square[i, j] = value
                largest = max(largest, value)
        limit = radius * radius * largest
        pairs, recurring, lined, nearest = 0, 0, 0, np.inf
        for lag in range(least_lag, n):
            line = 0
            for j in range(n - lag):
                i = j + lag
                pairs += 1
                arc = path[row, i] - path[row, j]
                if arc > 0:
                    nearest = min(nearest, square[i, j] / (arc * arc))
                if square[i, j] < limit:
                    recurring += 1
                    line += 1
                else:
                    if line >= least_line:
                        lined += line
                    line = 0
            if line >= least_line:
                lined += line
        found[row, 0] = largest
        found[row, 1] = recurring / pairs if pairs else np.nan
        found[row, 2] = lined / recurring if recurring else np.nan
        found[row, 3] = min(np.sqrt(nearest), 1.0)
