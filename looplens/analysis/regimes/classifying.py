"""Which trajectories settle, orbit or drift: the regime of each, with the reason.

The decision rests on a few principles and not on a list of shapes. Motion below the rounding of the
source dtype is no motion. A drift whose steps shrink faster than 1/t has a finite sum, so it
settles; one whose steps shrink more slowly is a slider. Whatever a model of the motion (a smooth
drift, a folded cycle, harmonics, a cycle of any shape) leaves over must be negligible or look like
white noise of full dimension, otherwise the motion is not understood and the verdict is
``unresolved``. Two windows must agree.

This module knows nothing of runs, stores or figures.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from looplens.analysis.algebra.inputs import whole_number
from looplens.analysis.algebra.moments import moments_of
from looplens.analysis.algebra.products import Moments
from looplens.analysis.algebra.threads import in_threads
from looplens.analysis.algebra.trajectories import as_trajectories
from looplens.analysis.regimes.judging import judge, wide_points, window_points
from looplens.analysis.regimes.kinds import KINDS, KINDS_OF_REGIMES, code_of
from looplens.analysis.regimes.result import NON_FINITE, NUMBERS, SCORES, WORDS, Regimes
from looplens.analysis.regimes.thresholds import RegimeThresholds, rounding_step
from looplens.analysis.regimes.verdict import (
    FIXED_POINT,
    ORBIT,
    REGIMES,
    SLIDER,
    UNRESOLVED,
)

__all__ = [
    "FIXED_POINT",
    "KINDS_OF_REGIMES",
    "NON_FINITE",
    "NUMBERS",
    "ORBIT",
    "REGIMES",
    "SCORES",
    "SLIDER",
    "UNRESOLVED",
    "WORDS",
    "RegimeThresholds",
    "Regimes",
    "classify",
    "regimes_of",
    "wide_points",
    "window_points",
]


def classify(
    states: ArrayLike,
    *,
    source_dtype: str = "float32",
    unit: bool = True,
    surrogates: int = 99,
    **thresholds: float,
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
    surrogates : int
        Surrogates that the p-values of trajectories that do not settle are taken from; 0: none.
        Random numbers are the same in every call.
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
    falls by less than a factor of about four over a record, a drift that still slows down, and an
    orbit of fewer than three turns in the record (or in its last 128 states), not counting a
    transient, cannot be told from 32 to 128 states and come back ``unresolved``. So does motion
    that shrinks but still spreads by more than 1 % of the norm at the end, and a contraction that
    slows down: a trajectory that passes a saddle looks like one that settles until it leaves.

    What a model of a cycle leaves passes as noise only if it does not keep to the directions of the
    cycle: chaos in bands does, however much noise there is beside it. Few dimensions carry little
    evidence: in up to four of them, noise and walks of 33 or 65 states are named too often.

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
        parts = moments_of(
            flat, points=window_points(length, limits), wide=wide_points(length, limits)
        )
    return regimes_of(
        parts,
        (len(flat), length),
        limits,
        step,
        str(source_dtype),
        unit,
        surrogates=whole_number(surrogates, "surrogates", least=0),
    ).reshaped(leading)


def regimes_of(
    parts: list[Moments],
    shape: tuple[int, int],
    limits: RegimeThresholds,
    step: float,
    source_dtype: str,
    unit: bool,
    *,
    details: bool = True,
    surrogates: int = 0,
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
    details : bool
        Whether to give kinds, reasons, scores and the numbers beside period and amplitude.
    surrogates : int
        How many surrogates the p-values are taken from.
    """
    count, length = shape
    codes = np.full((3, count), REGIMES.index(UNRESOLVED))
    codes[2] = code_of("non_finite")
    reason = np.full(count, NON_FINITE, dtype=object)
    of_record = np.zeros(count, dtype=bool)
    numbers = {name: np.full(count, np.nan) for name in NUMBERS}
    scores = {name: np.full(count, np.nan) for name in SCORES}
    if length < limits.shortest:
        reason[:] = f"too short: {length} states, {limits.shortest} are needed"
        codes[2] = code_of("too_short")

    def judge_part(part: Moments) -> None:
        found = judge(part, length, limits, step, unit=unit, details=details, surrogates=surrogates)
        rows = part.rows
        codes[0, rows], codes[2, rows] = found.regime, found.kind
        if unit:
            codes[1, rows] = found.unit_regime
        reason[rows], of_record[rows] = found.reason, found.floor_of_record
        for arrays, values in ((numbers, found.numbers), (scores, found.scores)):
            for name, array in arrays.items():
                array[rows] = values[name]

    in_threads(judge_part, parts)
    words = np.array(REGIMES)
    return Regimes(
        regime=words[codes[0]],
        unit_regime=words[codes[1]],
        kind=np.array(KINDS)[codes[2]],
        reason=reason.astype(np.str_),
        floor_from=np.where(of_record, "record", "dtype"),
        scores=scores,
        thresholds=limits,
        source_dtype=source_dtype,
        **numbers,
    )
