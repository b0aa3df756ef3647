"""Which periodic model describes a window, fitted only where it is asked for.

Three models compete: one point per phase of an integer period, one damped harmonic, and several.
The simplest that leaves only noise wins, so the last one, which costs most, is fitted only where
the other two leave it a chance. Where none is accepted, a cycle of any shape is looked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from looplens.analysis.algebra.gram import TINY, Floats
from looplens.analysis.regimes.accepting import EQUALLY_GOOD, cost_of, is_white
from looplens.analysis.regimes.periodic import (
    PeriodicFit,
    Remainder,
    fold,
    harmonic,
    more_harmonics,
)
from looplens.analysis.regimes.phases import LEAST_TURNS, SHORTEST, bends, phase_fit
from looplens.analysis.regimes.thresholds import RegimeThresholds
from looplens.analysis.regimes.window import Window, end_motion_beside, recurrence_lag

_CURVE = 0.01  # states that miss the line between their neighbours by less lie on a curve
FEW_AND_MANY = (3, 6)  # harmonics to try in turn
# More parameters count against a model.
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
        It leaves more of the motion than an orbit of so many states may.
    buried_spiral : ndarray of bool
        The window is the end of a decaying turn: white once that turn is taken out.
    white_beside : ndarray of bool
        What one damped harmonic leaves is white, however much that is.
    end_motion : ndarray
        Motion at the end without white noise.
    single : ndarray
        Share that one damped harmonic leaves: small where most of the motion is one rotation.
    whole : ndarray of bool
        The model is of several frequencies or of any shape, steady over the whole window: a part
        of the window is too short to find it again.
    simple : ndarray of bool
        The model is one or a few harmonics, too stiff to follow any curve for a turn or two.
    folded : ndarray of bool
        The model is one point per phase of an integer period.
    """

    accepted: NDArray[np.bool_]
    period: Floats
    residual: Floats
    growth: Floats
    growth_error: Floats
    weak: NDArray[np.bool_]
    buried_spiral: NDArray[np.bool_]
    white_beside: NDArray[np.bool_]
    end_motion: Floats
    single: Floats
    whole: NDArray[np.bool_]
    folded: NDArray[np.bool_]
    simple: NDArray[np.bool_]


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
        white_beside=np.zeros(b, dtype=bool),
        end_motion=window.end_motion.copy(),
        single=np.full(b, np.nan),
        whole=np.zeros(b, dtype=bool),
        folded=np.zeros(b, dtype=bool),
        simple=np.zeros(b, dtype=bool),
    )
    if not len(rows):
        return turning
    straight, d_model = window.straight[rows], window.d_model
    folded = fold(
        window.centred[rows],
        straight,
        d_model,
        above=limits.periodic_residual,
        below=limits.decaying_residual,
    )
    single, rest = harmonic(straight, d_model)
    turning.end_motion[rows] = end_motion_beside(window, single, rows)
    turning.single[rows] = single.residual
    size = (window.points, d_model)
    turning.white_beside[rows] = is_white(single, limits, size)
    turning.buried_spiral[rows] = turning.white_beside[rows] & (
        -single.growth * window.centre > limits.summable_exponent
    )
    fits = [folded, single]
    cost = np.stack([cost_of(fit, limits, size) for fit in fits])
    # White or not cannot be told of the few numbers that a long period leaves.
    cost[
        0, (folded.period > 0.4 * window.points) & (folded.residual > limits.periodic_residual)
    ] = np.inf
    left = np.flatnonzero((cost * _PENALTY[:2]).min(0) > EQUALLY_GOOD * _PENALTY[2])
    several, lag, few = _several(straight, left, rest, single, d_model, limits)
    fits.append(several)
    cost = np.concatenate([cost, cost_of(several, limits, size, stiff=False)[None]]) * _PENALTY
    choice = cost.argmin(0)
    near = np.abs(folded.period / single.period - 1) < 0.03
    choice = np.where((choice == 1) & near & (cost[0] < 2 * cost[1]), 0, choice)

    def chosen(name: str) -> Floats:
        values = np.stack([getattr(fit, name) for fit in fits])
        return values[choice, np.arange(len(choice))]

    # One strong turn with weak harmonics is a distorted circle; without one, look for a recurrence.
    distorted = single.residual < limits.orbit_residual
    fundamental = np.where(distorted, several.period, fundamental_of(several.period, lag))
    period, residual = chosen("period"), chosen("residual")
    fundamental = np.where(limits.turns * fundamental > window.points, several.period, fundamental)
    turning.period[rows] = np.where(choice == 2, fundamental, period)
    turning.residual[rows] = residual
    growth = chosen("growth") * window.centre
    growth[choice == 2] = _steadiest(growth, window, rows, residual)[choice == 2]
    turning.growth[rows] = growth
    n = window.points
    dimensions = np.maximum(chosen("isotropy") * n * d_model / (n + d_model), 1.0)
    ratio = np.minimum(residual, 1.0) / np.maximum(1 - residual, 0.1)
    turning.growth_error[rows] = np.sqrt(12 / n**3 * ratio / dimensions) * window.centre
    # Several harmonics are too pliable to prove a decay.
    weak = residual > limits.orbit_limit(window.points)
    turning.weak[rows] = weak
    accepted = np.isfinite(cost[choice, np.arange(len(choice))])
    turning.accepted[rows] = accepted & ~((choice == 2) & weak)
    _shorten(
        turning, window, rows[accepted & (choice == 0)], single.period[accepted & (choice == 0)]
    )
    seldom = (choice == 0) & (window.points > LEAST_TURNS * period)
    turning.folded[rows] = accepted & (choice == 0)
    turning.simple[rows] = accepted & ((choice == 1) | ((choice == 2) & few))
    turning.whole[rows] = accepted & (seldom | (choice == 2))
    _of_any_shape(turning, window, rows[~accepted], single.period[~accepted], limits)
    return turning


