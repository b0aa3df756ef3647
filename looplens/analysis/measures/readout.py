"""What predictions do over the iterations: when they settle, how often they flip, what is lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from looplens.analysis.algebra.gram import Floats
from looplens.errors import InputError


def prediction_flips(predicted: ArrayLike) -> NDArray[np.int64]:
    """Count how often the best token changes from one iteration to the next.

    Parameters
    ----------
    predicted : array_like of int, shape (..., iteration)
        The token predicted after each iteration; `carried` where not all of them ran.

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


def carried(values: ArrayLike, predicted: ArrayLike) -> NDArray[Any]:
    """Carry what belongs to the last prediction on to the iterations that did not run.

    A model that leaves the loop by itself, asked for more iterations, answers what it left with.

    Parameters
    ----------
    values : array_like, shape (..., iteration)
        Such as the rank of the target.
    predicted : array_like of int, shape (..., iteration)
        The token predicted after each iteration; negative where there is none.

    Returns
    -------
    ndarray, shape (..., iteration)
        `values`, unchanged up to the last iteration with a prediction.
    """
    known = np.greater_equal(_checked(predicted), 0)
    length = known.shape[-1]
    last = length - 1 - known[..., ::-1].argmax(-1)
    place = np.minimum(np.arange(length), last[..., None])
    return np.take_along_axis(np.asarray(values), place, axis=-1)


def agreement_matrix(predicted: ArrayLike) -> Floats:
    """Share of trajectories that predict the same token at two iterations.

    ``A[i, j]`` is the mean of ``predicted_i == predicted_j``: the matrix of Zhu et al. [1]_, as a
    share of the trajectories and not a count.

    Parameters
    ----------
    predicted : array_like of int, shape (..., iteration)
        The token predicted after each iteration; negative where there is none.

    Returns
    -------
    ndarray of float64, shape (iteration, iteration)
        Symmetric, 1 on the diagonal; NaN where no trajectory predicts at both.

    References
    ----------
    .. [1] Zhu et al., arXiv:2510.25741 (agreement of predictions between steps; counts as
       summarised elsewhere).
    """
    return _share(*agreement_counts(predicted))


def agreement_counts(
    predicted: ArrayLike,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the trajectories that agree at two iterations, and those that predict at both.

    Each has shape (iteration, iteration). Counts of parts of a run can be added.
    """
    rows = _checked(predicted)
    rows = rows.reshape(-1, rows.shape[-1]).T  # iteration trajectory
    known = np.greater_equal(rows, 0)
    equal = np.empty((len(rows), len(rows)), dtype=np.int64)
    pairs = np.empty_like(equal)
    for t, row in enumerate(rows):
        equal[t] = ((rows == row) & known).sum(1)
        pairs[t] = (known & known[t]).sum(1)
    return equal, pairs


def _share(equal: NDArray[np.int64], pairs: NDArray[np.int64]) -> Floats:
    return np.divide(equal, pairs, out=np.full(equal.shape, np.nan), where=pairs > 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Overthinking:
    """How much of what was right is lost by going on.

    Attributes
    ----------
    score : ndarray, shape (...)
        Best accuracy over the iterations less the accuracy at the last one.
    best : ndarray, shape (...)
        The best accuracy.
    best_iteration : ndarray of int, shape (...)
        The first iteration that has it, from 1.
    final : ndarray, shape (...)
        The accuracy at the last iteration.
    """

    score: Floats
    best: Floats
    best_iteration: NDArray[np.int64]
    final: Floats


def overthinking(accuracy: ArrayLike) -> Overthinking:
    r"""Measure settling on an answer and losing it again.

    :math:`\max_t a_t - a_T`, for each curve; the ``overthink`` of a run is the largest over its
    tiers of difficulty [1]_.

    Parameters
    ----------
    accuracy : array_like, shape (..., iteration)
        Share of right answers after each iteration, of one group of tokens a row.

    References
    ----------
    .. [1] Viakhirev et al., arXiv:2608.18222 (worst tier of best exact match over depth less that
       at the last depth; as summarised elsewhere, paper text not read).
    """
    curve = np.asarray(accuracy, dtype=np.float64)
    if curve.ndim < 1 or curve.shape[-1] == 0:
        raise InputError(
            f"Accuracy needs a last axis of iterations; got an array of shape {curve.shape}."
        )
    best = curve.max(-1)
    return Overthinking(
        score=best - curve[..., -1],
        best=best,
        best_iteration=curve.argmax(-1) + 1,
        final=curve[..., -1],
    )


def last_right(correct: ArrayLike) -> Floats:
    """Last iteration with a right answer, where the answer at the end is wrong.

    Parameters
    ----------
    correct : array_like of bool, shape (..., iteration)
        Whether the answer after each iteration is right.

    Returns
    -------
    ndarray of float64, shape (...)
        From 1; NaN where the answer is right at the end, or never was.
    """
    right = _checked(correct).astype(bool)
    length = right.shape[-1]
    last = length - right[..., ::-1].argmax(-1)
    return np.where(right.any(-1) & ~right[..., -1], last, np.nan)


def _checked(predicted: ArrayLike) -> NDArray[np.generic]:
    array = np.asarray(predicted)
    if array.ndim < 1 or array.shape[-1] == 0:
        raise InputError(
            f"Predictions need a last axis of iterations; got an array of shape {array.shape}."
        )
    return array
