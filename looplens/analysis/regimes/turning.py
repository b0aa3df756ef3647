"""Which periodic model describes a window, fitted only where it is asked for.

Three models compete: one point per phase of an integer period, one damped harmonic, and several.
The simplest that leaves only noise wins, so the last one, which costs most, is fitted only where
the other two leave it a chance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from looplens.analysis.algebra.gram import Floats
from looplens.analysis.regimes.periodic import (
    PeriodicFit,
    Remainder,
    fold,
    harmonic,
    more_harmonics,
)
from looplens.analysis.regimes.thresholds import RegimeThresholds
from looplens.analysis.regimes.window import Window, end_motion_beside, recurrence_lag

# Below one part in a thousand all models are equally good; more parameters count against one.
_EQUALLY_GOOD = 1e-3
_PENALTY = np.array([1.0, 1 / 1.5, 1.3])[:, None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Turning:
    """The best periodic model of b windows; arrays of shape (b,).

    Attributes
    ----------
    accepted : ndarray of bool
        It leaves little, or only noise; False where no model was asked for, and NaN in the next
        three.
    period, residual, growth : ndarray
        Iterations in a turn, share of the variance left, and the power of the iteration number that
        the amplitude grows with.
    growth_error : ndarray
        Standard error of `growth`.
    weak : ndarray of bool
        It explains less than half of the motion.
    buried_spiral : ndarray of bool
        The window is the end of a decaying turn: white once that turn is taken out.
    end_motion : ndarray
        Motion at the end without white noise.
    """

    accepted: NDArray[np.bool_]
    period: Floats
    residual: Floats
    growth: Floats
    growth_error: Floats
    weak: NDArray[np.bool_]
    buried_spiral: NDArray[np.bool_]
    end_motion: Floats


def turning_of(window: Window, rows: NDArray[np.int64], limits: RegimeThresholds) -> Turning:
    """Fit periodic models to some windows.

    Parameters
    ----------
    window : Window
        Measurements of b windows.
    rows : ndarray of int
        Which of them.
    limits : RegimeThresholds
        The thresholds.
    """
    b = len(window.scale)
    turning = Turning(
        accepted=np.zeros(b, dtype=bool),
        period=np.full(b, np.nan),
        residual=np.full(b, np.nan),
        growth=np.full(b, np.nan),
        growth_error=np.zeros(b),
        weak=np.zeros(b, dtype=bool),
        buried_spiral=np.zeros(b, dtype=bool),
        end_motion=window.end_motion.copy(),
    )
    if not len(rows):
        return turning
    straight, d_model = window.straight[rows], window.d_model
    folded = fold(window.centred[rows], straight, d_model, limits.decaying_residual)
    single, rest = harmonic(straight, d_model)
    turning.end_motion[rows] = end_motion_beside(window, single, rows)
    turning.buried_spiral[rows] = _white(single, limits) & (
        -single.growth * window.centre > limits.summable_exponent
    )
    fits = [folded, single]
    cost = np.stack([_cost(fit, limits) for fit in fits])
    left = np.flatnonzero((cost * _PENALTY[:2]).min(0) > _EQUALLY_GOOD * _PENALTY[2])
    several, lag = _several(straight, left, rest, single, d_model)
    fits.append(several)
    cost = np.concatenate([cost, _cost(several, limits)[None]]) * _PENALTY
    choice = cost.argmin(0)
    near = np.abs(folded.period / single.period - 1) < 0.03
    choice = np.where((choice == 1) & near & (cost[0] < 2 * cost[1]), 0, choice)

    def chosen(name: str) -> Floats:
        values = np.stack([getattr(fit, name) for fit in fits])
        return values[choice, np.arange(len(choice))]

    # One strong turn with weak harmonics is a distorted circle; without one, look for a recurrence.
    distorted = single.residual < limits.orbit_residual
    fundamental = np.where(distorted, several.period, _fundamental(several.period, lag))
    period, residual = chosen("period"), chosen("residual")
    turning.period[rows] = np.where(choice == 2, fundamental, period)
    turning.residual[rows] = residual
    turning.growth[rows] = chosen("growth") * window.centre
    n = window.points
    dimensions = np.maximum(chosen("isotropy") * n * d_model / (n + d_model), 1.0)
    ratio = np.minimum(residual, 1.0) / np.maximum(1 - residual, 0.1)
    turning.growth_error[rows] = np.sqrt(12 / n**3 * ratio / dimensions) * window.centre
    # An orbit has to explain at least half; several harmonics are too pliable to prove a decay.
    weak = residual > limits.orbit_residual
    turning.weak[rows] = weak
    accepted = np.isfinite(cost[choice, np.arange(len(choice))])
    turning.accepted[rows] = accepted & ~((choice == 2) & weak)
    return turning


def _several(
    straight: Floats, rows: NDArray[np.int64], rest: Remainder, single: PeriodicFit, d_model: int
) -> tuple[PeriodicFit, Floats]:
    """Fit several harmonics to some rows, all others being out of the question.

    Returns the fits, and the lag of recurrence of the same windows.
    """
    b = len(straight)
    worst = {"residual": np.inf, "whiteness": np.inf, "isotropy": 0.0, "residual_trend": np.inf}
    values = {name: np.full(b, value) for name, value in worst.items()}
    lag = single.period.copy()
    if len(rows):
        part = Remainder(left=rest.left[rows], basis=rest.basis[rows], total=rest.total[rows])
        first = PeriodicFit(**{name: getattr(single, name)[rows] for name in PeriodicFit.__slots__})
        fit = more_harmonics(part, first, d_model)
        for name in worst:
            values[name][rows] = getattr(fit, name)
        lag[rows] = recurrence_lag(straight[rows])
    return PeriodicFit(period=single.period, growth=single.growth, **values), lag


def _white(fit: PeriodicFit, limits: RegimeThresholds) -> NDArray[np.bool_]:
    """Whether what a model leaves looks like white noise of full dimension."""
    return (fit.whiteness < limits.white) & (fit.isotropy > limits.isotropic)


def _cost(fit: PeriodicFit, limits: RegimeThresholds) -> Floats:
    """Return what a model leaves, not penalised for parameters; infinite if not accepted."""
    fading = fit.residual_trend < limits.fading
    accepted = (
        (fit.residual < limits.periodic_residual)
        | ((fit.residual < limits.fading_residual) & fading)
        | ((fit.residual < limits.decaying_residual) & _white(fit, limits))
    )
    return np.where(accepted, np.maximum(fit.residual, _EQUALLY_GOOD), np.inf)


def _fundamental(period: Floats, lag: Floats) -> Floats:
    """Replace the strongest turn by the lag of recurrence, where that is a few whole turns."""
    number = np.round(lag / period)
    whole = (number >= 1) & (np.abs(lag / period - number) < 0.2)
    return np.where(whole, number * period, period)
