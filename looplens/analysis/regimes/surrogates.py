"""Trajectories that keep the sizes and lose the order, to see what regularity chance brings.

Two null hypotheses, each for the claim that it can refute. An orbit comes back to where it was: its
surrogates keep every distance from the centre of the window and every step size, hence every angle
between successive states about that centre, and turn each step about the state before it by a
random angle. A slider goes straight on: its surrogates keep every step size and lose the
directions. Both live in as many dimensions as the motion itself fills, at most `MOST_DIMENSIONS`:
with more, chance would never come back, and everything would be significant.

The azimuth surrogates follow a public self-audit of work on the geometry of a looped model (norms,
angles to the limit and every angular step kept, only the azimuth random), as summarised in its
text; code not read. Randomised phases of the spectrum are no use for orbits: they keep the spectrum
and with it the period.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from looplens.analysis.algebra.gram import TINY, Floats
from looplens.analysis.regimes.tail import Tail

MOST_DIMENSIONS = 4
SHORT = 48  # states at the end that do unless a period is longer than half: cost grows as n^2
FEWEST_BLOCKS = 5  # whose means show whether a path is straight
# Mean cosine between the directions of successive states from the centre where distances and steps
# leave nothing to turn: on opposite sides of it, or on a line through it.
_ANTIPODAL, _ON_A_LINE = -0.9, 0.9


@lru_cache(maxsize=16)
def _draws(count: int, n: int, dims: int, seed: int) -> Floats:
    """Return normal numbers (surrogate, state, dimension), the same for every trajectory."""
    draws = np.random.default_rng([seed, count, n, dims]).normal(size=(count, n, dims))
    draws.flags.writeable = False
    return draws


@lru_cache(maxsize=16)
def _orders(count: int, n: int, seed: int) -> np.ndarray:
    """Return random orders (surrogate, n)."""
    rng = np.random.default_rng([seed, count, n])
    orders = rng.permuted(np.tile(np.arange(n), (count, 1)), axis=1)
    orders.flags.writeable = False
    return orders


def p_values(tail: Tail, drifting: np.ndarray, *, surrogates: int = 99, seed: int = 0) -> Floats:
    """Return the share of surrogates that are as regular as each trajectory.

    Parameters
    ----------
    tail : Tail
        Windows of b trajectories.
    drifting : ndarray of bool, shape (b,)
        True: the statistic is straightness, ``|sum of steps| / sum of |step|``, of the states and
        of their means over blocks of 2, 4, 8 and 16, the most exceptional of these by its rank.
        False: it is the depth of the dip of recurrence, the least ratio of the mean square
        displacement at a lag to the largest at any smaller lag, over lags 2 to n / 2.
    surrogates : int
        How many; the least p-value is ``1 / (surrogates + 1)``.
    seed : int
        Of the random numbers, which all trajectories share.

    Returns
    -------
    ndarray, shape (b,)
        ``(1 + count) / (1 + surrogates)``. Uniform under its null hypothesis: steps in random
        directions, or random azimuths about the mean of the window, in at most `MOST_DIMENSIONS`
        dimensions. In more of them small values are rarer than that, and so they are of few states
        that turn slowly, whose mean is not the centre that they turn about.

    Notes
    -----
    Means over blocks see a drift under noise that makes up most of each step, or beside a rotation.
    Ranks are taken among the trajectory and its surrogates together, and the least rank of each is
    compared, so that looking at several blocks costs nothing but power.

    Where successive states lie on opposite sides of the centre (alternations), or on a line through
    it, distances and steps already fix the motion and leave no azimuth to turn; those surrogates
    are the same states in a random order.
    """
    from looplens.analysis.regimes import surrogate_kernels as kernels  # see `leftover`

    b, n, _ = tail.gram.shape
    found = np.full(b, np.nan)
    if not surrogates or not b:
        return found
    means = tail.gram.mean(1)
    centred = tail.gram - means[:, :, None] - means[:, None, :] + means.mean(1)[:, None, None]
    step = centred[:, 1:, 1:] + centred[:, :-1, :-1] - centred[:, 1:, :-1] - centred[:, :-1, 1:]
    dims = np.where(drifting, _dimensions(step), _dimensions(centred))
    radius = np.sqrt(np.maximum(np.diagonal(centred, axis1=1, axis2=2), 0.0))
    near = np.diagonal(centred, offset=1, axis1=1, axis2=2)
    cosine = np.clip(near / np.maximum(radius[:, 1:] * radius[:, :-1], TINY), -1.0, 1.0)
    on_a_line = (dims == 1) & (np.abs(cosine).mean(1) > _ON_A_LINE)
    no_azimuth = (cosine.mean(1) < _ANTIPODAL) | on_a_line
    count = np.zeros(b)
    for number in range(1, MOST_DIMENSIONS + 1):
        rows = np.flatnonzero(drifting & (dims == number))
        if len(rows):
            size = np.sqrt(np.maximum(np.diagonal(step[rows], axis1=1, axis2=2), 0.0))
            draws = _draws(surrogates, n - 1, number, seed)
            directions = draws / np.linalg.norm(draws, axis=-1, keepdims=True)
            kernels.straight(
                size, straightness(centred[rows]), directions, part := np.empty(len(rows))
            )
            count[rows] = part
        rows = np.flatnonzero(~drifting & ~no_azimuth & (np.maximum(dims, 2) == number))
        if len(rows):
            draws = _draws(surrogates, n, number, seed)
            kernels.turned(
                centred[rows], radius[rows], cosine[rows], draws, part := np.empty(len(rows))
            )
            count[rows] = part
    rows = np.flatnonzero(~drifting & no_azimuth)
    if len(rows):
        part = np.empty(len(rows))
        kernels.shuffled(centred[rows], _orders(surrogates, n, seed), part)
        count[rows] = part
    return (1 + count) / (1 + surrogates)


def straightness(gram: Floats) -> Floats:
    """Way over path of states and of their means over blocks, (b, n, n) to (b, scale).

    Blocks of 1, 2, 4, 8 and 16 states that end with the last one, while there are
    `FEWEST_BLOCKS` of them.
    """
    b, n, _ = gram.shape
    found = []
    for size in (1, 2, 4, 8, 16):
        blocks = n // size
        if size > 1 and blocks < FEWEST_BLOCKS:
            break
        last = gram[:, n - blocks * size :, n - blocks * size :]
        mean = last.reshape(b, blocks, size, blocks, size).mean((2, 4))
        square = np.diagonal(mean, axis1=1, axis2=2)
        near = np.diagonal(mean, offset=1, axis1=1, axis2=2)
        steps = np.sqrt(np.maximum(square[:, 1:] + square[:, :-1] - 2 * near, 0.0))
        ends = np.sqrt(np.maximum(square[:, 0] + square[:, -1] - 2 * mean[:, 0, -1], 0.0))
        found.append(ends / np.maximum(steps.sum(1), TINY))
    return np.stack(found, axis=1)


def _dimensions(gram: Floats) -> np.ndarray:
    """Participation ratio of the motion, rounded, from 1 to `MOST_DIMENSIONS`."""
    trace = np.trace(gram, axis1=1, axis2=2)
    ratio = trace**2 / np.maximum((gram**2).sum((1, 2)), TINY)
    return np.clip(np.round(ratio), 1, MOST_DIMENSIONS).astype(np.int64)
