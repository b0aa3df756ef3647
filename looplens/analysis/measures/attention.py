"""How much attention patterns still change from one iteration to the next, and when they settle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from looplens.analysis.algebra.gram import Floats
from looplens.analysis.algebra.inputs import as_array, real_number
from looplens.analysis.algebra.trajectories import tail_points
from looplens.analysis.measures.convergence import array_rounding, settling_iteration, signal_rate
from looplens.errors import InputError

_AXES = ("iteration", "head", "query", "key")


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionSettling:
    """What `attention_settling` measures; ``...`` are the leading axes, T the iterations.

    All distances are total variations between two maps: half the sum of absolute differences over
    keys, mean over queries, between 0 and 1.

    Attributes
    ----------
    change : ndarray, shape (..., T - 1, head)
        Distance between the maps of successive iterations; entry i is of iteration i + 2.
    distance_to_limit : ndarray, shape (..., T, head)
        Distance to the limit, the mean map of the last quarter of the iterations.
    settling_iteration : ndarray, shape (..., head)
        First iteration from which on the distance to the limit is below the tolerance; NaN when the
        last one is not.
    rate : ndarray, shape (..., head)
        Factor by which the change shrinks in an iteration, fitted on the signal only, from
        iteration 3 to `signal_end`; NaN for fewer than three points.
    floor : ndarray, shape (..., head)
        Median change over the last quarter.
    signal_end : ndarray, shape (..., head)
        Last iteration whose change exceeds three times the floor; T if there is none.
    tolerance : float
        What distances to the limit were compared with.
    """

    change: Floats
    distance_to_limit: Floats
    settling_iteration: Floats
    rate: Floats
    floor: Floats
    signal_end: Floats
    tolerance: float


def attention_change(patterns: ArrayLike) -> Floats:
    """Total variation between attention patterns of successive iterations.

    Parameters
    ----------
    patterns : array_like, shape (..., iteration, head, query, key)
        Attention weights; each row over keys sums to 1.

    Returns
    -------
    ndarray, shape (..., iteration - 1, head)
        Half the sum of absolute differences over keys, mean over queries: 0 for the same pattern, 1
        for patterns without a key in common. Entry i compares iterations i + 1 and i + 2.

    Raises
    ------
    InputError
        For fewer than four axes, an empty one of them, or values that are not real numbers.

    References
    ----------
    What bounds it by the change of the states: Blayney et al. 2026, arXiv:2604.11791, proposition
    4.2; see `attention_bound`.
    """
    array = as_array(patterns, _AXES, name="patterns")
    iterations = array.shape[-4]
    change = np.empty((*array.shape[:-4], iterations - 1, array.shape[-3]))
    for step in range(iterations - 1):  # one at a time: patterns are the largest arrays of a run
        before = array[..., step, :, :, :].astype(np.float64)
        after = array[..., step + 1, :, :, :].astype(np.float64)
        change[..., step, :] = _total_variation(before, after)
    return change


def attention_settling(
    patterns: ArrayLike, *, tolerance: float = 1e-2, rounding: float | None = None
) -> AttentionSettling:
    """Measure when and how fast the attention of every head settles.

    Parameters
    ----------
    patterns : array_like, shape (..., iteration 1..T, head, query, key)
        Attention weights; each row over keys sums to 1.
    tolerance : float
        Total variation from the limit under which a head counts as settled, between 0 and 1.
    rounding : float, optional
        Change that rounding alone shows; by default that of the dtype of the patterns.

    Returns
    -------
    AttentionSettling
        NaN for heads whose maps are not finite.

    Raises
    ------
    InputError
        For fewer than two iterations, fewer than four axes, or a tolerance that is not positive.

    References
    ----------
    Distance of attention to an approximate fixed point: Blayney et al. 2026, arXiv:2604.11791,
    figures 4, 22 and 23, as summarised in public notes; paper text not read. There the Frobenius
    norm and the last state instead of total variation and a mean.
    """
    array = as_array(patterns, _AXES, name="patterns")
    iterations, heads = array.shape[-4:-2]
    if iterations < 2:
        raise InputError(f"Settling needs at least two iterations; got {iterations}.")
    if real_number(tolerance, "tolerance") <= 0:
        raise InputError(f"tolerance must be positive; got {tolerance}.")
    change = attention_change(array)
    limit = array[..., -tail_points(iterations) :, :, :, :].mean(-4, dtype=np.float64)
    away = np.empty((*array.shape[:-4], iterations, heads))
    for step in range(iterations):
        away[..., step, :] = _total_variation(array[..., step, :, :, :].astype(np.float64), limit)
    series = np.moveaxis(change, -2, -1)  # (..., head, iteration)
    flat = series.reshape(-1, iterations - 1)
    known = np.asarray(np.isfinite(flat).all(1))
    floor = np.where(known, np.median(flat[:, -tail_points(iterations - 1) :], axis=1), np.nan)
    least = array_rounding(array.dtype) if rounding is None else rounding
    end, rate = signal_rate(np.where(known[:, None], flat, 0.0), np.full(len(flat), least))
    leading = series.shape[:-1]
    return AttentionSettling(
        change=change,
        distance_to_limit=away,
        settling_iteration=settling_iteration(np.moveaxis(away, -2, -1), tolerance),
        rate=np.where(known, rate, np.nan).reshape(leading),
        floor=floor.reshape(leading),
        signal_end=np.where(known, end + 1.0, np.nan).reshape(leading),
        tolerance=float(tolerance),
    )


def _total_variation(one: NDArray[np.floating], other: NDArray[np.floating]) -> Floats:
    """Half the absolute differences over keys, mean over queries: (..., head)."""
    with np.errstate(invalid="ignore"):  # of maps that are not finite
        return 0.5 * np.abs(one - other).sum(-1).mean(-1)
