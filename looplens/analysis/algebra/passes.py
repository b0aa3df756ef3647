"""Compiled passes over states: each trajectory is gone through twice, while it lies in the cache.

Sums are taken in the dtype of the states, in the many parts that the lanes of a processor make of
them, and kept in float64. `moments` says what they are for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from looplens.analysis.algebra.compiled import compiled

Floats = NDArray[np.float64]
States = NDArray[np.floating]


@compiled
def along_the_path(
    states: States, zero: Any, norm2: Floats, step2: Floats, radial: Floats, bend2: Floats
) -> None:
    """Take squared norms and steps, products of steps with the state before, squared bends.

    Parameters
    ----------
    states : ndarray, shape (b, N, d_model)
        Trajectories.
    zero : scalar
        Zero of the dtype in which to sum.
    norm2, step2, radial, bend2 : ndarray, shape (b, N), (b, N - 1), (b, N - 1), (b, N - 2)
        Take the results; a bend is the difference of two successive steps.
    """
    count, length, d_model = states.shape
    for row in range(count):
        for t in range(length):
            square, change2, product = zero, zero, zero
            if t == 0:
                for k in range(d_model):
                    square += states[row, t, k] * states[row, t, k]
            elif t == 1:
                for k in range(d_model):
                    value, before = states[row, t, k], states[row, t - 1, k]
                    change = value - before
                    square += value * value
                    change2 += change * change
                    product += change * before
                step2[row, t - 1], radial[row, t - 1] = change2, product
            else:
                turned2 = zero
                for k in range(d_model):
                    value, before = states[row, t, k], states[row, t - 1, k]
                    change = value - before
                    square += value * value
                    change2 += change * change
                    product += change * before
                    bend = change - (before - states[row, t - 2, k])
                    turned2 += bend * bend
                step2[row, t - 1], radial[row, t - 1] = change2, product
                bend2[row, t - 2] = turned2
            norm2[row, t] = square


@compiled
def about_the_last(
    states: States,
    zero: Any,
    limit_points: int,
    shift: States,
    square: Floats,
    away2: Floats,
) -> None:
    """Take squares about the last state, and about the limit.

    Parameters
    ----------
    states : ndarray, shape (b, N, d_model)
        Trajectories.
    zero : scalar
        Zero of the dtype in which to sum.
    limit_points : int
        States at the end whose mean is the limit.
    shift : ndarray, shape (b, d_model)
        Takes the limit less the last state.
    square, away2 : ndarray, shape (b, N)
        Take |z|^2 and |z - shift|^2, for z the state less the last one.
    """
    count, length, d_model = states.shape
    share = zero + 1.0 / limit_points
    for row in range(count):
        shift[row] = zero
        for t in range(length - limit_points, length):
            for k in range(d_model):
                shift[row, k] += states[row, t, k] - states[row, length - 1, k]
        for k in range(d_model):
            shift[row, k] *= share
        for t in range(length):
            total, away = zero, zero
            for k in range(d_model):
                value = states[row, t, k] - states[row, length - 1, k]
                rest = value - shift[row, k]  # a sum of squares: their difference would cancel
                total += value * value
                away += rest * rest
            square[row, t], away2[row, t] = total, away


@compiled
def across_the_last(
    states: States,
    zero: Any,
    inverse_last: States,
    weights: States,
    skip: int,
    along: Floats,
    across: States,
    mean: States,
    turned: States,
) -> None:
    """Split the states about the last one along its direction and across it.

    Parameters
    ----------
    states : ndarray, shape (b, N, d_model)
        Trajectories.
    zero : scalar
        Zero of the dtype in which to sum.
    inverse_last : ndarray, shape (b,)
        One over the norm of the last state; 0 where that is 0.
    weights : ndarray, shape (b, before)
        What the states before the window count for in `turned`.
    skip : int
        States at the beginning that are left out.
    along : ndarray, shape (b, N - skip)
        Takes z . e, e being the direction of the last state.
    across : ndarray, shape (b, n, d_model)
        Takes z - (z . e) e within the window.
    mean, turned : ndarray, shape (b, d_model)
        Take the mean of z before the window, and its sum with the weights.
    """
    count, length, d_model = states.shape
    before = weights.shape[1]
    for row in range(count):
        mean[row] = zero
        turned[row] = zero
        for t in range(skip, length):
            product = zero
            for k in range(d_model):
                last = states[row, length - 1, k]
                product += (states[row, t, k] - last) * last
            product *= inverse_last[row]
            along[row, t - skip] = product
            place = t - skip - before
            if place < 0:
                weight = weights[row, t - skip]
                for k in range(d_model):
                    value = states[row, t, k] - states[row, length - 1, k]
                    mean[row, k] += value
                    turned[row, k] += weight * value
            else:
                product *= inverse_last[row]
                for k in range(d_model):
                    last = states[row, length - 1, k]
                    across[row, place, k] = states[row, t, k] - last - product * last
        if before:
            for k in range(d_model):
                mean[row, k] /= before


@compiled
def through(
    states: States,
    zero: Any,
    limit_points: int,
    skip: int,
    start: int,
    path: tuple[Floats, Floats, Floats, Floats],
    about: tuple[States, Floats, Floats],
    tail: tuple[Floats, States, States, States],
) -> None:
    """Take all of these of one trajectory after the other, so that each is read once.

    Parameters
    ----------
    states : ndarray, shape (b, N, d_model)
        Trajectories.
    zero : scalar
        Zero of the dtype in which to sum.
    limit_points, skip, start : int
        States that make the limit, states to leave out, and the first state of the window; no
        window where that is negative.
    path, about, tail : tuple of ndarray
        Take the results of `along_the_path`, `about_the_last` and `across_the_last`.
    """
    count, length, _ = states.shape
    before = max(start - skip, 0)
    weights = np.empty((1, before), dtype=states.dtype)
    inverse_last = np.empty(1, dtype=states.dtype)
    for row in range(count):
        one = slice(row, row + 1)
        along_the_path(states[one], zero, path[0][one], path[1][one], path[2][one], path[3][one])
        about_the_last(states[one], zero, limit_points, about[0][one], about[1][one], about[2][one])
        if start >= 0:
            norm2 = path[0][row]
            for t in range(before):
                square = norm2[skip + t]
                weights[0, t] = 1 / (np.sqrt(square) * before) if square > 0 else 1 / before
            last = norm2[length - 1]
            inverse_last[0] = 1 / np.sqrt(last) if last > 0 else 0.0
            across_the_last(
                states[one],
                zero,
                inverse_last,
                weights,
                skip,
                tail[0][one],
                tail[1][one],
                tail[2][one],
                tail[3][one],
            )


@compiled
def about_an_origin(
    states: States, origin: Floats, directions: Floats, projected: Floats, square: Floats
) -> None:
    """Take places of states in some directions, and squares, both about an origin.

    In float64: what float32 leaves of states far from zero, and the squares of very large and very
    small ones, is all there.

    Parameters
    ----------
    states : ndarray, shape (b, N, d_model)
        Trajectories.
    origin : ndarray, shape (d_model,)
        What to subtract from each state.
    directions : ndarray, shape (k, d_model)
        Directions to project on.
    projected : ndarray, shape (b, N, k)
        Takes (s - origin) . direction.
    square : ndarray, shape (b, N)
        Takes |s - origin|^2.
    """
    count, length, d_model = states.shape
    centred = np.empty(d_model)
    for row in range(count):
        for t in range(length):
            total = 0.0
            for k in range(d_model):
                value = states[row, t, k] - origin[k]
                centred[k] = value
                total += value * value
            square[row, t] = total
            for j in range(directions.shape[0]):
                total = 0.0
                for k in range(d_model):
                    total += centred[k] * directions[j, k]
                projected[row, t, j] = total
