"""The common shape of what the array functions take: trajectories with any leading axes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from looplens.analysis.algebra.inputs import as_array


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


def tail_points(points: int) -> int:
    """How many points the last quarter of a series has, at least one."""
    return max(1, points // 4)
