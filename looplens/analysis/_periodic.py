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

from looplens.analysis._gram import (
    TINY,
    Floats,
    column_lag_sums,
    explained,
    isotropy,
    lag_sums,
    orthonormal_pair,
    polynomials,
    project_out,
    whiteness,
)

LONGEST_FOLD = 32
HARMONICS = 6
# Decay over the whole window that the strongest harmonic may have (natural logarithm).
_DAMPINGS = np.array([-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])


@dataclass(frozen=True, kw_only=True, slots=True)
class PeriodicFit:
    """One periodic model of each window; arrays of shape (b,).

    ``residual`` is the share of the detrended variance that is left, divided by the share of
    degrees of freedom left; ``growth`` the relative change of the amplitude per iteration.
    """

    period: Floats
    residual: Floats
    growth: Floats
    whiteness: Floats
    isotropy: Floats
    residual_trend: Floats


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


def fold(gram: Floats, detrended: Floats, d_model: int, below: float) -> PeriodicFit:
    """Best integer period; of periods that fit about equally well, the smallest.

    Multiples of a period fit at least as well as the period itself, so an argmin would report
    4, 6, .. 22 for an exact alternation. What is left over is only looked at where it is less than
    the share `below`; elsewhere it counts as neither white nor fading.
    """
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
    white, full, trend = np.full(b, np.inf), np.zeros(b), np.full(b, np.inf)
    for number in np.unique(best):
        rows = np.flatnonzero(best == number)
        numerator, denominator = flat[rows] @ slope[number], flat[rows] @ amplitude[number]
        growth[rows] = numerator / np.maximum(denominator, TINY)
        rows = rows[residual[rows] < below]
        if len(rows):
            left = project_out(detrended[rows], _phases(n, int(periods[number])))
            white[rows] = whiteness(left, removed[number])
            full[rows] = isotropy(left, d_model, n - 1 - int(periods[number]))
            trend[rows] = _trend(left)
    return PeriodicFit(
        period=periods[best].astype(np.float64),
        residual=residual,
        growth=growth,
        whiteness=white,
        isotropy=full,
        residual_trend=trend,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Remainder:
    """What the fits of b windows have left so far, to go on from.

    ``left`` (b, n, n) is the Gram matrix without what was fitted, ``basis`` (b, n, k) the
    orthonormal columns that were, and ``total`` (b,) the detrended variance of the window.
    """

    left: Floats
    basis: Floats
    total: Floats


def harmonic(detrended: Floats, d_model: int) -> tuple[PeriodicFit, Remainder]:
    """Fit one damped harmonic, and say what it leaves.

    Its frequency is the peak of the zero-padded spectrum, refined by least squares together with
    the damping.
    """
    b, n, _ = detrended.shape
    t = np.arange(n) - 0.5 * (n - 1)
    total = np.maximum(np.trace(detrended, axis1=1, axis2=2), TINY)
    basis = np.broadcast_to(polynomials(n)[:, :2], (b, n, 2))
    omega, spacing = _spectral_peak(detrended)
    omega = _refine(detrended, basis, t, omega, None, spacing * np.linspace(-0.5, 0.5, 5))
    damping = _best_damping(detrended, basis, t, omega)
    for reach in (0.75, 0.25, 0.08):
        offsets = spacing * np.linspace(-reach, reach, 5)
        omega = _refine(detrended, basis, t, omega, damping, offsets)
    rest = _without(Remainder(left=detrended, basis=basis, total=total), t, omega, damping)
    return _report(rest, d_model, 2 * np.pi / omega, -damping), rest


def more_harmonics(rest: Remainder, first: PeriodicFit, d_model: int) -> PeriodicFit:
    """Add undamped harmonics to the one that was fitted, each at the peak of what is left.

    The frequency of each is refined by least squares; period and growth stay those of the first.
    """
    n = rest.left.shape[-1]
    t = np.arange(n) - 0.5 * (n - 1)
    for _ in range(min(HARMONICS, n // 3 - 1) - 1):
        omega, spacing = _spectral_peak(rest.left)
        offsets = spacing * np.linspace(-0.5, 0.5, 5)
        omega = _refine(rest.left, rest.basis, t, omega, None, offsets)
        rest = _without(rest, t, omega, None)
    return _report(rest, d_model, first.period, first.growth)


def _without(rest: Remainder, t: Floats, omega: Floats, damping: Floats | None) -> Remainder:
    """Take a harmonic out."""
    cosine, sine = _pair(t, omega[:, None], None if damping is None else damping[:, None])
    pair = orthonormal_pair(cosine, sine, rest.basis)[:, :, 0]
    return Remainder(
        left=project_out(rest.left, pair),
        basis=np.concatenate([rest.basis, pair], axis=2),
        total=rest.total,
    )


def _report(rest: Remainder, d_model: int, period: Floats, growth: Floats) -> PeriodicFit:
    left, n = rest.left, rest.left.shape[-1]
    degrees = n - rest.basis.shape[-1]
    residual = np.maximum(np.trace(left, axis1=1, axis2=2), 0.0) / rest.total
    if 3 * degrees < n:  # too few points for so many frequencies
        residual = np.full_like(residual, np.inf)
    return PeriodicFit(
        period=period,
        residual=residual * (n - 2) / max(degrees, 1),
        growth=growth,
        whiteness=whiteness(left, column_lag_sums(rest.basis)),
        residual_trend=_trend(left),
        isotropy=isotropy(left, d_model, degrees),
    )


def _trend(left: Floats) -> Floats:
    """Variance left in the second half of the window over that in the first half."""
    diagonal = np.diagonal(left, axis1=1, axis2=2)
    half = diagonal.shape[1] // 2
    return diagonal[:, -half:].sum(1) / np.maximum(diagonal[:, :half].sum(1), TINY)


@lru_cache(maxsize=32)
def _cosines(n: int) -> tuple[int, float, Floats]:
    """Lowest grid frequency (half a turn in the window), spacing, and cosines (lag, frequency)."""
    length = 1 << int(np.ceil(np.log2(8 * n)))
    lowest = int(np.ceil(0.5 * length / n))
    spacing = 2 * np.pi / length
    frequencies = spacing * np.arange(lowest, length // 2 + 1)
    table = np.cos(np.arange(n)[:, None] * frequencies)
    table[0] = 0.5
    return lowest, spacing, table


def _spectral_peak(gram: Floats) -> tuple[Floats, float]:
    """Angular frequency of the largest power (at least half a turn in the window), grid spacing."""
    lowest, spacing, cosines = _cosines(gram.shape[-1])
    power = lag_sums(gram) @ cosines  # sum_k r_k cos(omega k)
    return (lowest + power.argmax(1)) * spacing, spacing


def _pair(t: Floats, omega: Floats, damping: Floats | None) -> tuple[Floats, Floats]:
    """Damped cosine and sine columns for candidates (b, c), each of shape (b, n, c)."""
    phase = t[None, :, None] * omega[:, None, :]
    cosine, sine = np.cos(phase), np.sin(phase)
    if damping is not None:
        envelope = np.exp(-t[None, :, None] * damping[:, None, :])
        cosine, sine = cosine * envelope, sine * envelope
    return cosine, sine


def _refine(
    gram: Floats, basis: Floats, t: Floats, omega: Floats, damping: Floats | None, offsets: Floats
) -> Floats:
    """Best of the frequencies at some offsets from `omega`; beyond pi they are mirrored there."""
    cosine, sine = _pair(t, omega[:, None], None if damping is None else damping[:, None])
    # The cosine and sine of a sum: no transcendental function for each candidate.
    turn = t[:, None] * offsets
    first = cosine * np.cos(turn) - sine * np.sin(turn)
    second = sine * np.cos(turn) + cosine * np.sin(turn)
    best = omega + offsets[explained(gram, first, second, basis).argmax(1)]
    return np.where(best > np.pi, 2 * np.pi - best, best)


def _best_damping(gram: Floats, basis: Floats, t: Floats, omega: Floats) -> Floats:
    """Decay per iteration of the harmonic, by a grid and a parabola through the best three."""
    grid = _DAMPINGS / len(t)
    cosine, sine = _pair(t, omega[:, None], None)
    envelope = np.exp(-t[:, None] * grid)
    shares = explained(gram, cosine * envelope, sine * envelope, basis)
    best = np.clip(shares.argmax(1), 1, len(grid) - 2)
    rows = np.arange(len(gram))
    low, mid, high = (shares[rows, best + step] for step in (-1, 0, 1))
    left, right = grid[best] - grid[best - 1], grid[best + 1] - grid[best]
    # Vertex of the parabola through three points that need not be equidistant.
    up, down = (mid - low) / left, (high - mid) / right
    curvature = np.minimum((down - up) / (left + right), -TINY)
    vertex = grid[best] - (up + curvature * left) / (2 * curvature)
    return np.clip(vertex, grid[best - 1], grid[best + 1])
