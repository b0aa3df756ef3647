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
_ANTIPODAL = -0.9  # mean cosine of successive states about the centre: nothing is left to turn


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
        True: the statistic is straightness, ``|sum of steps| / sum of |step|``. False: it is the
        depth of the dip of recurrence, the least ratio of the mean square displacement at a lag to
        the largest at any smaller lag, over lags 2 to n / 2.
    surrogates : int
        How many; the least p-value is ``1 / (surrogates + 1)``.
    seed : int
        Of the random numbers, which all trajectories share.

    Returns
    -------
    ndarray, shape (b,)
        ``(1 + count) / (1 + surrogates)``. Uniform under the null hypothesis.

    Notes
    -----
    Where successive states lie on opposite sides of the centre (alternations), distances and steps
    already fix the motion and leave no azimuth to turn; those surrogates are the same states in a
    random order.
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
    antipodal = ~drifting & (cosine.mean(1) < _ANTIPODAL)
    count = np.zeros(b)
    for number in range(2, MOST_DIMENSIONS + 1):
        draws = _draws(surrogates, n, number, seed)
        rows = np.flatnonzero(drifting & (dims == number))
        if len(rows):
            size = np.sqrt(np.maximum(np.diagonal(step[rows], axis1=1, axis2=2), 0.0))
            unit = draws[:, 1:] / np.linalg.norm(draws[:, 1:], axis=-1, keepdims=True)
            ends = np.einsum("bt,std->bsd", size, unit)
            own = step[rows].sum((1, 2))
            count[rows] = ((ends**2).sum(-1) >= own[:, None] * (1 - 1e-9)).sum(1)
        rows = np.flatnonzero(~drifting & ~antipodal & (dims == number))
        if len(rows):
            kernels.turned(
                centred[rows], radius[rows], cosine[rows], draws, part := np.empty(len(rows))
            )
            count[rows] = part
    rows = np.flatnonzero(antipodal)
    if len(rows):
        part = np.empty(len(rows))
        kernels.shuffled(centred[rows], _orders(surrogates, n, seed), part)
        count[rows] = part
    return (1 + count) / (1 + surrogates)


def _dimensions(gram: Floats) -> np.ndarray:
    """Participation ratio of the motion, rounded, from 2 to `MOST_DIMENSIONS`."""
    trace = np.trace(gram, axis1=1, axis2=2)
    ratio = trace**2 / np.maximum((gram**2).sum((1, 2)), TINY)
    return np.clip(np.round(ratio), 2, MOST_DIMENSIONS).astype(np.int64)
