"""Whether a path comes back to where it was: recurrences, closest return, dominant frequency.

All of it follows from the distances between pairs of states in a window at the end of the record.
Judges no regime: `classify` does, with the same window and more care.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from looplens.analysis.algebra.gram import TINY, Floats, lag_sums, polynomials, project_out
from looplens.analysis.algebra.inputs import real_number
from looplens.analysis.algebra.moments import moments_of
from looplens.analysis.algebra.products import Moments
from looplens.analysis.algebra.trajectories import as_trajectories, tail_points
from looplens.analysis.measures.steps import known_rounding
from looplens.analysis.regimes.thresholds import resting_spread
from looplens.errors import InputError

NUMBERS = (
    "recurrence_rate",
    "determinism",
    "closest_return",
    "extent",
    "frequency",
    "frequency_share",
)
LEAST_LAG, LEAST_LINE = 4, 3
_SHORTEST, _LONGEST = 16, 128
_TURNS = 2.0
_STRAIGHT = 1e-7
_FINER = 8  # points of the spectrum for each one that the window resolves


@dataclass(frozen=True, kw_only=True, slots=True)
class Recurrence:
    """What `recurrence` measures in the last half of a record; ``...`` are the leading axes.

    All are NaN where the last quarter of the record stays within rounding of the last state: 50
    rounding steps of the dtype, at most 1 % of the norm.

    Attributes
    ----------
    recurrence_rate : ndarray, shape (...)
        Share of the pairs of states, at least four iterations apart, that are nearer to each other
        than `radius` times the largest distance in the window.
    determinism : ndarray, shape (...)
        Share of these that lie on diagonal lines of at least three; NaN where there are none.
    closest_return : ndarray, shape (...)
        Least chord over arc of pairs at least four iterations apart: 0 on a closed orbit, 1 on a
        straight line, about one over the root of the length for a random walk.
    extent : ndarray, shape (...)
        Largest distance in the window over the norm of the last state; NaN where that is zero.
    frequency : ndarray, shape (...)
        Dominant frequency after removing a straight line, in turns per iteration (at most 1/2); NaN
        with fewer than two turns in the window, and on a straight line.
    frequency_share : ndarray, shape (...)
        Share of the variance about that line which a sine wave of the dominant frequency has, also
        where that has fewer than two turns.
    window : int
        States looked at.
    """

    recurrence_rate: Floats
    determinism: Floats
    closest_return: Floats
    extent: Floats
    frequency: Floats
    frequency_share: Floats
    window: int

    def reshaped(self, leading: tuple[int, ...]) -> Recurrence:
        """Return the same with other leading axes."""
        return dataclasses.replace(
            self, **{name: getattr(self, name).reshape(leading) for name in NUMBERS}
        )


def recurrence(
    states: ArrayLike, *, radius: float = 0.1, rounding: float | None = None
) -> Recurrence:
    """Measure how trajectories come back to themselves.

    Parameters
    ----------
    states : array_like, shape (..., iteration, d_model)
        States; leave out the random start.
    radius : float
        Share of the largest distance in the window under which two states count as the same.
    rounding : float, optional
        Relative step that rounding alone shows; by default that of the dtype of the array.

    Returns
    -------
    Recurrence

    Raises
    ------
    InputError
        For fewer than 16 states, or a radius outside (0, 1).

    References
    ----------
    Recurrence plots: Eckmann, Kamphorst and Ruelle 1987, Europhys. Lett. 4, 973; rate and
    determinism: Marwan et al. 2007, Phys. Rep. 438, 237 (both from memory, texts not read).
    Chord over arc of pairs more than three iterations apart, and power of the trajectory summed
    over its dimensions: public self-audit of measurements on Huginn.
    """
    flat, leading = as_trajectories(states)
    count, length, _ = flat.shape
    if length < _SHORTEST:
        raise InputError(f"Recurrences need at least {_SHORTEST} states; got {length}.")
    check_radius(radius)
    smallest = known_rounding(flat.dtype, rounding)
    points = recurrence_points(length)
    return recurrence_of(moments_of(flat, points=points), count, points, radius, smallest).reshaped(
        leading
    )


def check_radius(radius: float) -> None:
    """Raise `InputError` unless the radius lies between 0 and 1."""
    if not 0 < real_number(radius, "recurrence radius") < 1:
        raise InputError(f"The recurrence radius must lie between 0 and 1; got {radius}.")


def recurrence_points(length: int) -> int:
    """Return how many states the window of a record of this length has: half, 16 to 128."""
    return min(max(length // 2, _SHORTEST), length, _LONGEST)


def recurrence_of(
    parts: list[Moments], count: int, points: int, radius: float, rounding: float
) -> Recurrence:
    """Measure returns from products with a window of at least `points` states."""
    from looplens.analysis.algebra import pairs  # numba takes a while to load

    numbers = {name: np.full(count, np.nan) for name in NUMBERS}
    for part in parts:
        assert part.tail is not None
        norm = np.sqrt(part.norm2[:, -1])
        size = np.sqrt(part.step2)
        # A window that only rounds has structure too, but none of the model's. Steps would not
        # tell: a state that dwells in each of two places makes few.
        away2 = part.from_last2[:, -tail_points(part.from_last2.shape[1]) - 1 :].max(1)
        moves = np.sqrt(away2) > resting_spread(rounding) * norm
        if not moves.any():
            continue
        rows = part.rows[moves]
        along = np.ascontiguousarray(part.tail.along[moves, -points:])
        across = np.ascontiguousarray(part.tail.across[moves, -points:, -points:])
        path = np.zeros((len(rows), points))
        path[:, 1:] = np.cumsum(size[moves, 1 - points :], axis=1)
        found = np.empty((len(rows), 4))
        pairs.returns(across, along, path, radius, LEAST_LAG, LEAST_LINE, found)
        last = np.where(norm[moves] > 0, norm[moves], np.nan)
        numbers["extent"][rows] = np.sqrt(found[:, 0]) / last
        for column, name in enumerate(NUMBERS[:3], start=1):
            numbers[name][rows] = found[:, column]
        gram = across + along[:, :, None] * along[:, None, :]
        numbers["frequency"][rows], numbers["frequency_share"][rows] = _dominant(gram)
    return Recurrence(**numbers, window=points)


def dominant_frequency(states: ArrayLike) -> tuple[Floats, Floats]:
    """Frequency at which trajectories have most power, and the share of the variance there.

    Of all states given, about the straight line in time that fits them best; the power is summed
    over the dimensions, P(f) = |sum over t of s_t exp(-2 pi i f t)|^2.

    Parameters
    ----------
    states : array_like, shape (..., iteration, d_model)
        At least eight states, without the transient.

    Returns
    -------
    frequency : ndarray, shape (...)
        Turns per iteration, at most 1/2; NaN with fewer than two turns.
    share : ndarray, shape (...)
        Share of the variance that a sine wave of that frequency has. Both are NaN for trajectories
        that are not finite.

    Raises
    ------
    InputError
        For fewer than eight states.
    """
    flat, leading = as_trajectories(states)
    if flat.shape[1] < 8:
        raise InputError(f"A frequency needs at least eight states; got {flat.shape[1]}.")
    known = np.isfinite(flat).all((1, 2))
    states64 = np.where(known[:, None, None], flat, 0.0).astype(np.float64)
    centred = states64 - states64.mean(axis=1, keepdims=True)
    found = _dominant(centred @ np.swapaxes(centred, 1, 2))
    frequency, share = (np.where(known, values, np.nan) for values in found)
    return frequency.reshape(leading), share.reshape(leading)


def _dominant(gram: Floats) -> tuple[Floats, Floats]:
    """Dominant frequency and its share from Gram matrices (b, n, n), about a straight line."""
    n = gram.shape[-1]
    sums = lag_sums(project_out(gram, polynomials(n, 1)))
    points = _FINER * n
    # The Gram matrix holds the power: it is the Fourier sum of the sums along its diagonals.
    power = 2.0 * np.fft.rfft(sums, points, axis=1).real - sums[:, :1]
    frequencies = np.arange(power.shape[1]) / points
    power[:, frequencies < 0.5 / n] = 0.0
    peak = power.argmax(1)
    here = np.arange(len(peak))
    left, right = (
        power[here, np.maximum(peak - 1, 0)],
        power[here, np.minimum(peak + 1, points // 2)],
    )
    top = power[here, peak]
    bend = left - 2 * top + right
    shift = np.where(bend < 0, 0.5 * (left - right) / np.where(bend < 0, bend, -1.0), 0.0)
    shift = np.where(peak == points // 2, 0.0, shift)
    frequency = (peak + shift) / points
    # Near 1/2 a cosine is all there is; elsewhere a sine has as much.
    both = np.where(frequency > 0.5 - 0.5 / n, 1.0, 2.0)
    total = np.maximum(sums[:, 0], TINY)
    share = np.minimum(both * top / (n * total), 1.0)
    # What a straight line leaves of itself is rounding of the products.
    straight = sums[:, 0] <= _STRAIGHT * np.trace(gram, axis1=1, axis2=2)
    turns = (frequency * n >= _TURNS) & ~straight
    return np.where(turns, frequency, np.nan), np.where(straight, np.nan, share)


def recurrence_matrix(states: ArrayLike) -> NDArray[np.float64]:
    """Distances between all pairs of states of trajectories.

    Parameters
    ----------
    states : array_like, shape (..., iteration, d_model)
        States.

    Returns
    -------
    ndarray, shape (..., iteration, iteration)
        |s_i - s_j|; the thresholded matrix is a recurrence plot. NaN where one is not finite.
    """
    flat, leading = as_trajectories(states)
    known = np.isfinite(flat).all(2)
    states64 = np.where(known[:, :, None], flat, 0.0).astype(np.float64)
    centred = states64 - states64[:, -1:]
    gram = centred @ np.swapaxes(centred, 1, 2)
    own = np.diagonal(gram, axis1=1, axis2=2)
    square = own[:, :, None] + own[:, None, :] - 2 * gram
    distance = np.sqrt(np.maximum(square, 0.0))
    distance[:, np.arange(flat.shape[1]), np.arange(flat.shape[1])] = 0.0
    distance[~(known[:, :, None] & known[:, None, :])] = np.nan
    return distance.reshape(*leading, *distance.shape[1:])
