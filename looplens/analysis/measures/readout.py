"""What predictions do over the iterations: when they stop changing, and how often they flip."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from looplens.analysis.algebra.gram import Floats
from looplens.errors import InputError


def prediction_flips(predicted: ArrayLike) -> NDArray[np.int64]:
    """Count how often the best token changes from one iteration to the next.

    Parameters
    ----------
    predicted : array_like of int, shape (..., iteration)
        The token predicted after each iteration.

    Returns
    -------
    ndarray of int, shape (...)
    """
    array = _checked(predicted)
    return (array[..., 1:] != array[..., :-1]).sum(-1)


def prediction_settling(predicted: ArrayLike) -> Floats:
    """First iteration from which the predicted token is the last one for good.

    Parameters
    ----------
    predicted : array_like of int, shape (..., iteration)
        The token predicted after each iteration, the first of which is iteration 1.

    Returns
    -------
    ndarray of float64, shape (...)
        From 1 to T; T when the last iteration still changed the prediction.
    """
    array = _checked(predicted)
    different = array != array[..., -1:]
    iterations = array.shape[-1]
    last = np.where(different.any(-1), iterations - different[..., ::-1].argmax(-1), 0)
    return last + 1.0


def _checked(predicted: ArrayLike) -> NDArray[np.generic]:
    array = np.asarray(predicted)
    if array.ndim < 1 or array.shape[-1] == 0:
        raise InputError(
            f"Predictions need a last axis of iterations; got an array of shape {array.shape}."
        )
    return array
