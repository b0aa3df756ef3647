"""What one window of a trajectory looks like: the numbers that a regime is decided on.

Measures spread, drift, contraction and periodicity of each trajectory in a window, batched. Draws
no conclusion from them beyond whether the motion exceeds rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from looplens.analysis._gram import (
    TINY,
    Floats,
    column_lag_sums,
    isotropy,
    lag_sums,
    mean_square_displacement,
    noise_dimensions,
    polynomials,
    project_out,
    whiteness,
)
from looplens.analysis._periodic import PeriodicFit, fold, harmonics

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
        Spread of the last third, without what white noise adds to it, over the root-mean-square
        norm: the motion that has not died down.
    resting : ndarray of bool
        That motion is no more than ten times what rounding may be.
    linear_share : ndarray
        Share of the variance on a straight line in time.
    drift_cosine, drift_significance : ndarray
        From the means of the three thirds: the cosine between the two displacements, and the square
        of the later one over what white noise of the size of the detrended residual would show.
    drift_exponent, drift_exponent_error : ndarray
        Exponent q of a drift whose steps shrink like t^-q, and its standard error.
    smooth_residual, smooth_whiteness, smooth_isotropy, noise_dimensions : ndarray
        What a cubic in time leaves: share, largest autocorrelation, participation ratio over that
        of white noise.
    step_exponent, step_t : ndarray
        Exponent q of step norms that shrink like t^-q around the centre, from a line through their
        logarithms, and the t-statistic of that line's slope.
    end_contraction : ndarray
        Fall of the logarithm of the step norm in an iteration, in the second half of the window.
    still_shrinking : ndarray of bool
        Steps of the last third are smaller than those of the middle third, or rounding.
    folded, harmonic, several : PeriodicFit
        Periodic models.
    recurrence_lag : ndarray
        Smallest lag whose mean square displacement is near the least of all.
    """

    points: int
    d_model: int
    centre: float
    amplitude: Floats
    converged: NDArray[np.bool_]
    settled_ratio: Floats
    end_motion: Floats
    resting: NDArray[np.bool_]
    linear_share: Floats
    drift_cosine: Floats
    drift_significance: Floats
    drift_exponent: Floats
    drift_exponent_error: Floats
    smooth_residual: Floats
    smooth_whiteness: Floats
    smooth_isotropy: Floats
    noise_dimensions: Floats
    step_exponent: Floats
    step_t: Floats
    end_contraction: Floats
    still_shrinking: NDArray[np.bool_]
    folded: PeriodicFit
    harmonic: PeriodicFit
    several: PeriodicFit
    recurrence_lag: Floats


def spread(states: Floats) -> Floats:
    """Root-mean-square distance from the mean over the points, (b, n, d) to (b,)."""
    return np.sqrt(((states - states.mean(1, keepdims=True)) ** 2).sum(-1).mean(-1))


