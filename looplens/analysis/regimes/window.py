"""What one window of a trajectory looks like: the numbers that a regime is decided on.

Measures spread, drift and contraction of each trajectory in a window from its Gram matrix, batched;
periodic models, which cost more, are fitted to it where they are asked for (`_turning`). Draws no
conclusion beyond whether the motion exceeds rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from looplens.analysis.algebra.gram import (
    TINY,
    Floats,
    column_lag_sums,
    isotropy,
    lag_sums,
    leftover,
    mean_square_displacement,
    noise_dimensions,
    polynomials,
    project_out,
    whiteness,
)
from looplens.analysis.regimes.drifting import drift, early_exponent
from looplens.analysis.regimes.periodic import PeriodicFit
from looplens.analysis.regimes.tail import Tail, has_converged, spread2

# What a model leaves over is measurement noise only if it is this white and fills this share of
# the dimensions that noise would; the regimes have thresholds of their own for the same numbers.
WHITE, ISOTROPIC = 0.35, 0.75


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Measurements of b windows; arrays of shape (b,).

    Attributes
    ----------
    points, d_model : int
        States in the window, and their dimensions.
    centre : float
        Iteration at the middle of the window: the time against which rates are judged.
    amplitude : ndarray
        Root-mean-square distance from the window's mean over the root-mean-square norm.
    converged : ndarray of bool
        The last third does not move by more than rounding.
    settled_ratio : ndarray
        Spread of the window over the distance of the states before it from its mean; NaN where the
        window is the whole record.
    end_motion : ndarray
        Spread of the last third, without what white noise about a smooth drift adds to it, over the
        root-mean-square norm: the motion that has not died down.
    rest : float
        Motion up to this, ten times what rounding may be, is none.
    linear_share : ndarray
        Share of the variance on a straight line in time.
    drift_cosine, drift_significance : ndarray
        From the means of the three thirds: the cosine between the two displacements, and the square
        of the later one over what white noise of the size of the detrended residual would show.
    drift_exponent, drift_exponent_error : ndarray
        Exponent q of a drift whose steps shrink like t^-q, and its standard error.
    early_exponent, early_exponent_error : ndarray
        The same exponent from the window's displacement and the way to it from the mean of all
        earlier states, along the direction of drift: less noise, but a transient raises it.
    smooth_residual, smooth_whiteness, smooth_isotropy, noise_dimensions : ndarray
        What a cubic in time leaves: share, largest autocorrelation, participation ratio over that
        of white noise.
    step_exponent, step_t : ndarray
        Exponent q of step norms that shrink like t^-q around the centre, from a line through their
        logarithms, and the t-statistic of that line's slope.
    end_contraction : ndarray
        Fall of the logarithm of the step norm in an iteration, in the second half of the window.
    still_shrinking : ndarray of bool
        Steps of the last third are smaller than those of the middle one, or are rounding.
    centred, straight : ndarray, shape (b, n, n)
        Gram matrices about the mean of the window, and about a straight line in time.
    square_at_end, smooth_noise, scale : ndarray
        Mean square about the mean in the last third, variance of white noise about a smooth drift
        (0 where there is none), and the root-mean-square norm.
    """

    points: int
    d_model: int
    centre: float
    amplitude: Floats
    converged: NDArray[np.bool_]
    settled_ratio: Floats
    end_motion: Floats
    rest: float
    linear_share: Floats
    drift_cosine: Floats
    drift_significance: Floats
    drift_exponent: Floats
    drift_exponent_error: Floats
    early_exponent: Floats
    early_exponent_error: Floats
    smooth_residual: Floats
    smooth_whiteness: Floats
    smooth_isotropy: Floats
    noise_dimensions: Floats
    step_exponent: Floats
    step_t: Floats
    end_contraction: Floats
    still_shrinking: NDArray[np.bool_]
    centred: Floats
    straight: Floats
    square_at_end: Floats
    smooth_noise: Floats
    scale: Floats


