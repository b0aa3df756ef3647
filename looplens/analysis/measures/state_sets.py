"""Distances between sets of states that trajectories visit, and whether a trajectory has left one.

Knows nothing of restarts, basins or tolerances.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from looplens.analysis.algebra.gram import TINY, Floats


def squares_of_all(points: Floats) -> Floats:
    """Squared distances (token, a, b, i, j) of state i of restart a to state j of restart b."""
    count, restarts, length, d_model = points.shape
    flat = points.reshape(count, restarts * length, d_model)
    far = squares_between(flat, flat).reshape(count, restarts, length, restarts, length)
    return far.transpose(0, 1, 3, 2, 4)


def squares_between(one: Floats, other: Floats) -> Floats:
    """Squared distances (..., i, j) of states (..., i, d_model) and (..., j, d_model)."""
    here, there = np.vecdot(one, one), np.vecdot(other, other)
    products = one @ np.swapaxes(other, -1, -2)
    return np.maximum(here[..., :, None] + there[..., None, :] - 2 * products, 0.0)


def away(one: Floats, other: Floats) -> Floats:
    """Mean squared distance (...) of states (..., i, d_model) to the path (..., j, d_model)."""
    return to_path(squares_between(one, other), squares_between(other, other))


def way_ahead(points: Floats) -> Floats:
    """How far a mean would still go (...) if it went on slowing down as it does.

    Steps of a mean that shrink by a factor q add up to the last of them times q / (1 - q).
    """
    third = max(1, points.shape[-2] // 3)
    means = [points[..., -n * third :, :][..., :third, :].mean(-2) for n in (3, 2, 1)]
    step, last = (np.linalg.norm(b - a, axis=-1) for a, b in pairwise(means))
    slower = last < step
    return np.where(slower, last**2 / np.where(slower, step - last, 1.0), np.inf)


def to_path(far: Floats, own: Floats) -> Floats:
    """Mean squared distance (...) of states i to what states j sample.

    That is, to the lines from the nearest j to the second and third nearest. Between two states of
    an orbit, the nearest state alone may be far; all pairs of j would cut across the orbit.

    Parameters
    ----------
    far : ndarray, shape (..., i, j)
        Squared distances; infinite where j does not count for i.
    own : ndarray, shape (..., j, j)
        Squared distances among the j.
    """
    order = np.argsort(far, axis=-1)[..., :3]
    own = np.broadcast_to(own, (*far.shape[:-2], *own.shape[-2:]))
    first = np.take_along_axis(far, order[..., :1], -1)[..., 0]
    rows = np.take_along_axis(own, order[..., :1], -2)  # (..., i, j): from the nearest j
    best = first
    for other in range(1, order.shape[-1]):
        index = order[..., other : other + 1]
        second = np.take_along_axis(far, index, -1)[..., 0]
        length = np.take_along_axis(rows, index, -1)[..., 0]
        usable = np.isfinite(second)
        second = np.where(usable, second, first)
        along = np.clip((first + length - second) / np.maximum(2 * length, TINY), 0.0, 1.0)
        along = np.where(usable, along, 0.0)
        between = (1 - along) * first + along * second - along * (1 - along) * length
        best = np.minimum(best, np.maximum(between, 0.0))
    return best.mean(-1)