def has_converged(window: Floats, floor: float) -> NDArray[np.bool_]:
    """Whether the last third of each window (b, n, d) spreads by no more than rounding.

    `floor` is the largest relative spread that is rounding.
    """
    scale = np.sqrt((window**2).sum(-1).mean(-1))
    last = window[:, -max(4, window.shape[1] // 3) :]
    return spread(last) <= scale * floor


def measure(states: Floats, points: int, floor: float, rounding: float) -> Window:
    """Measure the last `points` states of each trajectory.

    Parameters
    ----------
    states : ndarray of float64, shape (b, N, d_model)
        Whole trajectories; the index along N is the iteration.
    points : int
        Length n of the window.
    floor, rounding : float
        Largest relative spread that is rounding, and the relative step of rounding alone.
    """
    b, length, d_model = states.shape
    n = points
    start = length - n
    window = states[:, start:]
    centre = start + 0.5 * (n - 1)
    mean = window.mean(1, keepdims=True)
    centred = window - mean
    variance = (centred**2).sum(-1).mean(-1)
    scale = np.sqrt((window**2).sum(-1).mean(-1))
    before = np.full(b, np.nan)
    if start:
        before = np.sqrt(((states[:, :start] - mean) ** 2).sum(-1).mean(-1))
    total = np.maximum(n * variance, TINY)

    basis = polynomials(n)
    line = basis[:, 1] @ centred  # b d
    detrended = centred - basis[:, 1, None] * line[:, None, :]
    straight = detrended @ np.swapaxes(detrended, 1, 2)
    smooth = project_out(straight, basis[:, 2:])
    smooth_left = np.maximum(np.trace(smooth, axis1=1, axis2=2), 0.0)
    white = whiteness(smooth, column_lag_sums(basis))
    # If the residual is noise, its variance per sample; if it is not, no noise is taken off.
    noise = np.where(white < 0.5, smooth_left / (n - 4), 0.0)
    dimensions = noise_dimensions(smooth, n - 4, d_model)
    cosine, significance, exponent, error = _drift(centred, centre, noise, dimensions)
    step_exponent, step_t, end_contraction, shrinking = _steps(window, scale * rounding, centre)
    single, several = harmonics(straight, d_model)
    fullness = isotropy(smooth, d_model, n - 4)
    turning_noise = single.residual * np.trace(straight, axis1=1, axis2=2) / (n - 2)
    end_noise = np.maximum(
        np.where((white < WHITE) & (fullness > ISOTROPIC), smooth_left / (n - 4), 0.0),
        np.where((single.whiteness < WHITE) & (single.isotropy > ISOTROPIC), turning_noise, 0.0),
    )
    end_motion = _end_motion(window, end_noise, dimensions) / np.maximum(scale, TINY)
    return Window(
        points=n,
        d_model=d_model,
        centre=centre,
        amplitude=np.sqrt(variance) / np.maximum(scale, TINY),
        converged=has_converged(window, floor),
        settled_ratio=np.sqrt(variance) / np.maximum(before, TINY),
        end_motion=end_motion,
        resting=end_motion < 10 * floor,
        linear_share=(line**2).sum(-1) / total,
        drift_cosine=cosine,
        drift_significance=significance,
        drift_exponent=exponent,
        drift_exponent_error=error,
        smooth_residual=smooth_left / total,
        smooth_whiteness=white,
        smooth_isotropy=fullness,
        noise_dimensions=dimensions,
        step_exponent=step_exponent,
        step_t=step_t,
        end_contraction=end_contraction,
        still_shrinking=shrinking,
        folded=fold(centred @ np.swapaxes(centred, 1, 2), straight, d_model),
        harmonic=single,
        several=several,
        recurrence_lag=_recurrence_lag(straight),
    )


def _drift(
    centred: Floats, centre: float, noise: Floats, dimensions: Floats
) -> tuple[Floats, Floats, Floats, Floats]:
    """Cosine, significance, exponent and its error, from the means of the three thirds."""
    n = centred.shape[1]
    third = n // 3
    outer = (n - third) // 2  # the middle block lies symmetrically, at the cost of one point more
    means = (
        centred[:, :third].mean(1),
        centred[:, outer : n - outer].mean(1),
        centred[:, n - third :].mean(1),
    )
    early, late = means[1] - means[0], means[2] - means[1]
    early_square, late_square = (early**2).sum(-1), (late**2).sum(-1)
    cosine = (early * late).sum(-1) / np.maximum(np.sqrt(early_square * late_square), TINY)
    mean_noise = noise / third
    significance = late_square / np.maximum(2.0 * mean_noise, TINY)
    # Along the whole displacement, where white noise counts with one dimension only; it is expected
    # to add the variance of one mean to each of the two products.
    whole = early + late
    whole_square = np.maximum((whole**2).sum(-1), TINY)
    first = np.maximum((early * whole).sum(-1) - mean_noise, 1e-6 * whole_square)
    second = np.maximum((late * whole).sum(-1) - mean_noise, 1e-6 * whole_square)
    gap = 0.25 * (n - third)  # the two displacements are centred this far from the middle
    unit = np.log((centre + gap) / (centre - gap))
    # The error of log(first / second) is that of twice the middle mean less the outer two.
    error = 2.0 * np.sqrt(6.0 * mean_noise / dimensions / whole_square)
    return cosine, significance, np.log(first / second) / unit, error / unit


def _steps(
    window: Floats, rounding: Floats, centre: float
) -> tuple[Floats, Floats, Floats, NDArray[np.bool_]]:
    """Exponent of the step norms, its t-statistic, contraction at the end, whether they shrink."""
    steps = np.sqrt((np.diff(window, axis=1) ** 2).sum(-1))
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


def _end_motion(window: Floats, noise: Floats, dimensions: Floats) -> Floats:
    """Spread of the last third less that of white noise of this variance."""
    third = window[:, -(window.shape[1] // 3) :]
    # Two standard errors of the noise variance in so few states.
    noise = noise * (1 + 2 * np.sqrt(2 / (third.shape[1] * dimensions)))
    return np.sqrt(np.maximum(spread(third) ** 2 - noise, 0.0))


def _recurrence_lag(gram: Floats) -> Floats:
    """Smallest lag >= 2, up to half the window, whose displacement is near the least."""
    displacement = mean_square_displacement(gram, lag_sums(gram))
    near = displacement[:, 1 : max(2, (displacement.shape[1] + 1) // 2)]
    limit = 1.5 * near.min(1) + 1e-6 * displacement.max(1)
    return 2.0 + (near <= limit[:, None]).argmax(1)
