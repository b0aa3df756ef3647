"""Checks of what the array functions are given: arrays with named last axes, and numbers.

The one place that knows which containers and dtypes are taken. Knows nothing of what is computed.
"""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from looplens.errors import InputError


def as_array(
    values: ArrayLike, axes: tuple[str, ...], *, name: str = "states", first: str | None = None
) -> NDArray[np.floating]:
    """Return values as an array of a floating dtype with the last axes that are asked for.

    Parameters
    ----------
    values : array_like
        Anything that numpy takes, and tensors of other libraries, bfloat16 among them.
    axes : tuple of str
        What the last axes are called. None of them may be empty.
    name : str
        What the values are called in a message.
    first : str, optional
        An axis before all others, which has to be there and not be empty either.

    Raises
    ------
    InputError
        For too few axes, an empty one of those named, or values that are not real numbers.
    """
    array = _real(values, name)
    lead = () if first is None else (first,)
    required = (*array.shape[: len(lead)], *array.shape[-len(axes) :])
    if array.ndim < len(lead) + len(axes) or 0 in required:
        expected = ", ".join((*lead, "...", *axes))
        raise InputError(
            f"{name} must have the axes ({expected}), none of those named empty; got an array of "
            f"shape {array.shape}."
        )
    return array


def _real(values: Any, name: str) -> NDArray[np.floating]:
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        if not hasattr(values, "detach"):
            raise InputError(f"{name} must be an array of real numbers; {error}.") from error
        # A tensor that numpy does not read by itself: bfloat16, on a device, or with a gradient.
        array = _of_tensor(values, name)
    if array.dtype.name == "bfloat16":  # numpy knows this dtype only by the name it is given
        array = array.astype(np.float32)
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name} must hold real numbers; got dtype {array.dtype}.")
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def _of_tensor(tensor: Any, name: str) -> NDArray[Any]:
    tensor = tensor.detach().cpu()
    try:
        return np.asarray(tensor)
    except TypeError:
        pass
    try:
        return np.asarray(tensor.double())
    except TypeError as error:
        raise InputError(
            f"{name} must hold real numbers; got a tensor of dtype {tensor.dtype}."
        ) from error


def real_number(value: Any, name: str) -> float:
    """Return a finite number, or raise `InputError` naming the parameter."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise InputError(f"{name} must be a finite number; got {value!r}.")
    return float(value)


def whole_number(value: Any, name: str, *, least: int) -> int:
    """Return an integer of at least `least`, or raise `InputError` naming the parameter."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}; got {value!r}.")
    return int(value)
