"""From the measurements of a window to a finding, and from two findings to a regime.

Each finding is one sentence about the motion in one window. A regime needs two windows that say the
same thing. This module measures nothing and formats no text.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from looplens.analysis._gram import Floats
from looplens.analysis._thresholds import RegimeThresholds
from looplens.analysis._window import Window

FIXED_POINT, ORBIT, SLIDER, UNRESOLVED = "fixed_point", "orbit", "slider", "unresolved"
REGIMES = (FIXED_POINT, ORBIT, SLIDER, UNRESOLVED)
Bools = NDArray[np.bool_]


class Finding(IntEnum):
    """What one window shows."""

    UNEXPLAINED = 0
    CONVERGED = 1
    CONTRACTING = 2
    DRIFT_SETTLES = 3
    DRIFT_UNCERTAIN = 4
    DRIFT_ACCELERATES = 5
    DRIFT = 6
    ORBIT = 7
    SPIRAL = 8
    OSCILLATION_CHANGES = 9
    NOISE_FLOOR = 10
    STRUCTURELESS = 11
    STILL_MOVING = 12


_FIXED = (
    Finding.CONVERGED,
    Finding.CONTRACTING,
    Finding.DRIFT_SETTLES,
    Finding.SPIRAL,
    Finding.NOISE_FLOOR,
)
REGIME_OF = np.full(len(Finding), UNRESOLVED, dtype="<U11")
REGIME_OF[list(_FIXED)] = FIXED_POINT
REGIME_OF[Finding.DRIFT] = SLIDER
REGIME_OF[Finding.ORBIT] = ORBIT


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """Findings of b windows, with the periodic model that describes each best; shape (b,).

    ``periodic_residual`` is the share of the variance that this model leaves and
    ``growth_exponent`` the power of the iteration number that its amplitude grows with.
    ``contraction`` is the fall of the log step norm in an iteration, ``end_contraction`` that in
    the second half; ``resting`` windows end in motion so small that rounding may bend that fall.
    """

    finding: NDArray[np.int64]
    period: Floats
    periodic_residual: Floats
    growth_exponent: Floats
    contraction: Floats
    end_contraction: Floats
    resting: Bools


def find(window: Window, limits: RegimeThresholds, *, turns: float) -> Seen:
    """Decide what a window shows.

    Parameters
    ----------
    window : Window
        Measurements of b windows.
    limits : RegimeThresholds
        The thresholds.
    turns : float
        Turns that an orbit must complete in this window.
    """
    white = (window.smooth_whiteness < limits.white) & (window.smooth_isotropy > limits.isotropic)
    directed = (
        (window.linear_share > limits.drift_share)
        & (window.drift_cosine > limits.drift_cosine)
        & (window.drift_significance > limits.drift_significance)
    )
    drifts = directed & (white | (window.smooth_residual < limits.smooth_residual))
    exponent, summable = window.drift_exponent, limits.summable_exponent
    uncertain = np.abs(exponent - summable) < 2 * window.drift_exponent_error

    accepted, period, residual, growth, error, weak = _periodic(window, limits)
    completed = window.points / period
    turning = accepted & (completed >= turns)
    steady = np.abs(growth) < limits.steady_growth + 2 * error
    decaying = -growth > summable
    # A trajectory that passes a saddle shrinks its steps for a while like one that settles. That
    # the steps fall is not enough: the motion has to be nearly over, and less than it was.
    died_down = (window.end_motion < limits.end_motion) & ~(
        window.settled_ratio >= limits.settled_ratio
    )
    contracting = _contracting(window, limits)
    settles = drifts & ~uncertain & (exponent > summable)
    spiral = turning & decaying

    tests: list[tuple[Finding, Bools]] = [
        (Finding.CONVERGED, window.converged),
        (Finding.CONTRACTING, contracting & died_down),
        (Finding.STILL_MOVING, contracting),
        (Finding.DRIFT_UNCERTAIN, drifts & uncertain),
        (Finding.DRIFT_SETTLES, settles & died_down),
        (Finding.STILL_MOVING, settles),
        (Finding.DRIFT_ACCELERATES, drifts & (exponent < limits.accelerating_exponent)),
        (Finding.DRIFT, drifts),
        # A line with a cycle on it drifts; a transient with a cycle on it ends in the cycle.
        (Finding.DRIFT, directed & turning & steady & ~weak & (exponent < 1.0)),
        (Finding.ORBIT, turning & steady & ~weak),
        (Finding.SPIRAL, spiral & died_down),
        (Finding.STILL_MOVING, spiral),
        (Finding.OSCILLATION_CHANGES, turning & ~weak),
        (Finding.DRIFT_UNCERTAIN, white & _buried_drift(window, limits)),
        (
            Finding.NOISE_FLOOR,
            (white | _buried_spiral(window, limits))
            & (window.settled_ratio < limits.settled_ratio),
        ),
        (Finding.STRUCTURELESS, white),
    ]
    finding = np.select(
        [hit for _, hit in tests],
        [np.int64(name) for name, _ in tests],
        default=np.int64(Finding.UNEXPLAINED),
    )
    return Seen(
        finding=finding,
        period=period,
        periodic_residual=residual,
        growth_exponent=growth,
        contraction=window.step_exponent / window.centre,
        end_contraction=window.end_contraction,
        resting=window.resting,
    )


def _contracting(window: Window, limits: RegimeThresholds) -> Bools:
    """Whether log step norms fall on a straight line, and far enough."""
    fit = window.step_t**2 / (window.step_t**2 + window.points - 3)
    fall = window.step_exponent * window.points / window.centre  # of log step, over the window
    # The later window is shorter, and a trajectory that is still slow falls less within it.
    share = np.minimum(1.5 * window.points / window.centre, 1.0)
    return (
        (fit > limits.contraction_fit)
        & (fall > limits.contraction_fall * share)
        & window.still_shrinking
    )


def _periodic(
    window: Window, limits: RegimeThresholds
) -> tuple[Bools, Floats, Floats, Floats, Floats, Bools]:
    """Choose between folding, one harmonic and several: the simplest that leaves only noise."""
    fits = (window.folded, window.harmonic, window.several)
    residual = np.stack([fit.residual for fit in fits])
    white = np.stack(
        [(fit.whiteness < limits.white) & (fit.isotropy > limits.isotropic) for fit in fits]
    )
    fading = np.stack([fit.residual_trend < limits.fading for fit in fits])
    accepted = (
        (residual < limits.periodic_residual)
        | ((residual < limits.fading_residual) & fading)
        | ((residual < limits.decaying_residual) & white)
    )
    # Below one part in a thousand all models are equally good; more parameters count against one.
    penalty = np.array([1.0, 1 / 1.5, 1.3])[:, None]
    cost = np.where(accepted, np.maximum(residual, 1e-3) * penalty, np.inf)
    choice = cost.argmin(0)
    near = np.abs(window.folded.period / window.harmonic.period - 1) < 0.03
    choice = np.where((choice == 1) & near & (cost[0] < 2 * cost[1]), 0, choice)

    rows = np.arange(len(choice))
    period = np.stack([fit.period for fit in fits])
    # One strong turn with weak harmonics is a distorted circle; without one, look for a recurrence.
    several = _fundamental(period[2], window.recurrence_lag)
    period[2] = np.where(residual[1] < limits.orbit_residual, period[2], several)
    growth = np.stack([fit.growth for fit in fits])[choice, rows] * window.centre
    left = residual[choice, rows]
    isotropy = np.stack([fit.isotropy for fit in fits])[choice, rows]
    n = window.points
    dimensions = np.maximum(isotropy * n * window.d_model / (n + window.d_model), 1.0)
    ratio = np.minimum(left, 1.0) / np.maximum(1 - left, 0.1)
    error = np.sqrt(12 / n**3 * ratio / dimensions) * window.centre
    # An orbit has to explain at least half; several harmonics are too pliable to prove a decay.
    weak = left > limits.orbit_residual
    accepted_best = np.isfinite(cost[choice, rows])
    accepted_best &= ~((choice == 2) & weak)
    return accepted_best, period[choice, rows], left, growth, error, weak


def _fundamental(period: Floats, lag: Floats) -> Floats:
    """Replace the strongest turn by the lag of recurrence, where that is a few whole turns."""
    number = np.round(lag / period)
    whole = (number >= 1) & (np.abs(lag / period - number) < 0.2)
    return np.where(whole, number * period, period)


def _buried_drift(window: Window, limits: RegimeThresholds) -> Bools:
    """Whether white motion, not much smaller than what came before, has a faint but sure trend."""
    expected = (1 + 4 * np.sqrt(2 / window.noise_dimensions)) / (window.points - 1)
    return (window.linear_share > expected) & (window.settled_ratio > 0.5 * limits.settled_ratio)


def _buried_spiral(window: Window, limits: RegimeThresholds) -> Bools:
    """Whether a window is the end of a decaying turn: white once that turn is taken out."""
    fit = window.harmonic
    return (
        (fit.whiteness < limits.white)
        & (fit.isotropy > limits.isotropic)
        & (-fit.growth * window.centre > limits.summable_exponent)
    )


def agree(first: Seen, second: Seen, limits: RegimeThresholds) -> tuple[NDArray[np.str_], Bools]:
    """Join the findings of the long and of the late window.

    Returns
    -------
    regime : ndarray of str
        The regime both stand for, else ``unresolved``. A drift that may or may not settle does not
        contradict either; nor does an oscillation that still changes its amplitude in the long
        window contradict a steady one in the late window.
    late : ndarray of bool
        Where the late window decided.

    Notes
    -----
    The windows end at the same place, so that the late one falls in with the long one is little
    evidence. It confirms a contraction only at about the same rate, and to its end: what slows down
    may be passing a saddle.
    """
    one, two = REGIME_OF[first.finding], REGIME_OF[second.finding]
    ratio = np.maximum(first.period / second.period, second.period / first.period)
    # A window too short for the whole cycle shows its strongest turn, several of which make it.
    same = (np.abs(ratio / np.round(ratio) - 1) < 0.05) & (ratio < 4.5)
    drifting = (FIXED_POINT, SLIDER)
    late = ((first.finding == Finding.DRIFT_UNCERTAIN) & np.isin(two, drifting)) | (
        (first.finding == Finding.OSCILLATION_CHANGES) & (two == ORBIT) & same
    )
    keep = (one == two) & ((one != ORBIT) | same)
    keep |= (second.finding == Finding.DRIFT_UNCERTAIN) & np.isin(one, drifting)
    keep &= ~rates_differ(first, second, limits)
    return np.where(late, two, np.where(keep, one, UNRESOLVED)), late


def rates_differ(first: Seen, second: Seen, limits: RegimeThresholds) -> Bools:
    """Whether the late window contradicts a contraction of the long one, other than by rest."""
    ratio = second.contraction / np.where(first.contraction > 0, first.contraction, np.inf)
    end = second.end_contraction / np.where(first.contraction > 0, first.contraction, np.inf)
    same = (ratio > limits.same_rate) & (ratio < 1 / limits.same_rate) & (end > limits.end_rate)
    ended = np.isin(second.finding, (Finding.CONVERGED, Finding.NOISE_FLOOR)) | second.resting
    return (first.finding == Finding.CONTRACTING) & ~same & ~ended
