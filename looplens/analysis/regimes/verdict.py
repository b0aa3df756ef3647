"""From the measurements of a window to a finding, and from two findings to a regime.

Each finding is one sentence about the motion in one window. A regime needs two windows that say the
same thing. This module measures nothing and formats no text.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from looplens.analysis.algebra.gram import Floats
from looplens.analysis.regimes.thresholds import RegimeThresholds
from looplens.analysis.regimes.turning import turning_of
from looplens.analysis.regimes.window import Window

FIXED_POINT, ORBIT, SLIDER, UNRESOLVED = "fixed_point", "orbit", "slider", "unresolved"
REGIMES = (FIXED_POINT, ORBIT, SLIDER, UNRESOLVED)
Bools = NDArray[np.bool_]
Codes = NDArray[np.int64]


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
# What a window too short for several frequencies, or for a cycle with corners, shows of them.
_MAY_TURN = (Finding.ORBIT, Finding.OSCILLATION_CHANGES, Finding.UNEXPLAINED)
# Regimes are numbers until they leave this package: comparing words costs more than a window.
REGIME_OF = np.full(len(Finding), REGIMES.index(UNRESOLVED))
REGIME_OF[list(_FIXED)] = REGIMES.index(FIXED_POINT)
REGIME_OF[Finding.DRIFT] = REGIMES.index(SLIDER)
REGIME_OF[Finding.ORBIT] = REGIMES.index(ORBIT)
_DRIFTING = np.array([name in (FIXED_POINT, SLIDER) for name in REGIMES])


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """Findings of b windows, with the periodic model that describes each best; shape (b,).

    ``periodic_residual`` is the share of the variance that this model leaves and
    ``growth_exponent`` the power of the iteration number that its amplitude grows with; they and
    the period are NaN where a finding came before a periodic model was asked for. ``end_motion`` is
    the motion at the end of the window without white noise, ``contraction`` the fall of the log
    step norm in an iteration, ``end_contraction`` that in the second half; ``resting`` windows end
    in motion so small that rounding may bend that fall. ``exponent`` is that of a drift. ``whole``
    windows turn in a way that a part of them is too short to show; ``folded`` ones recur after an
    integer period.
    """

    finding: NDArray[np.int64]
    period: Floats
    periodic_residual: Floats
    growth_exponent: Floats
    end_motion: Floats
    contraction: Floats
    end_contraction: Floats
    resting: Bools
    exponent: Floats
    whole: Bools
    folded: Bools

    def of(self, rows: Codes) -> Seen:
        """Return the findings of some of the windows."""
        return Seen(**{name: getattr(self, name)[rows] for name in Seen.__slots__})

    def put(self, rows: Codes, other: Seen) -> None:
        """Put other findings in the place of some."""
        for name in Seen.__slots__:
            getattr(self, name)[rows] = getattr(other, name)


def find(
    window: Window, limits: RegimeThresholds, *, turns: float, first: Seen | None = None
) -> Seen:
    """Decide what a window shows.

    Parameters
    ----------
    window : Window
        Measurements of b windows.
    limits : RegimeThresholds
        The thresholds.
    turns : float
        Turns that an orbit must complete in this window.
    first : Seen, optional
        What the long window showed, where this is the late one.
    """
    size = (window.points, window.d_model)
    white = (window.smooth_whiteness < limits.white_limit(*size)) & (
        window.smooth_isotropy > limits.isotropic_limit(*size)
    )
    directed = (
        (window.linear_share > limits.drift_share)
        & (window.drift_cosine > limits.drift_cosine)
        & (window.drift_significance > limits.drift_significance)
    )
    trend = white & _trend_in_noise(window)
    drifts = (directed & (white | (window.smooth_residual < limits.smooth_residual))) | trend
    summable = limits.summable_exponent
    exponent, uncertain = _exponent(window, limits)
    # Few states in noise often seem to accelerate, so that has to be sure.
    hasty = exponent < limits.accelerating_exponent
    accelerates = exponent + 2 * window.drift_exponent_error < limits.accelerating_exponent
    uncertain |= hasty & ~accelerates
    uncertain |= (exponent > limits.slider_limit(2 * window.centre)) & (exponent < summable)

    contracting = _contracting(window, limits)
    settles = drifts & ~uncertain & (exponent > summable)
    less = ~(window.settled_ratio >= limits.settled_ratio)
    # Periodic models cost most, so they are fitted where nothing simpler is found, and where noise
    # about a harmonic could be what still moves.
    ending = (contracting | settles) & less & (window.end_motion >= limits.end_motion)
    asked = ~window.converged & (~(contracting | drifts) | ending)
    if first is not None:
        slowing = ~_same_rate(
            first, window.step_exponent / window.centre, window.end_contraction, limits
        )
        slowing &= first.finding == Finding.CONTRACTING
        asked |= slowing & ~window.converged & (window.end_motion >= window.rest)
    turn = turning_of(window, np.flatnonzero(asked), limits)
    # Fewer turns do where all that came before looks the same, and there are three of them.
    record = 2 * window.centre / turn.period
    long = (window.points / turn.period >= limits.fewest_turns) & (record >= 3)
    long &= (np.abs(np.log(window.settled_ratio)) < 0.2) & (first is None) & turn.simple
    turning = turn.accepted & ((window.points / turn.period >= turns) | long)
    steady = np.abs(turn.growth) < limits.steady_growth + 2 * turn.growth_error
    # A trajectory that passes a saddle shrinks its steps for a while like one that settles. That
    # the steps fall is not enough: the motion has to be nearly over, and less than it was.
    died_down = (turn.end_motion < limits.end_motion) & less
    spiral = turning & (-turn.growth > limits.spiral_exponent)

    tests: list[tuple[Finding, Bools]] = [
        (Finding.CONVERGED, window.converged),
        (Finding.CONTRACTING, contracting & died_down),
        (Finding.STILL_MOVING, contracting),
        (Finding.DRIFT_UNCERTAIN, drifts & uncertain),
        (Finding.DRIFT_SETTLES, settles & died_down),
        (Finding.STILL_MOVING, settles),
        (Finding.DRIFT_ACCELERATES, drifts & accelerates),
        (Finding.DRIFT, drifts),
        # A line with a cycle on it drifts; a transient with a cycle on it ends in the cycle.
        (Finding.DRIFT, directed & turning & steady & (exponent < 1.0)),
        # The cycle may be smaller than the noise.
        (Finding.DRIFT, directed & turn.white_beside & ~uncertain & (np.abs(exponent) < 1.0)),
        (Finding.ORBIT, turning & steady & ~turn.weak),
        (Finding.SPIRAL, spiral & died_down),
        (Finding.STILL_MOVING, spiral),
        (Finding.OSCILLATION_CHANGES, turning & ~turn.weak),
        (
            Finding.NOISE_FLOOR,
            (white | turn.buried_spiral) & (window.settled_ratio < limits.settled_ratio),
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
        period=turn.period,
        periodic_residual=turn.residual,
        growth_exponent=turn.growth,
        end_motion=turn.end_motion,
        contraction=window.step_exponent / window.centre,
        end_contraction=window.end_contraction,
        resting=turn.end_motion < window.rest,
        exponent=exponent,
        folded=turn.folded,
        whole=turn.whole | long | (directed & turning & steady),
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


def _trend_in_noise(window: Window) -> Bools:
    """Whether white motion has a faint but sure trend."""
    expected = (1 + 4 * np.sqrt(2 / window.noise_dimensions)) / (window.points - 1)
    return window.linear_share > expected


def _exponent(window: Window, limits: RegimeThresholds) -> tuple[Floats, Bools]:
    """Exponent of a drift, and whether noise hides on which side of the limit it lies.

    That of the window itself counts. Where noise leaves it open, the one that looks back to the
    beginning decides, if the two are compatible.
    """
    own, early = window.drift_exponent, window.early_exponent
    own_error, early_error = window.drift_exponent_error, window.early_exponent_error
    limit = limits.summable_exponent
    open_ = np.abs(own - limit) < 2 * own_error
    closed = (np.abs(early - limit) > 2 * early_error) & (
        np.abs(early - own) < 2 * np.hypot(own_error, early_error)
    )
    return np.where(open_ & closed, early, own), open_ & ~closed


def agree(first: Seen, second: Seen, limits: RegimeThresholds) -> tuple[Codes, Bools]:
    """Join the findings of the long and of the late window.

    Returns
    -------
    regime : ndarray of int
        The regime both stand for, else ``unresolved``, as an index into `REGIMES`. A drift that may
        or may not settle does not contradict either; nor does an oscillation that still changes its
        amplitude in the long window contradict a steady one in the late window.
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
    orbit, unresolved = REGIMES.index(ORBIT), REGIMES.index(UNRESOLVED)
    one_drifts, two_drifts = _DRIFTING[one], _DRIFTING[two]
    late = ((first.finding == Finding.DRIFT_UNCERTAIN) & two_drifts) | (
        (first.finding == Finding.OSCILLATION_CHANGES) & (two == orbit) & same
    )
    keep = (one == two) & ((one != orbit) | same)
    keep |= (second.finding == Finding.DRIFT_UNCERTAIN) & one_drifts
    exact = first.periodic_residual < limits.periodic_residual
    keep |= (
        np.isin(first.finding, (Finding.ORBIT, Finding.DRIFT))
        & first.whole
        & (np.isin(second.finding, _MAY_TURN) | exact)
    )
    keep &= ~rates_differ(first, second, limits)
    return np.where(late, two, np.where(keep, one, unresolved)), late


def rates_differ(first: Seen, second: Seen, limits: RegimeThresholds) -> Bools:
    """Whether the late window contradicts a contraction of the long one, other than by rest."""
    same = _same_rate(first, second.contraction, second.end_contraction, limits)
    ended = np.isin(second.finding, (Finding.CONVERGED, Finding.NOISE_FLOOR)) | second.resting
    return (first.finding == Finding.CONTRACTING) & ~same & ~ended


def _same_rate(
    first: Seen, contraction: Floats, end_contraction: Floats, limits: RegimeThresholds
) -> Bools:
    """Whether steps fall in the late window, and at its end, about as fast as in the long one."""
    fall = np.where(first.contraction > 0, first.contraction, np.inf)
    ratio = contraction / fall
    return (
        (ratio > limits.same_rate)
        & (ratio < 1 / limits.same_rate)
        & (end_contraction / fall > limits.end_rate)
    )