def _shorten(turning: Turning, window: Window, rows: NDArray[np.int64], strongest: Floats) -> None:
    """Give a turn that is no whole number of iterations, where several of them are folded as one.

    A turn of 4.6 iterations fits a fold of 23 phases. It counts as the turn where those 23, in the
    order of their phase in it, lie on a curve.
    """
    period = turning.period[rows]
    number = np.round(period / strongest)
    near = np.abs(period / (number * strongest) - 1) < 0.03
    for place in np.flatnonzero(near & (number > 1) & (strongest > SHORTEST)):
        row = rows[place]
        count = int(period[place])
        circle = (1 - np.cos(2 * np.pi / count)) ** 2 / 1.5  # what so many points of one miss
        if bends(window.straight[row], count, int(number[place])) < max(_CURVE, 1.5 * circle):
            turning.period[row] = strongest[place]
            turning.folded[row] = False


def _of_any_shape(
    turning: Turning,
    window: Window,
    rows: NDArray[np.int64],
    strongest: Floats,
    limits: RegimeThresholds,
) -> None:
    """Look for a cycle of any shape, where no other model was accepted; fills in `turning`."""
    if not len(rows):
        return
    straight = window.straight[rows]
    lag = recurrence_lag(straight)
    # The strongest turn may be the second or third harmonic of the cycle.
    starts = np.stack([1 / strongest, 0.5 / strongest, 1 / (3 * strongest), 1 / lag], axis=1)
    # About the mean and not about a line, which tilts a cycle that is cut off within a turn.
    noisy = (limits.shape_residual, limits.noisy_residual)
    fit = phase_fit(window.centred[rows], starts, window.d_model, noisy=noisy)
    white = is_white(fit, limits, (window.points, window.d_model))
    hit = fit.residual < limits.shape_residual
    hit |= (
        (fit.residual < limits.noisy_residual)
        & (fit.corners < 2 * limits.shape_residual)
        & (fit.along < limits.shape_residual)
        & white
    )
    hit &= (fit.late < 3) & (fit.gap < limits.shape_gap)
    growth = _steadiest(np.full(len(rows), np.inf), window, rows, fit.residual)
    found = rows[hit]
    turning.accepted[found], turning.whole[found], turning.weak[found] = True, True, False
    turning.period[found], turning.residual[found] = fit.period[hit], fit.residual[hit]
    turning.growth[found] = growth[hit]


def _steadiest(growth: Floats, window: Window, rows: NDArray[np.int64], residual: Floats) -> Floats:
    """Of estimates of the growth of amplitude, the one nearest to none.

    Beats of several frequencies, and corners, make any one of them look like growth or decay for a
    while: of the strongest harmonic, between the halves of the window, and between the window and
    all that came before it.
    """
    n, centre = window.points, window.centre
    energy = np.diagonal(window.straight[rows], axis1=1, axis2=2)
    noise = residual * energy.mean(1)
    early = np.maximum(energy[:, : n // 2].mean(1) - noise, TINY)
    late = np.maximum(energy[:, n - n // 2 :].mean(1) - noise, TINY)
    halves = 0.5 * np.log(late / early) / np.log((centre + 0.25 * n) / (centre - 0.25 * n))
    before = max(centre - 0.5 * n, 1.0)
    with np.errstate(divide="ignore"):
        whole = np.log(window.settled_ratio[rows]) / np.log(2 * centre / before)
    candidates = np.stack([growth, halves, np.where(np.isfinite(whole), whole, np.inf)])
    return candidates[np.abs(candidates).argmin(0), np.arange(len(rows))]


def _several(
    straight: Floats,
    rows: NDArray[np.int64],
    rest: Remainder,
    single: PeriodicFit,
    d_model: int,
    limits: RegimeThresholds,
) -> tuple[PeriodicFit, Floats, NDArray[np.bool_]]:
    """Fit several harmonics to some rows, all others being out of the question.

    As few as are accepted: in noise, more of them than there are leave less that looks like noise.
    Returns the fits, the lag of recurrence of the same windows, and where the fewest did.
    """
    size = (straight.shape[1], d_model)
    few = np.zeros(len(straight), dtype=bool)
    b = len(straight)
    worst = {"residual": np.inf, "whiteness": np.inf, "isotropy": 0.0, "residual_trend": np.inf}
    worst["along"] = np.inf
    values = {name: np.full(b, value) for name, value in worst.items()}
    lag = single.period.copy()
    lag[rows] = recurrence_lag(straight[rows]) if len(rows) else lag[rows]
    part = _of(rest, rows)
    for count in FEW_AND_MANY:
        if not len(rows):
            break
        first = PeriodicFit(**{name: getattr(single, name)[rows] for name in PeriodicFit.__slots__})
        fit, part = more_harmonics(part, first, d_model, count)
        for name in worst:
            values[name][rows] = getattr(fit, name)
        done = np.isfinite(cost_of(fit, limits, size, stiff=False))
        few[rows[done]] = count == FEW_AND_MANY[0]
        rows, part = rows[~done], _of(part, ~done)
    return PeriodicFit(period=single.period, growth=single.growth, **values), lag, few


def _of(rest: Remainder, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Remainder:
    """Return what is left of some windows."""
    return Remainder(**{name: getattr(rest, name)[rows] for name in Remainder.__slots__})


def fundamental_of(period: Floats, lag: Floats) -> Floats:
    """Replace the strongest turn by the lag of recurrence, where that is a few whole turns."""
    number = np.round(lag / period)
    whole = (number >= 1) & (np.abs(lag / period - number) < 0.2)
    return np.where(whole, number * period, period)
