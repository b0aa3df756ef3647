"""Periodic models of a window: folding on an integer period, and a few damped harmonics.

A window that turns is described either by one point per phase of an integer period (epoch folding)
or by a few frequencies, the strongest of them with its own rate of growth or decay. Both are
least-squares fits together with a straight line, evaluated on the Gram matrix. This module knows
nothing of thresholds: it reports periods, shares, growth and what is left over.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from looplens.analysis.algebra.gram import (
    TINY,
    Floats,
    Leftover,
    column_lag_sums,
    isotropy,
    leftover,
    polynomials,
    whiteness,
)

LONGEST_FOLD = 32
NOT_WHITE = 0.5  # no noise has a larger autocorrelation
# Decay over the whole window that the strongest harmonic may have (natural logarithm).
_DAMPINGS = np.array([-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])


@dataclass(frozen=True, kw_only=True, slots=True)
class PeriodicFit:
    """One periodic model of each window; arrays of shape (b,).

    ``residual`` is the share of the detrended variance that is left, divided by the share of
    degrees of freedom left; ``growth`` the relative change of the amplitude per iteration;
    ``along`` the share that lies along the directions of the fitted motion beyond what noise would
    put there (`_along`), 0 where it was not asked for.
    """

    period: Floats
    residual: Floats
    growth: Floats
    whiteness: Floats
    isotropy: Floats
    residual_trend: Floats
    along: Floats


@lru_cache(maxsize=32)
def _folding(n: int) -> tuple[NDArray[np.int64], Floats, Floats, Floats, Floats]:
    """Matrices W_p, V_p, U_p: sums of G against them give share, growth numerator, amplitude."""
    # A third of the points must be left over to tell a fit from a coincidence.
    periods = np.arange(2, max(2, min(LONGEST_FOLD, 2 * n // 3 - 1)) + 1)
    line = polynomials(n)[:, :2]
    share = np.empty((len(periods), n, n))
    slope, amplitude = np.zeros_like(share), np.empty_like(share)
    removed = np.empty((len(periods), 4))
    t = np.arange(n, dtype=np.float64)
    for index, period in enumerate(periods):
        phase = np.arange(n) % period
        member = (phase[:, None] == np.arange(period)).astype(np.float64)  # n p
        count = member.sum(0)
        phases = _phases(n, int(period))
        share[index] = phases @ phases.T
        removed[index] = column_lag_sums(np.concatenate([line, phases], axis=1))
        centre = member / count
        centre = centre - centre.mean(1, keepdims=True)  # phase mean minus the mean of all phases
        offset = (t[:, None] - (t @ member) / count) * member
        variance = (offset**2).sum(0)
        slopes = np.divide(offset, variance, out=np.zeros_like(offset), where=variance > 0)
        slope[index] = centre @ slopes.T
        amplitude[index] = centre @ centre.T
    flat = (len(periods), -1)
    return periods, share, slope.reshape(flat), amplitude.reshape(flat), removed


@lru_cache(maxsize=256)
def _phases(n: int, period: int) -> Floats:
    """Orthonormal columns that span the phases of a period beside the line, (n, period - 1)."""
    line = polynomials(n)[:, :2]
    member = (np.arange(n)[:, None] % period == np.arange(period)).astype(np.float64)
    joint, _ = np.linalg.qr(np.concatenate([line, member[:, 1:]], axis=1))
    return joint[:, 2:]


def fold(
    gram: Floats, detrended: Floats, d_model: int, *, above: float, below: float
) -> PeriodicFit:
    """Best integer period; of periods that fit about equally well, the smallest.

    Multiples of a period fit at least as well as the period itself, so an argmin would report
    4, 6, .. 22 for an exact alternation. What is left over is only looked at where it is less than
    the share `below`; elsewhere it counts as neither white nor fading. Where it lies is only asked
    of more than the share `above`, which has to be noise, and not of what cannot be.
    """
    from looplens.analysis.algebra import sums  # see `leftover`

    b, n, _ = gram.shape
    periods, share, slope, amplitude, removed = _folding(n)
    total = np.maximum(np.trace(detrended, axis1=1, axis2=2), TINY)
    flat = gram.reshape(b, -1)
    fitted = (flat @ share.reshape(len(periods), -1).T) / total[:, None]
    freedom = (n - 1 - periods) / (n - 2)
    residual = np.maximum(1.0 - fitted, 0.0) / freedom
    good = residual <= 1.3 * residual.min(1, keepdims=True) + 1e-6
    best = good.argmax(1)
    residual = residual[np.arange(b), best]
    growth = np.empty(b)
    for number in np.unique(best):
        rows = np.flatnonzero(best == number)
        numerator, denominator = flat[rows] @ slope[number], flat[rows] @ amplitude[number]
        growth[rows] = numerator / np.maximum(denominator, TINY)
    white, full, trend = np.full(b, np.inf), np.zeros(b), np.full(b, np.inf)
    along = np.zeros(b)
    rows = np.flatnonzero(residual < below)
    if len(rows):
        turns = periods[best[rows]]
        rest = detrended[rows]
        sums.fold_out(rest, turns)
        left = leftover(rest)
        white[rows] = whiteness(left, removed[best[rows]])
        full[rows] = isotropy(left, d_model, n - 1 - turns)
        trend[rows] = _trend(left)
        noisy = (residual[rows] > above) & (white[rows] < NOT_WHITE)
        for turn in np.unique(turns[noisy]):
            here = np.flatnonzero(noisy & (turns == turn))
            columns = _phases(n, int(turn)).T[None]
            along[rows[here]] = _along(
                detrended[rows[here]], columns, left.trace[here], n - 1 - int(turn), d_model
            )
    return PeriodicFit(
        period=periods[best].astype(np.float64),
        residual=residual,
        growth=growth,
        whiteness=white,
        isotropy=full,
        residual_trend=trend,
        along=along,
    )


def _along(gram: Floats, columns: Floats, left: Floats, degrees: int, d_model: int) -> Floats:
    """Share of the variance that a fit leaves along the motion it found, beyond noise, shape (b,).

    With P the projection on the fitted columns and Q = 1 - P, white noise gives
    ``|Q G P|^2 / (tr(Q G Q) tr(P G P) / d)`` the mean 1, and chi-squared over `degrees` at the
    most; up to four standard deviations beyond, it is taken for noise. Chaos in narrow bands is
    left where the motion is, noise in all directions alike, so that this sees it under noise of
    many times its size.
    """
    total = np.maximum(np.trace(gram, axis1=1, axis2=2), TINY)
    cross = columns @ gram
    inside = cross @ np.swapaxes(columns, 1, 2)
    found = np.maximum(np.trace(inside, axis1=1, axis2=2), TINY)
    outside = np.maximum((cross**2).sum((1, 2)) - (inside**2).sum((1, 2)), 0.0)
    chance = np.maximum(left, 0.0) / d_model
    share = outside / found
    sure = share > (1 + 4 * np.sqrt(2 / max(degrees, 1))) * chance
    return np.where(sure, share - chance, 0.0) / total * (gram.shape[1] - 2) / max(degrees, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Remainder:
    """What the fits of b windows have left so far, to go on from.

    ``left`` (b, n, n) is the Gram matrix without what was fitted, ``basis`` (b, k, n) the
    orthonormal columns that were, as rows, ``total`` (b,) the detrended variance of the window, and
    ``whole`` (b, n, n) its Gram matrix.
    """

    left: Floats
    basis: Floats
    total: Floats
    whole: Floats


def harmonic(detrended: Floats, d_model: int) -> tuple[PeriodicFit, Remainder]:
    """Fit one damped harmonic, and say what it leaves.

    Its frequency is the peak of the zero-padded spectrum, refined by least squares together with
    the damping.
    """
    from looplens.analysis.regimes import kernels  # see `leftover`

    b, n, _ = detrended.shape
    total = np.maximum(np.trace(detrended, axis1=1, axis2=2), TINY)
    left, basis = detrended.copy(), np.empty((b, 4, n))
    basis[:, :2] = polynomials(n)[:, :2].T
    omega, damping = np.empty(b), np.empty(b)
    kernels.first_harmonic(left, basis, *_cosines(n), _DAMPINGS / n, omega, damping)
    rest = Remainder(left=left, basis=basis, total=total, whole=detrended)
    return _report(rest, d_model, 2 * np.pi / omega, -damping), rest


def more_harmonics(
    rest: Remainder, first: PeriodicFit, d_model: int, count: int
) -> tuple[PeriodicFit, Remainder]:
    """Add undamped harmonics to those that were fitted, up to `count`, at peaks of what is left.

    The frequency of each is refined by least squares; period and growth stay those of the first.
    """
    from looplens.analysis.regimes import kernels  # see `leftover`

    b, fitted, n = rest.basis.shape
    left = rest.left.copy()
    basis = np.empty((b, 2 + 2 * min(count, n // 3 - 1), n))
    basis[:, :fitted] = rest.basis
    kernels.further_harmonics(left, basis, fitted, *_cosines(n))
    rest = Remainder(left=left, basis=basis, total=rest.total, whole=rest.whole)
    return _report(rest, d_model, first.period, first.growth), rest


def _report(rest: Remainder, d_model: int, period: Floats, growth: Floats) -> PeriodicFit:
    left, n = leftover(rest.left), rest.left.shape[-1]
    degrees = n - rest.basis.shape[1]
    residual = np.maximum(left.trace, 0.0) / rest.total
    if 3 * degrees < n:  # too few points for so many frequencies
        residual = np.full_like(residual, np.inf)
    return PeriodicFit(
        period=period,
        residual=residual * (n - 2) / max(degrees, 1),
        growth=growth,
        whiteness=whiteness(left, column_lag_sums(np.swapaxes(rest.basis, 1, 2))),
        residual_trend=_trend(left),
        isotropy=isotropy(left, d_model, degrees),
        along=_along(rest.whole, rest.basis[:, 2:], left.trace, degrees, d_model),
    )


def _trend(left: Leftover) -> Floats:
    """Variance left in the second half of the window over that in the first half."""
    return left.second / np.maximum(left.first, TINY)


@lru_cache(maxsize=32)
def _cosines(n: int) -> tuple[Floats, int, float]:
    """Cosines (frequency, lag) from half a turn in the window on, number of the first, spacing."""
    length = 1 << int(np.ceil(np.log2(8 * n)))
    lowest = int(np.ceil(0.5 * length / n))
    spacing = 2 * np.pi / length
    frequencies = spacing * np.arange(lowest, length // 2 + 1)
    table = np.cos(frequencies[:, None] * np.arange(n))
    table[:, 0] = 0.5
    return table, lowest, spacing
