"""Compiled loops over surrogates: how many recur as well as the trajectory they are made from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from looplens.analysis.algebra.compiled import compiled

Floats = NDArray[np.float64]


@compiled
def dip_of_gram(gram: Floats, order: NDArray[np.int64]) -> float:
    """Least mean square displacement at a lag over the largest at a smaller one."""
    n = gram.shape[0]
    most, dip = 0.0, np.inf
    for lag in range(1, n // 2 + 1):
        total = 0.0
        for t in range(n - lag):
            i, j = order[t], order[t + lag]
            total += gram[i, i] + gram[j, j] - 2 * gram[i, j]
        total /= n - lag
        if lag > 1 and most > 0.0 and total < dip * most:
            dip = total / most
        most = max(most, total)
    return dip


@compiled
def _dips_as_far(path: Floats, least: float) -> bool:
    """Whether the dip of a path (n, d) reaches down to `least`."""
    n, d = path.shape
    most = 0.0
    for lag in range(1, n // 2 + 1):
        total = 0.0
        for t in range(n - lag):
            for k in range(d):
                apart = path[t + lag, k] - path[t, k]
                total += apart * apart
        total /= n - lag
        if lag > 1 and total <= least * most:
            return True
        most = max(most, total)
    return False


@compiled
def turned(grams: Floats, radii: Floats, cosines: Floats, draws: Floats, counts: Floats) -> None:
    """Count surrogates of random azimuth that dip as far.

    Parameters
    ----------
    grams, radii, cosines : ndarray, shape (b, n, n), (b, n), (b, n - 1)
        Products about the centre, distances from it, and cosines of successive directions.
    draws : ndarray, shape (surrogate, n, d)
        Normal numbers.
    counts : ndarray, shape (b,)
        Takes the result.
    """
    count, n, d = draws.shape
    order = np.arange(n)
    path, unit, side = np.empty((n, d)), np.empty(d), np.empty(d)
    for row in range(grams.shape[0]):
        least = dip_of_gram(grams[row], order) * (1 + 1e-9) + 1e-12
        counts[row] = 0.0
        for s in range(count):
            size = 0.0
            for k in range(d):
                unit[k] = draws[s, 0, k]
                size += unit[k] * unit[k]
            for k in range(d):
                unit[k] /= np.sqrt(size)
                path[0, k] = radii[row, 0] * unit[k]
            for t in range(1, n):
                along, size = 0.0, 0.0
                for k in range(d):
                    along += draws[s, t, k] * unit[k]
                for k in range(d):
                    side[k] = draws[s, t, k] - along * unit[k]
                    size += side[k] * side[k]
                cosine = cosines[row, t - 1]
                sine = np.sqrt(1.0 - cosine * cosine) / np.sqrt(max(size, 1e-300))
                size = 0.0
                for k in range(d):
                    unit[k] = cosine * unit[k] + sine * side[k]
                    size += unit[k] * unit[k]
                for k in range(d):  # rounding must not add up
                    unit[k] /= np.sqrt(size)
                    path[t, k] = radii[row, t] * unit[k]
            if _dips_as_far(path, least):
                counts[row] += 1.0


@compiled
def shuffled(grams: Floats, orders: NDArray[np.int64], counts: Floats) -> None:
    """Count random orders (surrogate, n) of the same states that dip as far."""
    own = np.arange(grams.shape[1])
    for row in range(grams.shape[0]):
        least = dip_of_gram(grams[row], own) * (1 + 1e-9) + 1e-12
        counts[row] = 0.0
        for s in range(orders.shape[0]):
            if dip_of_gram(grams[row], orders[s]) <= least:
                counts[row] += 1.0


@compiled
def _straightness(path: Floats, found: Floats) -> None:
    """Way over path of a path (n, d) and of its means over blocks; overwrites the path."""
    n, d = path.shape
    for scale in range(found.shape[0]):
        length, way = 0.0, 0.0
        for t in range(1, n):
            square = 0.0
            for k in range(d):
                step = path[t, k] - path[t - 1, k]
                square += step * step
            length += np.sqrt(square)
        for k in range(d):
            way += (path[n - 1, k] - path[0, k]) ** 2
        found[scale] = np.sqrt(way) / max(length, 1e-300)
        # Means of pairs that end with the last one.
        first = n % 2
        n //= 2
        for t in range(n):
            for k in range(d):
                path[t, k] = 0.5 * (path[first + 2 * t, k] + path[first + 2 * t + 1, k])


@compiled
def straight(sizes: Floats, own: Floats, directions: Floats, counts: Floats) -> None:
    """Count surrogates of random directions that are as exceptionally straight.

    Parameters
    ----------
    sizes : ndarray, shape (b, n - 1)
        Step sizes.
    own : ndarray, shape (b, scale)
        Straightness of the trajectories.
    directions : ndarray, shape (surrogate, n - 1, d)
        Unit vectors.
    counts : ndarray, shape (b,)
        Takes the result.
    """
    count, n, d = directions.shape
    scales = own.shape[1]
    path, found = np.empty((n + 1, d)), np.empty((count + 1, scales))
    for row in range(sizes.shape[0]):
        for s in range(count):
            path[0] = 0.0
            for t in range(n):
                for k in range(d):
                    path[t + 1, k] = path[t, k] + sizes[row, t] * directions[s, t, k]
            _straightness(path, found[s])
        found[count] = own[row]
        rank = np.full(count + 1, count + 2)
        for scale in range(scales):
            order = np.argsort(found[:, scale])
            # How many are at least as straight; a difference of rounding is none.
            least = 0
            for place in range(count + 1):
                value = found[order[place], scale] * (1 - 1e-9)
                while found[order[least], scale] < value:
                    least += 1
                rank[order[place]] = min(rank[order[place]], count + 1 - least)
        counts[row] = 0.0
        for s in range(count):
            if rank[s] <= rank[count]:
                counts[row] += 1.0
