"""By how many iterations one trajectory is ahead of another on the same orbit.

Knows nothing of basins: who is compared with whom is given.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from looplens.analysis.algebra.gram import TINY, Floats

COMES_BACK = 0.5  # autocorrelation that a motion must fall below, and rise above again
AS_GOOD = 0.95  # of the best shift: of such ones the smallest is reported


def phases(points: Floats, leader: NDArray[np.int64], floor: float) -> Floats:
    r"""Find the shifts at which trajectories match the ones that they are compared with.

    With a and b centred on their own means, y(k) is the sum of :math:`a_{t+k} \cdot b_t` over t,
    divided by the root of the sums of squares of the same states, so that an amplitude that still
    changes does not count. The shift is the smallest k at which y is a maximum (within 5 % of the
    best), refined by the sine wave through :math:`y(k-1), y(k), y(k+1)`.

    Parameters
    ----------
    points : ndarray, shape (b, restart, point, d_model)
        States.
    leader : ndarray of int, shape (b, restart)
        Restart that each is compared with.
    floor : float
        Root mean square of a motion that is none.

    Returns
    -------
    ndarray, shape (b, restart)
        Iterations ahead (negative: behind); 0 for a leader. NaN where either does not move, does
        not come back to where it was within half of the points, or they do not match at all.
    """
    count, restarts, length, _ = points.shape
    shift = np.full((count, restarts), np.nan)
    points = points - points.mean(2, keepdims=True)
    energy = np.vecdot(points, points).mean(2)
    rows = np.flatnonzero((energy > floor**2).any(1))
    if not rows.size or length < 4:
        return shift
    points, leader, energy = points[rows], leader[rows], energy[rows]
    own = points @ np.swapaxes(points, -1, -2)
    moving = (energy > floor**2) & _returns(own)
    tokens, members = np.nonzero(moving & np.take_along_axis(moving, leader, 1))
    if not tokens.size:
        return shift
    leaders = leader[tokens, members]
    cross = points[tokens, leaders] @ np.swapaxes(points[tokens, members], -1, -2)
    most = length // 2
    lags = np.arange(-most - 1, most + 2)
    squares = np.vecdot(points, points)
    ahead, behind = squares[tokens, leaders], squares[tokens, members]
    match = np.stack([_match(cross, ahead, behind, lag) for lag in lags], axis=1)
    shift[rows[tokens], members] = np.where(leaders == members, 0.0, _best(match, lags))
    return shift


def _match(cross: Floats, ahead: Floats, behind: Floats, lag: int) -> Floats:
    """Cosine of a_{t + lag} and b_t, all t together.

    From the products cross[..., i, j] = a_i . b_j, |a|^2 (..., i) and |b|^2 (..., j).
    """
    length = cross.shape[-1]
    one, other = ahead[..., max(lag, 0) : length + min(lag, 0)], behind[..., max(-lag, 0) :]
    size = np.sqrt(one.sum(-1) * other[..., : one.shape[-1]].sum(-1))
    return np.trace(cross, offset=-lag, axis1=-2, axis2=-1) / np.maximum(size, TINY)


def _returns(own: Floats) -> NDArray[np.bool_]:
    """Whether the autocorrelation falls, and rises again, within half of the points."""
    squares = np.einsum("...ii->...i", own)
    lags = range(1, own.shape[-1] // 2 + 1)
    curve = np.stack([_match(own, squares, squares, lag) for lag in lags], axis=-1)
    fallen = np.logical_or.accumulate(curve < COMES_BACK, axis=-1)
    return np.asarray((fallen & (curve > COMES_BACK)).any(-1))


def _best(match: Floats, lags: NDArray[np.int64]) -> Floats:
    """Shift of the smallest lag at a maximum that is as good as any; match (row, lag)."""
    peak, before, after = match[:, 1:-1], match[:, :-2], match[:, 2:]
    # For y(k) = A cos(w (k - x)): y(-1) + y(1) = 2 cos(w) y(0), y(1) - y(-1) = 2 sin(w) A sin(w x).
    cosine = np.clip((before + after) / np.where(peak > 0, 2 * peak, np.inf), -1.0, 1.0)
    sine = np.sqrt(1 - cosine**2)
    angle = np.arctan2(after - before, 2 * peak * sine)
    turn = np.arccos(cosine)
    fine = np.where(sine > 1e-3, angle / np.maximum(turn, TINY), 0.0)
    # An orbit of few states need not be a sine wave; a maximum is off by half a step at the most.
    fine = np.clip(fine, -0.5, 0.5)
    # Maxima are compared between the samples: one may lie on a sample, and another half way.
    height = peak / np.maximum(np.cos(fine * turn), 0.5)
    top = height.max(1, keepdims=True)
    good = (peak >= before) & (peak >= after) & (height >= AS_GOOD * top) & (top > COMES_BACK)
    shift = lags[1:-1] + fine
    # Of k and -k the positive one, so that an orbit of period two is one ahead.
    size = np.where(good, np.abs(shift - 0.01), np.inf)
    chosen = size.argmin(1)
    found = np.take_along_axis(shift, chosen[:, None], 1)[:, 0]
    return np.where(good.any(1), found + 0.0, np.nan)
