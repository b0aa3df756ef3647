"""The common shape of what the array functions take: trajectories with any leading axes."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from looplens.analysis._inputs import as_array


def as_trajectories(
    states: ArrayLike, *, name: str = "states"
) -> tuple[NDArray[np.floating], tuple[int, ...]]:
    """Flatten the leading axes of (..., iteration, d_model).

    Returns
    -------
    flat : ndarray of a floating dtype, shape (count, iteration, d_model)
        A view where the input allows.
    leading : tuple of int
        The leading shape, to restore.

    Raises
    ------
    InputError
        For fewer than two axes, empty iteration or d_model axes, or values that are not real
        numbers.
    """
    array = as_array(states, ("iteration", "d_model"), name=name)
    leading = array.shape[:-2]
    count = math.prod(leading)
    return array.reshape(count, *array.shape[-2:]), leading


def blocks_of(
    flat: NDArray[np.floating], bytes_per_block: int = 2**25
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]]:
    """Yield blocks of finite trajectories in float64, scaled by powers of two to a size near 1.

    Scaling keeps squares from overflowing or vanishing whatever the size of the states, and by
    powers of two it changes no digit.

    Yields
    ------
    rows : ndarray of int, shape (b,)
        Which trajectories; those that are not finite are left out.
    block : ndarray of float64, shape (b, iteration, d_model)
        A copy of them, divided by `scale`.
    scale : ndarray of float64, shape (b,)
        What they were divided by.
    """
    count, length, d_model = flat.shape
    size = max(1, bytes_per_block // (32 * length * d_model))
    for start in range(0, count, size):
        rows = np.arange(start, min(start + size, count))
        rows = rows[np.isfinite(flat[rows]).all((1, 2))]
        if len(rows):
            block = flat[rows].astype(np.float64)
            _, exponent = np.frexp(np.abs(block).max((1, 2)))
            exponent = np.clip(exponent, -1000, 1000)
            yield rows, np.ldexp(block, -exponent[:, None, None]), np.ldexp(1.0, exponent)


def tail_points(points: int) -> int:
    """How many points the last quarter of a series has, at least one."""
    return max(1, points // 4)
