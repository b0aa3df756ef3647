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
    """Way over path of a path (n, d) and of its means over blocks; see `surrogates`."""
    n, d = path.shape
    first, before, mean = np.empty(d), np.empty(d), np.empty(d)
    size = 1
    for k in range(found.shape[0]):
        start = n - (n // size) * size
        length = 0.0
        for block in range(n // size):
            mean[:] = 0.0
            for t in range(start + block * size, start + (block + 1) * size):
                mean += path[t]
            mean /= size
            if block == 0:
                first[:] = mean
            else:
                length += np.sqrt(((mean - before) ** 2).sum())
            before[:] = mean
        found[k] = np.sqrt(((before - first) ** 2).sum()) / max(length, 1e-300)
        size *= 2


@compiled
def straight(sizes: Floats, own: Floats, draws: Floats, counts: Floats) -> None:
    """Count surrogates of random directions that are as exceptionally straight.

    Parameters
    ----------
    sizes : ndarray, shape (b, n - 1)
        Step sizes.
    own : ndarray, shape (b, scale)
        Straightness of the trajectories.
    draws : ndarray, shape (surrogate, n - 1, d)
        Normal numbers.
    counts : ndarray, shape (b,)
        Takes the result.
    """
    count, n, d = draws.shape
    scales = own.shape[1]
    path, found = np.empty((n + 1, d)), np.empty((count + 1, scales))
    path[0] = 0.0
    for row in range(sizes.shape[0]):
        for s in range(count):
            for t in range(n):
                size = 0.0
                for k in range(d):
                    size += draws[s, t, k] * draws[s, t, k]
                share = sizes[row, t] / np.sqrt(size)
                for k in range(d):
                    path[t + 1, k] = path[t, k] + share * draws[s, t, k]
            _straightness(path, found[s])
        found[count] = own[row]
        rank = np.full(count + 1, count + 2)
        for k in range(scales):
            order = np.argsort(found[:, k])
            for place in range(count + 1):
                # How many are at least as straight; rounding is no difference.
                least = place
                value = found[order[place], k] * (1 - 1e-9)
                while least > 0 and found[order[least - 1], k] >= value:
                    least -= 1
                rank[order[place]] = min(rank[order[place]], count + 1 - least)
        counts[row] = 0.0
        for s in range(count):
            if rank[s] <= rank[count]:
                counts[row] += 1.0
