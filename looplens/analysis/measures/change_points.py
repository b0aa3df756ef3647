"""Where the pace of a trajectory changes: its log step norm, cut into straight pieces.

A constant rate of contraction is one straight piece, so a change point is an iteration at which the
rate changes or the steps jump. Only the signal is cut: where rounding takes over, no pace is left.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from looplens.analysis.algebra.gram import Floats
from looplens.analysis.algebra.inputs import as_array, real_number
from looplens.errors import InputError

MOST_CHANGES = 4
LEAST_PIECE = 5
_LEAST_NOISE = 0.05  # of log steps: pieces that fit to 5 % fit
_LONGEST = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class ChangePoints:
    """Pieces of the curve of step norms; ``...`` are the leading axes.

    Attributes
    ----------
    n_changes : ndarray, shape (...)
        How many change points, at most four; NaN where the signal has fewer than five steps.
    change_iteration : ndarray, shape (..., change)
        First iteration of each new piece, in order; NaN beyond the last change.
    piece_rate : ndarray, shape (..., piece)
        Factor per iteration by which steps shrink in each piece; NaN beyond the last one.
    noise : ndarray, shape (...)
        Root-mean-square deviation of the log steps from the pieces.
    """

    n_changes: Floats
    change_iteration: Floats
    piece_rate: Floats
    noise: Floats

    def reshaped(self, leading: tuple[int, ...]) -> ChangePoints:
        """Return the same with other leading axes."""
        return dataclasses.replace(
            self,
            n_changes=self.n_changes.reshape(leading),
            change_iteration=self.change_iteration.reshape(*leading, MOST_CHANGES),
            piece_rate=self.piece_rate.reshape(*leading, MOST_CHANGES + 1),
            noise=self.noise.reshape(leading),
        )


def change_points(
    step_norm: ArrayLike, *, signal_end: ArrayLike | None = None, penalty: float = 3.0
) -> ChangePoints:
    """Find the iterations at which the pace of trajectories changes.

    The log step norms of iterations 2..`signal_end` are cut into k straight pieces of at least five
    points with the least sum of squares S_k, exactly, for k = 1..5. The number of pieces is the one
    with the least n log(S_k / n) + penalty (k - 1) 3 log n: a piece more has two numbers for its
    line and one for its place. S_k / n counts as at least 0.05 squared.

    Parameters
    ----------
    step_norm : array_like, shape (..., iteration 1..T)
        Step norms, of any unit.
    signal_end : array_like, shape (...), optional
        Last iteration that is looked at; by default T.
    penalty : float
        What a piece costs; 1 is the Bayesian information criterion for independent noise. Log steps
        are correlated from one iteration to the next, hence more.

    Returns
    -------
    ChangePoints

    Raises
    ------
    InputError
        For a negative penalty, or a `signal_end` of another shape.

    Notes
    -----
    Of more than 256 iterations neighbours are averaged, and a change is known to that grid.

    References
    ----------
    Optimal partitioning: Jackson et al. 2005, IEEE Signal Process. Lett. 12, 105; the criterion:
    Yao 1988, Stat. Probab. Lett. 6, 181 (both from memory, texts not read).
    """
    from looplens.analysis.algebra import segments  # numba takes a while to load

    array = as_array(step_norm, ("iteration",), name="step_norm")
    leading, steps = array.shape[:-1], array.shape[-1]
    size = np.asarray(array, dtype=np.float64).reshape(-1, steps)
    if real_number(penalty, "penalty") < 0:
        raise InputError(f"penalty must not be negative; got {penalty}.")
    end = np.full(len(size), steps) if signal_end is None else _ends(signal_end, leading, steps)
    # A step of exactly zero has no logarithm: nothing after it, or before it, is one pace with it.
    known = np.isfinite(size) & (size > 0)
    known[:, :1] = True  # the way from a random start is not looked at
    whole = known.all(1) | (np.where(known, steps, np.arange(steps)).min(1) >= end)
    end = np.where(whole, end, 0)
    every = -(-steps // _LONGEST)
    series, starts, stops = _thinned(np.log(np.where(known & (size > 0), size, 1.0)), end, every)
    cost = np.empty((len(size), MOST_CHANGES + 1))
    cuts = np.empty((len(size), MOST_CHANGES + 1, MOST_CHANGES + 1), dtype=np.int64)
    segments.best_cuts(series, starts, stops, LEAST_PIECE, cost, cuts)
    return _described(series, starts, stops, cost, cuts, every, penalty).reshaped(leading)


def _ends(values: ArrayLike, leading: tuple[int, ...], steps: int) -> NDArray[np.int64]:
    ends = np.asarray(values, dtype=np.float64)
    if ends.shape != leading:
        raise InputError(
            f"signal_end must have the shape {leading} of the trajectories; got {ends.shape}."
        )
    return np.clip(np.nan_to_num(ends, nan=0.0), 0, steps).astype(np.int64).reshape(-1)


def _thinned(
    logs: Floats, end: NDArray[np.int64], every: int
) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Average neighbours; returns the series without iteration 1, and where it begins and ends."""
    logs, end = logs[:, 1:], np.maximum(end - 1, 0)
    count = logs.shape[1] // every
    series = logs[:, : count * every].reshape(len(logs), count, every).mean(-1)
    stops = np.minimum(end // every, count)
    return np.ascontiguousarray(series), np.zeros(len(logs), dtype=np.int64), stops


def _described(
    series: Floats,
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    cost: Floats,
    cuts: NDArray[np.int64],
    every: int,
    penalty: float,
) -> ChangePoints:
    """Choose the number of pieces, and say where and how steep they are."""
    count = len(series)
    points = np.maximum(stops - starts, 1).astype(np.float64)[:, None]
    pieces = np.arange(MOST_CHANGES + 1)
    variance = np.maximum(cost / points, _LEAST_NOISE**2)
    score = points * np.log(variance) + penalty * 3.0 * pieces * np.log(points)
    known = np.isfinite(cost[:, 0])
    chosen = np.where(known, score.argmin(1), 0)
    here = np.arange(count)
    first = cuts[here, chosen]
    change = np.full((count, MOST_CHANGES), np.nan)
    rate = np.full((count, MOST_CHANGES + 1), np.nan)
    for piece in range(MOST_CHANGES + 1):
        there = known & (chosen >= piece)
        stop = np.where(chosen == piece, stops, first[:, min(piece + 1, MOST_CHANGES)])
        rate[there, piece] = _rates(series, first[:, piece], stop, there, every)
        if piece:
            change[there, piece - 1] = first[there, piece] * every + 2.0
    return ChangePoints(
        n_changes=np.where(known, chosen.astype(np.float64), np.nan),
        change_iteration=change,
        piece_rate=rate,
        noise=np.where(
            known, np.sqrt(np.where(known, cost[here, chosen], 0) / points[:, 0]), np.nan
        ),
    )


def _rates(
    series: Floats,
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    there: NDArray[np.bool_],
    every: int,
) -> Floats:
    """Exponentials of the slopes per iteration of the pieces start..stop of some rows."""
    place = np.arange(series.shape[1])
    inside = (place >= start[there, None]) & (place < stop[there, None])
    count = inside.sum(1)
    middle = (inside * place).sum(1) / count
    time = np.where(inside, place - middle[:, None], 0.0)
    return np.exp((time * series[there]).sum(1) / (time**2).sum(1) / every)
