"""Verdicts on a group of trajectories whose products are known, with the numbers beside them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from looplens.analysis.algebra.gram import TINY, Floats
from looplens.analysis.algebra.products import Moments
from looplens.analysis.regimes.details import floors_of, rates_of, ways_of
from looplens.analysis.regimes.kinds import code_of, kinds_of_verdicts
from looplens.analysis.regimes.reasons import describe, describe_converged
from looplens.analysis.regimes.result import NUMBERS, SCORES
from looplens.analysis.regimes.surrogates import SHORT, p_values
from looplens.analysis.regimes.tail import Tail, amplitude_of, has_converged, tail_of, unit_tail_of
from looplens.analysis.regimes.thresholds import RegimeThresholds
from looplens.analysis.regimes.verdict import (
    FIXED_POINT,
    ORBIT,
    REGIMES,
    SLIDER,
    Codes,
    Finding,
    Seen,
    agree,
    find,
)
from looplens.analysis.regimes.window import Window, measure

_OF_MODELS = ("periodic_residual", "growth_exponent")
_RADIAL = 0.1  # less of the motion than this, 1 % of the variance, changes no regime
_FIXED, _ORBIT, _SLIDER = (REGIMES.index(name) for name in (FIXED_POINT, ORBIT, SLIDER))


def window_points(length: int, limits: RegimeThresholds) -> int:
    """Return how many states the long window of records of this length has."""
    return min(max(round(limits.tail * length), 16), length, limits.longest_window)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdicts:
    """Verdicts on b trajectories; all arrays of shape (b,).

    ``regime``, ``unit_regime`` and ``kind`` are places in `REGIMES` and `KINDS`, ``numbers`` and
    ``scores`` hold what is named in `NUMBERS` and `SCORES`.
    """

    regime: Codes
    unit_regime: Codes
    kind: Codes
    reason: NDArray[np.object_]
    floor_of_record: NDArray[np.bool_]
    numbers: dict[str, Floats]
    scores: dict[str, Floats]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plain:
    """Verdicts without what lies beside them; the last five are of the moving trajectories."""

    regime: Codes
    period: Floats
    amplitude: Floats
    moving: NDArray[np.int64]
    long: Window | None
    late: Window | None
    seen: Seen | None
    confirmed: Seen | None
    by_late: NDArray[np.bool_]


def judge(
    part: Moments,
    length: int,
    limits: RegimeThresholds,
    step: float,
    *,
    unit: bool,
    details: bool,
    surrogates: int,
) -> Verdicts:
    """Judge trajectories of `length` states; see `regimes_of` for the parameters."""
    tail = tail_of(part)
    plain = _plain(tail, length, limits, step)
    b = len(plain.regime)
    floor = _floor(limits, step)
    numbers = {name: np.full(b, np.nan) for name in NUMBERS}
    numbers["period"], numbers["amplitude"] = plain.period, plain.amplitude
    scores = {name: np.full(b, np.nan) for name in SCORES}
    kind = np.full(b, code_of("converged"))
    reason = np.full(b, "", dtype=object)
    of_record = np.zeros(b, dtype=bool)
    if details:
        still = np.ones(b, dtype=bool)
        still[plain.moving] = False
        reason[still] = describe_converged(plain.amplitude[still], floor)
        assert part.tail is not None
        numbers |= ways_of(tail, part.tail.along)
        _tell_moving(plain, tail, limits, numbers, scores, kind, reason)
        settled = np.isin(kind, [code_of("converged"), code_of("noise_floor")])
        numbers["floor"], of_record, numbers["signal_end"] = floors_of(part, settled, step)
        rows = np.flatnonzero(settled)
        if len(rows):
            numbers["rate"][rows] = rates_of(part, numbers["signal_end"])[rows]
        asked = np.flatnonzero(plain.regime != _FIXED)
        if surrogates and len(asked):
            long = plain.period[asked] > SHORT / 2
            for rows, points in ((asked[~long], min(SHORT, tail.gram.shape[1])), (asked[long], 0)):
                window = tail.of(rows).last(points) if points else tail.of(rows)
                numbers["p_value"][rows] = p_values(
                    window, plain.regime[rows] == _SLIDER, surrogates=surrogates
                )
    return Verdicts(
        regime=plain.regime,
        unit_regime=_unit_regimes(part, plain, length, limits, step) if unit else plain.regime,
        kind=kind,
        reason=reason,
        floor_of_record=of_record,
        numbers=numbers,
        scores=scores,
    )


def _floor(limits: RegimeThresholds, step: float) -> float:
    return min(step * limits.floor_multiple, limits.largest_floor)


def _plain(tail: Tail, length: int, limits: RegimeThresholds, step: float) -> _Plain:
    """Judge the tails of trajectories of `length` states."""
    b, points = tail.square.shape
    late_points = min(max(round(limits.confirm_tail * length), 12), points)
    floor = _floor(limits, step)
    # The last third of the late window is part of that of the long one.
    still = has_converged(tail, floor)
    still[still] = has_converged(tail.of(np.flatnonzero(still)).last(late_points), floor)
    regime, period = np.full(b, _FIXED), np.full(b, np.nan)
    rows = np.flatnonzero(~still)
    long = late = seen = confirmed = None
    by_late = np.zeros(len(rows), dtype=bool)
    if len(rows):
        moving = tail.of(rows)
        long = measure(moving, floor, step)
        seen = find(long, limits, turns=limits.turns)
        late = measure(moving.last(late_points), floor, step)
        confirmed = find(late, limits, turns=limits.confirm_turns, first=seen)
        regime[rows], by_late = agree(seen, confirmed, limits)
        turn = np.where(by_late, confirmed.period, seen.period)
        period[rows] = np.where(regime[rows] == _ORBIT, turn, np.nan)
    return _Plain(
        regime=regime,
        period=period,
        amplitude=amplitude_of(tail),
        moving=rows,
        long=long,
        late=late,
        seen=seen,
        confirmed=confirmed,
        by_late=by_late,
    )


def _tell_moving(
    plain: _Plain,
    tail: Tail,
    limits: RegimeThresholds,
    numbers: dict[str, Floats],
    scores: dict[str, Floats],
    kind: Codes,
    reason: NDArray[np.object_],
) -> None:
    """Fill in kinds, reasons, scores and rates of the trajectories that move."""
    rows, seen, confirmed = plain.moving, plain.seen, plain.confirmed
    long, late = plain.long, plain.late
    if long is None or late is None or seen is None or confirmed is None:
        return
    regime = plain.regime[rows]
    reason[rows] = describe(regime, long, late, seen, confirmed, plain.by_late, limits)
    for name in SCORES:
        scores[name][rows] = getattr(seen if name in _OF_MODELS else long, name)
    radial = numbers["radial_share"][rows]
    kind[rows] = kinds_of_verdicts(regime, seen, confirmed, plain.by_late, long, radial, limits)
    rate = np.full(len(rows), np.nan)
    finding = np.where(plain.by_late, confirmed.finding, seen.finding)
    fixed = regime == _FIXED
    shapes = {
        Finding.CONTRACTING: seen.contraction,
        Finding.SPIRAL: -seen.growth_exponent / long.centre,
        Finding.DRIFT_SETTLES: seen.exponent / (long.centre + long.points / 2),  # at the end
    }
    for shape, fall in shapes.items():
        here = fixed & (finding == shape)
        rate[here] = np.exp(-fall[here])
    numbers["rate"][rows] = rate
    orbit = regime == _ORBIT
    period = np.where(orbit, plain.period[rows], np.nan)
    numbers["turns"][rows] = long.points / period
    whole = np.where(plain.by_late, confirmed.folded, seen.folded)
    numbers["integer_period"][rows] = np.where(whole, period, np.nan)


def _unit_regimes(
    part: Moments, plain: _Plain, length: int, limits: RegimeThresholds, step: float
) -> Codes:
    """Regimes of the states divided by their norms; the same where the norm hardly moves."""
    norm = np.sqrt(part.norm2[:, -window_points(length, limits) :])
    change = norm.std(1) / np.maximum(norm.mean(1), TINY)
    rows = np.flatnonzero(change > _RADIAL * plain.amplitude)
    regime = plain.regime.copy()
    if len(rows):
        unit = unit_tail_of(part).of(rows)
        regime[rows] = _plain(unit, length, limits, step).regime
    return regime
