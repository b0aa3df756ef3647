"""How fast the distance between two trajectories of the same input shrinks or grows.

One trajectory's distance to its own end shrinks whether or not the map contracts, so a rate of
contraction needs two. Knows nothing of restarts or tokens: it fits rows of distances.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from looplens.analysis.algebra.gram import TINY, Floats
from looplens.analysis.algebra.trajectories import tail_points

FLOOR_MULTIPLE = 3.0
FEWEST_POINTS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class GapDecay:
    """Fits of log distance against the iteration; b rows.

    Attributes
    ----------
    slope : ndarray, shape (b,)
        Slope of log distance per iteration: the rate is its exponential. NaN with fewer than three
        points.
    error : ndarray, shape (b,)
        Standard error of the slope, from the scatter about the line; successive distances are not
        independent, so it is a lower bound.
    end : ndarray, shape (b,)
        Last iteration of the fit; NaN without one.
    """

    slope: Floats
    error: Floats
    end: Floats


def gap_decay(distance: Floats, rounding: Floats) -> GapDecay:
    """Fit the leading run of distances that a floor does not touch.

    The floor is the median of the last quarter, at least rounding. The run begins at iteration 1
    and goes on while distances exceed three times the floor (or, for a gap that opens, while they
    are below a third of it). Where no distance leaves that band there is no floor to keep away
    from, and all are used.

    Parameters
    ----------
    distance : ndarray, shape (b, iteration 0..T)
        Distances between two trajectories, in the units of the states: divided by a growing norm,
        they would shrink without any contraction.
    rounding : ndarray, shape (b,)
        Distance that rounding alone shows.

    Returns
    -------
    GapDecay
        NaN where the gap falls to its floor within three iterations, or never leaves rounding.

    References
    ----------
    Rules 2 and 5 of a public self-audit of measurements on the model of Geiping et al. 2025,
    arXiv:2502.05171 (repository Geometry-of-Reasoning-Trajectories).
    """
    count, length = distance.shape
    floor = np.maximum(np.median(distance[:, -tail_points(length) :], axis=1), rounding)[:, None]
    noise = FLOOR_MULTIPLE * rounding[:, None]
    above, below = distance > FLOOR_MULTIPLE * floor, distance * FLOOR_MULTIPLE < floor
    below &= distance > rounding[:, None]
    used = np.zeros((count, length), dtype=bool)
    if length > 1:
        first = np.where(above[:, 1], 1, np.where(below[:, 1], -1, 0))[:, None]
        same = np.where(first == 1, above, below)[:, 1:]
        used[:, 1:] = np.logical_and.accumulate(same, axis=1) & (first != 0)
        flat = (first == 0) & ~above[:, :1] & ~(distance <= noise).all(1, keepdims=True)
        used[:, 1:] |= flat & (distance[:, 1:] > 0)
    weight = used.astype(np.float64)
    points = weight.sum(1)
    safe = np.maximum(points, 1.0)[:, None]
    iteration = np.arange(length)
    logs = np.log(np.where(used, distance, 1.0))
    time = iteration - (weight * iteration).sum(1, keepdims=True) / safe
    value = weight * (logs - (weight * logs).sum(1, keepdims=True) / safe)
    spread = np.maximum((weight * time**2).sum(1), TINY)
    slope = (time * value).sum(1) / spread
    residual = (weight * (value - slope[:, None] * time) ** 2).sum(1)
    error = np.sqrt(residual / np.maximum(points - 2, 1.0) / spread)
    known = points >= FEWEST_POINTS
    last = length - 1 - used[:, ::-1].argmax(1)
    return GapDecay(
        slope=np.where(known, slope, np.nan),
        error=np.where(known, error, np.nan),
        end=np.where(known, last, np.nan),
    )


def over_pairs(fits: list[GapDecay]) -> tuple[Floats, Floats, Floats]:
    """Combine the fits of all pairs of restarts.

    Returns
    -------
    rate : ndarray, shape (b,)
        Exponential of the mean slope of the pairs that have one.
    error : ndarray, shape (b,)
        Of the rate: the standard error of a pair and the scatter between pairs, added in squares.
        Pairs share restarts, so it is not divided by their number.
    end : ndarray, shape (b,)
        Median last iteration of the fits.
    """
    slopes, errors, ends = (
        np.ma.masked_invalid([getattr(fit, name) for fit in fits])
        for name in ("slope", "error", "end")
    )
    rate = np.ma.exp(slopes.mean(0))
    error = rate * np.ma.sqrt((errors**2).mean(0) + slopes.var(0))
    end = np.ma.median(ends, axis=0)
    return tuple(np.ma.filled(found, np.nan) for found in (rate, error, end))  # type: ignore[return-value]
