"""The common shape of what the array functions take: trajectories with any leading axes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from looplens.errors import InputError


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
        For fewer than two axes, empty iteration or d_model axes, or values that are not real numbers.
    """
    array = np.asarray(states)
    if array.ndim < 2 or 0 in array.shape[-2:]:
        raise InputError(
            f"{name} must have the axes (..., iteration, d_model), neither of them empty; got an "
            f"array of shape {array.shape}."
        )
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name} must hold real numbers; got dtype {array.dtype}.")
    if array.dtype.kind != "f":
        array = array.astype(np.float64)
    leading = array.shape[:-2]
    count = int(np.prod(leading))
    return array.reshape(count, *array.shape[-2:]), leading
