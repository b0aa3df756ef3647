"""What sorts of each regime there are, and which one a finding is."""

from __future__ import annotations

import numpy as np

from looplens.analysis.algebra.gram import Floats, lag_sums, mean_square_displacement
from looplens.analysis.regimes.thresholds import RegimeThresholds
from looplens.analysis.regimes.verdict import (
    FIXED_POINT,
    ORBIT,
    REGIME_OF,
    REGIMES,
    SLIDER,
    UNRESOLVED,
    Codes,
    Finding,
    Seen,
)
from looplens.analysis.regimes.window import Window

KINDS_OF_REGIMES: dict[str, dict[str, str]] = {
    FIXED_POINT: {
        "converged": "the motion at the end is under the rounding floor",
        "contracting": "each step is the same share of the one before",
        "decelerating": "steps shrink like a power of t with a finite sum",
        "spiral": "a turn whose amplitude decays",
        "noise_floor": "white noise, small beside the distance it came from",
    },
    ORBIT: {
        "own": "of a large relative amplitude",
        "driven": "of a small relative amplitude: likely driven by another token",
    },
    SLIDER: {
        "radial": "most of the way is along the state: the norm changes",
        "bounded": "most of the way is across the state: the direction changes",
    },
    UNRESOLVED: {
        "too_short": "fewer states than any verdict needs",
        "non_finite": "states that are not finite, or were not recorded",
        "floor": "motion within ten times the rounding floor",
        "still_moving": "steps shrink, but the motion is not over",
        "drift": "a drift of which noise or few states hide whether it settles",
        "accelerating": "a drift whose steps grow",
        "changing": "an oscillation whose amplitude changes",
        "noise": "white noise, or hops without order",
        "random_walk": "distances grow like the square root of the lag",
        "chaotic": "irregular and bounded",
        "undecided": "the two windows disagree",
    },
}
"""Regime to its kinds, each with what it means."""

KINDS = tuple(kind for kinds in KINDS_OF_REGIMES.values() for kind in kinds)
_OF_FINDING = {
    Finding.CONVERGED: "converged",
    Finding.CONTRACTING: "contracting",
    Finding.DRIFT_SETTLES: "decelerating",
    Finding.SPIRAL: "spiral",
    Finding.NOISE_FLOOR: "noise_floor",
    Finding.ORBIT: "own",
    Finding.DRIFT: "bounded",
    Finding.STILL_MOVING: "still_moving",
    Finding.DRIFT_UNCERTAIN: "drift",
    Finding.DRIFT_ACCELERATES: "accelerating",
    Finding.OSCILLATION_CHANGES: "changing",
    Finding.STRUCTURELESS: "noise",
    Finding.UNEXPLAINED: "chaotic",
}
_CODES = np.array([KINDS.index(_OF_FINDING[finding]) for finding in Finding])


def code_of(kind: str) -> int:
    """Return the place of a kind in `KINDS`."""
    return KINDS.index(kind)


def kinds_of_verdicts(
    regime: Codes,
    seen: Seen,
    confirmed: Seen,
    by_late: np.ndarray,
    long: Window,
    radial_share: Floats,
    limits: RegimeThresholds,
) -> Codes:
    """Return the kind of each moving trajectory, as a place in `KINDS`.

    Parameters
    ----------
    regime : ndarray of int
        The joint verdicts, as places in `REGIMES`.
    seen, confirmed : Seen
        Findings of the two windows.
    by_late : ndarray of bool
        Where the late window decided.
    long : Window
        Measurements of the long window.
    radial_share : ndarray
        Share of the way along the state.
    limits : RegimeThresholds
        For the amplitude that counts as small.
    """
    finding = np.where(by_late, confirmed.finding, seen.finding)
    kind = _CODES[finding]
    small = long.amplitude < limits.small_amplitude
    kind[(regime == REGIMES.index(ORBIT)) & small] = code_of("driven")
    kind[(regime == REGIMES.index(SLIDER)) & (radial_share > 0.5)] = code_of("radial")
    rows = np.flatnonzero((regime == REGIMES.index(FIXED_POINT)) & (finding == Finding.CONTRACTING))
    if len(rows):
        kind[rows[_turns(long.centred[rows])]] = code_of("spiral")
    unresolved = regime == REGIMES.index(UNRESOLVED)
    irregular = unresolved & (finding == Finding.UNEXPLAINED)
    rows = np.flatnonzero(irregular)
    if len(rows):
        kind[rows[_walks(long.centred[rows])]] = code_of("random_walk")
    kind[unresolved & (REGIME_OF[finding] != REGIMES.index(UNRESOLVED))] = code_of("undecided")
    kind[unresolved & (long.amplitude < long.rest)] = code_of("floor")
    return kind


def _turns(gram: Floats) -> np.ndarray:
    """Whether successive steps keep an angle of more than 0.2, to a line either way."""
    step = gram[:, 1:, 1:] + gram[:, :-1, :-1] - gram[:, 1:, :-1] - gram[:, :-1, 1:]
    size = np.sqrt(np.maximum(np.diagonal(step, axis1=1, axis2=2), 1e-300))
    cosine = np.diagonal(step, offset=1, axis1=1, axis2=2) / (size[:, 1:] * size[:, :-1])
    return np.abs(np.median(cosine, axis=1)) < 0.98


def _walks(gram: Floats) -> np.ndarray:
    """Whether mean square displacements grow about linearly with the lag, up to a half."""
    n = gram.shape[1]
    displacement = mean_square_displacement(gram, lag_sums(gram))
    lags = np.arange(1, n // 2)
    logs = np.log(np.maximum(displacement[:, : len(lags)], 1e-300))
    time = np.log(lags) - np.log(lags).mean()
    slope = logs @ time / (time @ time)
    fit = 1 - ((logs - logs.mean(1, keepdims=True) - slope[:, None] * time) ** 2).sum(1) / (
        np.maximum(((logs - logs.mean(1, keepdims=True)) ** 2).sum(1), 1e-300)
    )
    return (slope > 0.5) & (slope < 1.6) & (fit > 0.9)
