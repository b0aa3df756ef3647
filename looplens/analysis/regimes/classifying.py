"""Which trajectories settle, orbit or drift: the regime of each, with the reason.

The decision rests on a few principles and not on a list of shapes. Motion below the rounding of the
source dtype is no motion. A drift whose steps shrink faster than 1/t has a finite sum, so it
settles; one whose steps shrink more slowly is a slider. Whatever a model of the motion (a smooth
drift, a folded cycle, harmonics) leaves over must be negligible or look like white noise of full
dimension, otherwise the motion is not understood and the verdict is ``unresolved``. Two windows
must agree.

This module knows nothing of runs, stores or figures.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from looplens.analysis.algebra.gram import TINY, Floats
from looplens.analysis.algebra.moments import moments_of
from looplens.analysis.algebra.products import Moments
from looplens.analysis.algebra.threads import in_threads
from looplens.analysis.algebra.trajectories import as_trajectories
from looplens.analysis.regimes.reasons import describe, describe_converged
from looplens.analysis.regimes.tail import Tail, amplitude_of, has_converged, tail_of, unit_tail_of
from looplens.analysis.regimes.thresholds import RegimeThresholds, rounding_step
from looplens.analysis.regimes.verdict import (
    FIXED_POINT,
    ORBIT,
    REGIMES,
    SLIDER,
    UNRESOLVED,
    Codes,
    agree,
    find,
)
from looplens.analysis.regimes.window import measure

__all__ = [
    "FIXED_POINT",
    "ORBIT",
    "REGIMES",
    "SLIDER",
    "UNRESOLVED",
    "RegimeThresholds",
    "Regimes",
    "classify",
]

NON_FINITE = "non-finite states"  # the reason of trajectories that are not judged for that
SCORES = (
    "settled_ratio",
    "linear_share",
    "drift_cosine",
    "drift_exponent",
    "drift_exponent_error",
    "smooth_residual",
    "step_exponent",
    "periodic_residual",
    "growth_exponent",
)
_OF_MODELS = ("periodic_residual", "growth_exponent")


@dataclass(frozen=True, kw_only=True, slots=True)
class Regimes:
    """Verdicts of `classify`; arrays of the leading shape of the states.

    Attributes
    ----------
    regime : ndarray of str
        ``fixed_point``, ``orbit``, ``slider`` or ``unresolved``.
    unit_regime : ndarray of str
        The same for the states divided by their norms. A norm that grows for ever over a direction
        that settles is a slider here and a fixed point there.
    reason : ndarray of str
        Why, with the numbers that decided.
    period : ndarray of float64
        Iterations in a turn of an orbit; NaN otherwise. A cycle that folding on an integer period
        describes as well as a harmonic does, and whose turn is within 3 % of an integer, is given
        that integer: a turn of 6.1 iterations can be reported as 6. Otherwise, when most of the
        motion has a single frequency, this is the turn of that rotation, also where states recur
        only after several.
    amplitude : ndarray of float64
        Root-mean-square distance from the mean of the long window over the root-mean-square norm.
    scores : dict of str to ndarray of float64
        Measurements in the long window: ``settled_ratio`` (spread over the distance of earlier
        states), ``linear_share``, ``drift_cosine``, ``drift_exponent`` (steps shrink like t^-q) and
        its error, ``smooth_residual`` (share that a cubic leaves), ``step_exponent``,
        ``periodic_residual`` (share that the best periodic model leaves), ``growth_exponent``
        (amplitude grows like t^g). NaN where motion is rounding only, or states are not finite; the
        last two also where a drift or a contraction was found without asking for a periodic model.
    thresholds : RegimeThresholds
        What was compared against.
    source_dtype : str
        The dtype whose rounding counts as no motion.
    """

    regime: NDArray[np.str_]
    unit_regime: NDArray[np.str_]
    reason: NDArray[np.str_]
    period: Floats
    amplitude: Floats
    scores: dict[str, Floats]
    thresholds: RegimeThresholds
    source_dtype: str

    def reshaped(self, leading: tuple[int, ...]) -> Regimes:
        """Return the same with other leading axes."""
        arrays = ("regime", "unit_regime", "reason", "period", "amplitude")
        return dataclasses.replace(
            self,
            scores={name: score.reshape(leading) for name, score in self.scores.items()},
            **{name: getattr(self, name).reshape(leading) for name in arrays},
        )


def classify(
    states: ArrayLike, *, source_dtype: str = "float32", unit: bool = True, **thresholds: float
) -> Regimes:
    """Tell fixed points, orbits and sliders apart, or abstain with the reason.

    Parameters
    ----------
    states : array_like, shape (..., iteration, d_model)
        Successive states of each trajectory, any leading axes. Whether the initial state is among
        them does not matter: the windows lie at the end.
    source_dtype : str
        The coarsest dtype that the states went through: ``float64``, ``float32``, ``bfloat16`` or
        ``float16``. In bfloat16 rounding hides any orbit of relative amplitude below about 0.01.
    unit : bool
        Whether to judge the unit-normalised states as well, which about doubles the cost where
        norms change. Without it `unit_regime` is ``unresolved`` throughout.
    **thresholds : float
        Fields of `RegimeThresholds`, such as ``tail=0.5``.

    Returns
    -------
    Regimes

    Raises
    ------
    InputError
        For an array with fewer than two axes or of other values than real numbers, an unknown
        dtype, an unknown threshold or one that is not a number.

    Notes
    -----
    Trajectories of fewer than 16 states are ``unresolved`` (too short). A spiral whose amplitude
    falls by less than a factor of three over a record, a drift that still slows down, and an orbit
    of fewer than two turns in the second half cannot be told from 32 to 128 states and come back
    ``unresolved``. So does motion that shrinks but still spreads by more than 1 % of the norm at
    the end, and a contraction that slows down: a trajectory that passes a saddle looks like one
    that settles until it leaves.

    Few dimensions carry little evidence. In up to four of them, white noise of 33 or 65 states is
    called an orbit in up to 12 % of draws, and a random walk of 33 states a fixed point in 10 %.

    References
    ----------
    The names of the regimes: Geiping et al. 2025, arXiv:2502.05171, section 5. The rule that a
    floor has to be estimated before anything in the tail is read: public self-audit of work on that
    model's geometry (float32 against bfloat16 tails). Epoch folding: Leahy et al. 1983, ApJ 266,
    160.
    """
    limits = RegimeThresholds.from_keywords(**thresholds)
    step = rounding_step(source_dtype)
    flat, leading = as_trajectories(states)
    length = flat.shape[1]
    parts = []
    if length >= limits.shortest:
        parts = moments_of(flat, points=window_points(length, limits))
    return regimes_of(parts, (len(flat), length), limits, step, str(source_dtype), unit).reshaped(
        leading
    )


def window_points(length: int, limits: RegimeThresholds) -> int:
    """Return how many states the long window of records of this length has."""
    return min(max(round(limits.tail * length), 16), length, limits.longest_window)


def regimes_of(
    parts: list[Moments],
    shape: tuple[int, int],
    limits: RegimeThresholds,
    step: float,
    source_dtype: str,
    unit: bool,
) -> Regimes:
    """Classify trajectories whose products are known.

    Parameters
    ----------
    parts : list of Moments
        Products with a window of `window_points`.
    shape : tuple of int
        How many trajectories there are, and how many states each has.
    limits : RegimeThresholds
        The thresholds.
    step : float
        Relative step of rounding.
    source_dtype : str
        What the result says it was made with.
    unit : bool
        Whether to judge the unit-normalised states as well.
    """
    count, length = shape
    codes = np.full((2, count), REGIMES.index(UNRESOLVED))
    reason = np.full(count, NON_FINITE, dtype=object)
    period, amplitude = np.full(count, np.nan), np.full(count, np.nan)
    scores = {name: np.full(count, np.nan) for name in SCORES}
    if length < limits.shortest:
        reason[:] = f"too short: {length} states, {limits.shortest} are needed"

    def judge(part: Moments) -> None:
        verdicts = _judge(tail_of(part), length, limits, step)
        rows = part.rows
        codes[0, rows], period[rows] = verdicts.regime, verdicts.period
        amplitude[rows], reason[rows] = verdicts.amplitude, verdicts.reason
        for name in SCORES:
            scores[name][rows] = verdicts.scores[name]
        if unit:
            codes[1, rows] = _unit_regimes(part, verdicts, length, limits, step)

    in_threads(judge, parts)
    words = np.array(REGIMES)
    return Regimes(
        regime=words[codes[0]],
        unit_regime=words[codes[1]],
        reason=reason.astype(np.str_),
        period=period,
        amplitude=amplitude,
        scores=scores,
        thresholds=limits,
        source_dtype=source_dtype,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Verdicts:
    """Verdicts on a block of trajectories; arrays of shape (b,)."""

    regime: Codes
    reason: NDArray[np.object_]
    period: Floats
    amplitude: Floats
    scores: dict[str, Floats]


def _judge(
    tail: Tail, length: int, limits: RegimeThresholds, step: float, *, tell: bool = True
) -> _Verdicts:
    """Judge the tails of trajectories of `length` states; without reasons unless told to tell."""
    b, points = tail.square.shape
    late_points = min(max(round(limits.confirm_tail * length), 12), points)
    floor = min(step * limits.floor_multiple, limits.largest_floor)
    amplitude = amplitude_of(tail)
    # The last third of the late window is part of that of the long one.
    still = has_converged(tail, floor)
    still[still] = has_converged(tail.of(np.flatnonzero(still)).last(late_points), floor)
    regime = np.full(b, REGIMES.index(FIXED_POINT))
    reason = np.full(b, "", dtype=object)
    if tell:
        reason[still] = describe_converged(amplitude[still], floor)
    period = np.full(b, np.nan)
    scores = {name: np.full(b, np.nan) for name in SCORES}
    rows = np.flatnonzero(~still)
    if len(rows):
        moving = tail.of(rows)
        long = measure(moving, floor, step)
        seen = find(long, limits, turns=limits.turns)
        late = measure(moving.last(late_points), floor, step)
        confirmed = find(late, limits, turns=limits.confirm_turns, first=seen)
        regime[rows], by_late = agree(seen, confirmed, limits)
        turn = np.where(by_late, confirmed.period, seen.period)
        period[rows] = np.where(regime[rows] == REGIMES.index(ORBIT), turn, np.nan)
        if tell:
            reason[rows] = describe(regime[rows], long, late, seen, confirmed, by_late, limits)
            for name in SCORES:
                scores[name][rows] = getattr(seen if name in _OF_MODELS else long, name)
    return _Verdicts(
        regime=regime, reason=reason, period=period, amplitude=amplitude, scores=scores
    )


def _unit_regimes(
    part: Moments, verdicts: _Verdicts, length: int, limits: RegimeThresholds, step: float
) -> Codes:
    """Regimes of the states divided by their norms; the same where the norm does not move."""
    norm = np.sqrt(part.norm2[:, -window_points(length, limits) :])
    change = np.ptp(norm, axis=1) / np.maximum(norm.mean(1), TINY)
    rows = np.flatnonzero(change > 1e-3 * verdicts.amplitude)
    regime = verdicts.regime.copy()
    if len(rows):
        unit = unit_tail_of(part).of(rows)
        regime[rows] = _judge(unit, length, limits, step, tell=False).regime
    return regime
