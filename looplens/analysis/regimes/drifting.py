"""How a drift goes on: its direction, and the exponent q of steps that shrink like t^-q.

Everything is read from means of blocks of states, in which white noise of known variance counts
little and is taken off. Nothing is judged here.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from looplens.analysis.algebra.gram import TINY, Floats
from looplens.analysis.regimes.tail import Tail

_EXPONENTS = np.linspace(-1.0, 4.0, 101)  # beyond, a drift is clear without this


def drift(
    centred: Floats, centre: float, noise: Floats, dimensions: Floats
) -> tuple[Floats, Floats, Floats, Floats]:
    """Cosine, significance, exponent and its error, from the means of the three thirds."""
    n = centred.shape[1]
    third = n // 3
    outer = (n - third) // 2  # the middle block lies symmetrically, at the cost of one point more
    weights = np.zeros((3, n))
    weights[0, :third] = 1 / third
    weights[1, outer : n - outer] = 1 / (n - 2 * outer)
    weights[2, n - third :] = 1 / third
    between = np.diff(weights, axis=0)  # of successive means
    products = between @ (centred @ between.T)
    early_square, late_square = np.maximum(products[:, 0, 0], 0), np.maximum(products[:, 1, 1], 0)
    across = products[:, 0, 1]
    cosine = np.clip(across / np.maximum(np.sqrt(early_square * late_square), TINY), -1.0, 1.0)
    mean_noise = noise / third
    significance = late_square / np.maximum(2.0 * mean_noise, 1e-30 * late_square + TINY)
    # Along the whole displacement, where white noise counts with one dimension only; it is expected
    # to add the variance of one mean to each of the two products.
    # What is left of a displacement below the rounding of the products is none.
    least = 1e-16 * np.trace(centred, axis1=1, axis2=2) / n
    whole_square = np.maximum(early_square + late_square + 2 * across, np.maximum(least, TINY))
    first = np.maximum(early_square + across - mean_noise, 1e-6 * whole_square)
    second = np.maximum(late_square + across - mean_noise, 1e-6 * whole_square)
    gap = 0.25 * (n - third)  # the two displacements are centred this far from the middle
    unit = np.log((centre + gap) / (centre - gap))
    # The error of log(first / second) is that of twice the middle mean less the outer two.
    error = 2.0 * np.sqrt(6.0 * mean_noise / dimensions / whole_square)
    return cosine, significance, np.log(first / second) / unit, error / unit


@lru_cache(maxsize=64)
def _progress(start: int, n: int) -> Floats:
    """Way within the window over the way to it, for each of the exponents: falls with them."""
    time = np.arange(1.0, start + n + 1)
    steps = time[None, :] ** -_EXPONENTS[:, None]
    place = np.cumsum(steps, axis=1)
    third = n // 3
    first = place[:, start : start + third].mean(1)
    return (place[:, -third:].mean(1) - first) / (first - place[:, :start].mean(1))


def early_exponent(tail: Tail, noise: Floats, dimensions: Floats) -> tuple[Floats, Floats]:
    """Exponent of a drift from the way before the window, and its standard error, shape (b,).

    With m_1, m_3 the means of the first and the last third of the window and m_0 that of all states
    before it, ``|m_3 - m_1|^2 / ((m_3 - m_1) . (m_1 - m_0))`` falls with q. NaN without states
    before the window, or where the two ways are not in one direction.
    """
    b, n, _ = tail.gram.shape
    nothing = np.full(b, np.nan), np.full(b, np.inf)
    if tail.start < 4:
        return nothing
    third = n // 3
    first = tail.gram[:, :, :third].mean(2)
    last = tail.gram[:, :, -third:].mean(2)
    between = last - first  # products of m_3 - m_1 with the states
    mean_noise = noise / third
    inside = between[:, -third:].mean(1) - between[:, :third].mean(1)
    outside = between[:, :third].mean(1)
    outside -= tail.before_dot[:, -third:].mean(1) - tail.before_dot[:, :third].mean(1)
    way = np.maximum(inside - 2 * mean_noise, TINY)
    outside = outside + mean_noise
    ratio = way / np.where(outside > 0, outside, np.inf)
    curve = _progress(tail.start, n)
    exponent = np.interp(-ratio, -curve, _EXPONENTS)
    single = mean_noise / dimensions  # variance of a mean along one direction
    relative = np.sqrt(8 * single / way) + 2 * np.sqrt(8.0 / dimensions) * mean_noise / way
    relative += np.sqrt(2 * single / way) + np.sqrt(single * way) / np.maximum(outside, 1e-9 * way)
    steepness = np.gradient(_EXPONENTS, np.log(np.maximum(curve, TINY)))
    error = relative * np.abs(np.interp(exponent, _EXPONENTS, steepness))
    known = (outside > 0) & (exponent > _EXPONENTS[0]) & (exponent < _EXPONENTS[-1])
    return np.where(known, exponent, np.nan), np.where(known, error, np.inf)
