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
        joint, _ = np.linalg.qr(np.concatenate([line, member[:, 1:]], axis=1))
        share[index] = joint @ joint.T - line @ line.T
        removed[index] = column_lag_sums(joint)
        centre = member / count
        centre = centre - centre.mean(1, keepdims=True)  # phase mean minus the mean of all phases
        offset = (t[:, None] - (t @ member) / count) * member
        variance = (offset**2).sum(0)
        slopes = np.divide(offset, variance, out=np.zeros_like(offset), where=variance > 0)
        slope[index] = centre @ slopes.T
        amplitude[index] = centre @ centre.T
    return periods, share, slope, amplitude, removed


def fold(gram: Floats, detrended: Floats, d_model: int) -> PeriodicFit:
    """Best integer period; of periods that fit about equally well, the smallest.

    Multiples of a period fit at least as well as the period itself, so an argmin would report
    4, 6, .. 22 for an exact alternation.
    """
    n = gram.shape[-1]
    periods, share, slope, amplitude, removed = _folding(n)
    total = np.maximum(np.trace(detrended, axis1=1, axis2=2), TINY)
    flat = gram.reshape(len(gram), -1)
    fitted = (flat @ share.reshape(len(periods), -1).T) / total[:, None]
    freedom = (n - 1 - periods) / (n - 2)
    residual = np.maximum(1.0 - fitted, 0.0) / freedom
    good = residual <= 1.3 * residual.min(1, keepdims=True) + 1e-6
    best = good.argmax(1)
    rows = np.arange(len(gram))
    numerator = (gram * slope[best]).sum((1, 2))
    denominator = (gram * amplitude[best]).sum((1, 2))
    projector = share[best]
    half = projector @ detrended
    left = detrended - half - np.swapaxes(half, 1, 2) + half @ projector
    return PeriodicFit(
        period=periods[best].astype(np.float64),
        residual=residual[rows, best],
        growth=numerator / np.maximum(denominator, TINY),
        whiteness=whiteness(left, removed[best]),
        isotropy=isotropy(left, d_model, n - 1 - periods[best]),
        residual_trend=_trend(left),
    )


def harmonics(detrended: Floats, d_model: int) -> tuple[PeriodicFit, PeriodicFit]:
    """One damped harmonic, and that one with more undamped ones after it.

    The frequency of each is the peak of the zero-padded spectrum of what the earlier ones left,
    refined by least squares.
    """
    b, n, _ = detrended.shape
    t = np.arange(n) - 0.5 * (n - 1)
    total = np.maximum(np.trace(detrended, axis1=1, axis2=2), TINY)
    basis = np.broadcast_to(polynomials(n)[:, :2], (b, n, 2))
    left, single = detrended, None
    for index in range(min(HARMONICS, n // 3 - 1)):
        omega, spacing = _spectral_peak(left)
        omega = _refine(left, basis, t, omega, None, spacing * np.linspace(-0.5, 0.5, 5))
        damping = None
        if index == 0:
            damping = _best_damping(left, basis, t, omega)
            for reach in (0.75, 0.25, 0.08):
                omega = _refine(
                    left, basis, t, omega, damping, spacing * np.linspace(-reach, reach, 5)
                )
        pair = _pair(basis, t, omega[:, None], None if damping is None else damping[:, None])[
            :, :, 0
        ]
        basis = np.concatenate([basis, pair], axis=2)
        left = project_out(left, pair)
        if damping is not None:
            single = _report(left, total, d_model, basis, 2 * np.pi / omega, -damping)
    assert single is not None
    several = _report(left, total, d_model, basis, single.period, single.growth)
    return single, several


def _report(
    left: Floats, total: Floats, d_model: int, basis: Floats, period: Floats, growth: Floats
) -> PeriodicFit:
    n, degrees = left.shape[-1], left.shape[-1] - basis.shape[-1]
    residual = np.maximum(np.trace(left, axis1=1, axis2=2), 0.0) / total
    if 3 * degrees < n:  # too few points for so many frequencies
        residual = np.full_like(residual, np.inf)
    return PeriodicFit(
        period=period,
        residual=residual * (n - 2) / max(degrees, 1),
        growth=growth,
        whiteness=whiteness(left, column_lag_sums(basis)),
        residual_trend=_trend(left),
        isotropy=isotropy(left, d_model, degrees),
    )


def _trend(left: Floats) -> Floats:
    """Variance left in the second half of the window over that in the first half."""
    diagonal = np.diagonal(left, axis1=1, axis2=2)
    half = diagonal.shape[1] // 2
    return diagonal[:, -half:].sum(1) / np.maximum(diagonal[:, :half].sum(1), TINY)


def _spectral_peak(gram: Floats) -> tuple[Floats, float]:
    """Angular frequency of the largest power (at least half a turn in the window), grid spacing."""
    n = gram.shape[-1]
    length = 1 << int(np.ceil(np.log2(8 * n)))
    sums = lag_sums(gram)
    sums[:, 0] *= 0.5
    power = np.fft.rfft(sums, length, axis=1).real  # sum_k r_k cos(omega k)
    lowest = int(np.ceil(0.5 * length / n))
    peak = lowest + power[:, lowest:].argmax(1)
    spacing = 2 * np.pi / length
    return peak * spacing, spacing


def _pair(basis: Floats, t: Floats, omega: Floats, damping: Floats | None) -> Floats:
    """Orthonormal damped cosine and sine columns for candidates (b, c), shape (b, n, c, 2)."""
    phase = t[None, :, None] * omega[:, None, :]
    cosine, sine = np.cos(phase), np.sin(phase)
    if damping is not None:
        envelope = np.exp(-t[None, :, None] * damping[:, None, :])
        cosine, sine = cosine * envelope, sine * envelope
    return orthonormal_pair(cosine, sine, basis)


def _refine(
    gram: Floats, basis: Floats, t: Floats, omega: Floats, damping: Floats | None, offsets: Floats
) -> Floats:
    candidates = np.clip(omega[:, None] + offsets, 1e-3, np.pi)
    damped = None if damping is None else np.broadcast_to(damping[:, None], candidates.shape)
    shares = explained(gram, _pair(basis, t, candidates, damped))
    return np.take_along_axis(candidates, shares.argmax(1)[:, None], 1)[:, 0]


def _best_damping(gram: Floats, basis: Floats, t: Floats, omega: Floats) -> Floats:
    """Decay per iteration of the harmonic, by a grid and a parabola through the best three."""
    grid = _DAMPINGS / len(t)
    candidates = np.broadcast_to(grid, (len(gram), len(grid)))
    shares = explained(
        gram, _pair(basis, t, np.broadcast_to(omega[:, None], candidates.shape), candidates)
    )
    best = np.clip(shares.argmax(1), 1, len(grid) - 2)
    rows = np.arange(len(gram))
    low, mid, high = (shares[rows, best + step] for step in (-1, 0, 1))
    left, right = grid[best] - grid[best - 1], grid[best + 1] - grid[best]
    # Vertex of the parabola through three points that need not be equidistant.
    up, down = (mid - low) / left, (high - mid) / right
    curvature = np.minimum((down - up) / (left + right), -TINY)
    vertex = grid[best] - (up + curvature * left) / (2 * curvature)
    return np.clip(vertex, grid[best - 1], grid[best + 1])