def measure(tail: Tail, floor: float, rounding: float) -> Window:
    """Measure windows.

    Parameters
    ----------
    tail : Tail
        The windows as products.
    floor, rounding : float
        Largest relative spread that is rounding, and the relative step of rounding alone.
    """
    n, d_model, gram = tail.square.shape[1], tail.d_model, tail.gram
    b = len(gram)
    centre = tail.start + 0.5 * (n - 1)
    scale = np.sqrt(tail.square.mean(1))
    means = gram.mean(1)
    mean_square = means.mean(1)
    centred = gram - means[:, :, None]
    centred -= (means - mean_square[:, None])[:, None, :]
    spreading = np.maximum(np.trace(centred, axis1=1, axis2=2), 0.0)
    variance = spreading / n
    settled_ratio = np.full(b, np.nan)
    if tail.start:
        before2 = tail.before_square - 2 * tail.before_dot.mean(1) + mean_square
        settled_ratio = np.sqrt(variance) / np.maximum(np.sqrt(np.maximum(before2, 0)), TINY)
    total = np.maximum(spreading, TINY)

    basis = polynomials(n)
    along = centred @ basis[:, 1]
    line2 = np.maximum(along @ basis[:, 1], 0.0)
    half = along - 0.5 * line2[:, None] * basis[:, 1]
    outer = half[:, :, None] * basis[:, 1]
    straight = centred - outer
    straight -= np.swapaxes(outer, 1, 2)
    smooth = project_out(straight, basis[:, 2:])
    rest = leftover(smooth)
    smooth_left = np.maximum(rest.trace, 0.0)
    white = whiteness(rest, column_lag_sums(basis))
    # If the residual is noise, its variance per sample; if it is not, no noise is taken off.
    noise = np.where(white < 0.5, smooth_left / (n - 4), 0.0)
    dimensions = noise_dimensions(rest, n - 4, d_model)
    cosine, significance, exponent, error = drift(centred, centre, noise, dimensions)
    early, early_error = early_exponent(tail, noise, dimensions)
    step_exponent, step_t, end_contraction, shrinking = _steps(
        np.sqrt(tail.step2), scale * rounding, centre
    )
    fullness = isotropy(rest, d_model, n - 4)
    square_at_end = spread2(centred, n // 3)
    smooth_noise = np.where((white < WHITE) & (fullness > ISOTROPIC), smooth_left / (n - 4), 0.0)
    return Window(
        points=n,
        d_model=d_model,
        centre=centre,
        amplitude=np.sqrt(variance) / np.maximum(scale, TINY),
        converged=has_converged(tail, floor),
        settled_ratio=settled_ratio,
        end_motion=_end_motion(square_at_end, smooth_noise, n // 3, dimensions, scale),
        rest=10 * floor,
        linear_share=line2 / total,
        drift_cosine=cosine,
        drift_significance=significance,
        drift_exponent=exponent,
        drift_exponent_error=error,
        early_exponent=early,
        early_exponent_error=early_error,
        smooth_residual=smooth_left / total,
        smooth_whiteness=white,
        smooth_isotropy=fullness,
        noise_dimensions=dimensions,
        step_exponent=step_exponent,
        step_t=step_t,
        end_contraction=end_contraction,
        still_shrinking=shrinking,
        centred=centred,
        straight=straight,
        square_at_end=square_at_end,
        smooth_noise=smooth_noise,
        scale=scale,
    )


def end_motion_beside(window: Window, fit: PeriodicFit, rows: NDArray[np.int64]) -> Floats:
    """Motion at the end of some windows, also without white noise about a fitted harmonic."""
    n = window.points
    left = fit.residual * np.trace(window.straight[rows], axis1=1, axis2=2) / (n - 2)
    white = (fit.whiteness < WHITE) & (fit.isotropy > ISOTROPIC)
    noise = np.maximum(window.smooth_noise[rows], np.where(white, left, 0.0))
    return _end_motion(
        window.square_at_end[rows],
        noise,
        n // 3,
        window.noise_dimensions[rows],
        window.scale[rows],
    )


def _steps(
    steps: Floats, rounding: Floats, centre: float
) -> tuple[Floats, Floats, Floats, NDArray[np.bool_]]:
    """Exponent of the step norms, its t-statistic, contraction at the end, whether they shrink."""
    count = steps.shape[1]
    # Clip what is rounding, so that a finished decay does not look endless.
    logs = np.log(np.maximum(steps, rounding[:, None]) + TINY)
    time = np.arange(count) - 0.5 * (count - 1)
    slope = logs @ time / (time @ time)
    left = logs - logs.mean(1, keepdims=True) - slope[:, None] * time
    error = np.sqrt((left**2).sum(1) / (count - 2) / (time @ time)) + 1e-12
    third = count // 3
    middle = (steps[:, third : 2 * third] ** 2).mean(1)
    last = (steps[:, -third:] ** 2).mean(1)
    shrinking = (last < 0.8 * middle) | (last < (4 * rounding) ** 2)
    half = time[-(count // 2) :] - time[-(count // 2) :].mean()
    end_slope = logs[:, -(count // 2) :] @ half / (half @ half)
    return -slope * centre, slope / error, -end_slope, shrinking


def _end_motion(
    square: Floats, noise: Floats, points: int, dimensions: Floats, scale: Floats
) -> Floats:
    """Spread of the last states less that of white noise of this variance, over the norm."""
    # Two standard errors of the noise variance in so few states.
    noise = noise * (1 + 2 * np.sqrt(2 / (points * dimensions)))
    return np.sqrt(np.maximum(square - noise, 0.0)) / np.maximum(scale, TINY)


def recurrence_lag(gram: Floats) -> Floats:
    """Smallest lag >= 2, up to half the window, whose displacement is near the least."""
    displacement = mean_square_displacement(gram, lag_sums(gram))
    near = displacement[:, 1 : max(2, (displacement.shape[1] + 1) // 2)]
    limit = 1.5 * near.min(1) + 1e-6 * displacement.max(1)
    return 2.0 + (near <= limit[:, None]).argmax(1)


def recurrence_dip(gram: Floats) -> tuple[Floats, Floats]:
    """Lag, up to a third of the states, after which they come nearest, and how near; shape (b,).

    The second is the mean square displacement there over the largest at any smaller lag.
    """
    displacement = mean_square_displacement(gram, lag_sums(gram))
    displacement = displacement[:, : max(3, gram.shape[1] // 3)]
    most = np.maximum.accumulate(displacement, axis=1)
    dip = displacement[:, 1:] / np.maximum(most[:, :-1], TINY)
    best = dip.argmin(1)
    return 2.0 + best, dip[np.arange(len(gram)), best]
