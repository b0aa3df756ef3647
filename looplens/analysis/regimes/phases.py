"""A cycle of any shape, from how well each state follows from those at nearby phases.

For a trial period every state is compared with the straight line between its two neighbours in
phase that come from other turns. On a closed curve it lies between them however fast some of its
parts are passed, and whether or not the period is a whole number of iterations; in chaos and noise
it does not. The idea is that
of phase dispersion minimisation and string length (Stellingwerf 1978, ApJ 224, 953, and Lafler and
Kinman 1965, ApJS 11, 216, both from general knowledge: texts not read).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from looplens.analysis.algebra.gram import TINY

Floats = NDArray[np.float64]
SHORTEST, LEAST_TURNS = 3.5, 2.8  # fewer points or turns leave too little to compare


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseFit:
    """How well states follow from their neighbours in phase; arrays of shape (b,).

    ``residual`` is the variance of the errors over that of the states, each error divided by the
    variance that white noise gives it. ``whiteness`` and ``isotropy`` compare the errors with those
    of white noise, as in `gram`; ``corners`` is the part of `residual` that errors beyond those of
    noise make up, and ``late`` is `residual` in the last third over that of the whole window.
    ``gap`` is the mean square distance of the two neighbours over that of two states taken at
    random, less what noise adds: small where states in the order of their phase are one curve.
    ``along`` is the share that lies along the directions of the motion beyond what noise would put
    there, 0 where that is not asked for.
    """

    period: Floats
    residual: Floats
    whiteness: Floats
    isotropy: Floats
    corners: Floats
    late: Floats
    gap: Floats
    along: Floats


def phase_fit(
    centred: Floats, starts: Floats, d_model: int, *, noisy: tuple[float, float]
) -> PhaseFit:
    """Predict states by phase, at the best frequency near the `starts` (b, k) of each window.

    Only errors whose share lies between the two numbers `noisy` are compared with white noise;
    smaller ones need not be noise, and larger ones are too large for it.
    """
    from looplens.analysis.regimes import phase_kernels as kernels  # see `leftover`

    b, n, _ = centred.shape
    frequency = np.empty(b)
    kernels.search(np.ascontiguousarray(centred), starts, LEAST_TURNS, 1 / SHORTEST, frequency)
    fit = PhaseFit(
        period=1 / frequency,
        residual=np.full(b, np.inf),
        whiteness=np.full(b, np.inf),
        isotropy=np.zeros(b),
        corners=np.full(b, np.inf),
        late=np.full(b, np.inf),
        gap=np.full(b, np.inf),
        along=np.zeros(b),
    )
    before, after = np.empty(n, np.int64), np.empty(n, np.int64)
    weight, errors = np.empty(n), np.empty(n)
    every = np.arange(n)
    for row in np.flatnonzero(np.isfinite(frequency)):
        gram = centred[row]
        kernels.neighbours(n, frequency[row], before, after, weight)
        kernels.errors_of(gram, before, after, weight, errors)
        mean = max(float(np.trace(gram)) / n, TINY)
        usual = errors <= 3 * np.median(errors)  # the others are corners
        fit.residual[row] = errors.mean() / mean
        fit.late[row] = errors[-(n // 3) :].mean() / max(errors.mean(), TINY)
        square = np.diagonal(gram)
        gaps = square[before] + square[after] - 2 * gram[before, after]
        fit.gap[row] = gaps.mean() / (2 * mean) - fit.residual[row]
        if usual.mean() < 0.7 or not noisy[0] <= fit.residual[row] < noisy[1]:
            continue
        filtered = np.eye(n)
        np.add.at(filtered, (every, before), -weight)
        np.add.at(filtered, (every, after), weight - 1)
        kept = every[usual]
        fit.corners[row] = (errors.mean() - errors[kept].mean()) / mean
        filtered = filtered[kept]
        left, noise = filtered @ gram @ filtered.T, filtered @ filtered.T
        fit.whiteness[row], fit.isotropy[row] = _against_noise(left, noise, kept, d_model)
        excess = _along(filtered @ gram, left, noise, gram, d_model)
        fit.along[row] = excess * fit.residual[row] / d_model
    return fit


def bends(straight: Floats, period: int, turns: int) -> float:
    """Share of the variance by which the phases of a fold miss the line between their neighbours.

    Parameters
    ----------
    straight : ndarray, shape (n, n)
        Gram matrix of a window.
    period, turns : int
        The period of the fold, and how many turns it may be.
    """
    from looplens.analysis.regimes import phase_kernels as kernels  # see `leftover`

    member = (np.arange(len(straight)) % period == np.arange(period)[:, None]).astype(np.float64)
    member /= member.sum(1, keepdims=True)
    order = np.argsort(np.arange(period) * turns % period, kind="stable")
    gram = np.ascontiguousarray((member @ straight @ member.T)[np.ix_(order, order)])
    errors, every = np.empty(period), np.arange(period)
    kernels.errors_of(gram, np.roll(every, 1), np.roll(every, -1), np.full(period, 0.5), errors)
    return float(errors.mean() / max(np.trace(gram) / period, TINY))


def _along(cross: Floats, left: Floats, noise: Floats, gram: Floats, d_model: int) -> float:
    """Variance of errors along the motion, over that of white noise in one dimension, less 1.

    For errors F X and white noise of variance s^2, |F G|^2 has the mean
    ``tr(F F') s^2 (tr G + s^2 d (d + 1))``. Up to four standard deviations it is noise: 0. See
    `periodic`.
    """
    degrees = max(float(np.trace(noise)), TINY)
    variance = float(np.trace(left)) / (degrees * d_model)
    mean = degrees * variance * (np.trace(gram) + variance * d_model * (d_model + 1))
    ratio = float((cross**2).sum()) / max(mean, TINY)
    # A state takes part in the errors of its neighbours too, so that half of them are independent.
    return ratio - 1 if ratio > 1 + 4 * (4 / len(left)) ** 0.5 else 0.0


def _against_noise(left: Floats, noise: Floats, rows: NDArray, d_model: int) -> tuple[float, float]:
    """Return the largest excess autocorrelation, and the participation ratio over that of noise."""
    total, size = max(float(np.trace(left)), TINY), float(np.trace(noise))
    lags = np.abs(rows[:, None] - rows)
    excess = [
        abs(left[lags == lag].sum() / total - noise[lags == lag].sum() / size) / 2
        for lag in (1, 2, 3)
    ]
    # Of white noise: E tr(E^2) = tr(C)^2 / d + tr(C^2) (1 + 1 / d).
    square = (noise**2).sum()
    expected = size**2 / (size**2 / d_model + square * (1 + 1 / d_model))
    return max(excess), total**2 / max(float((left**2).sum()), TINY) / expected
