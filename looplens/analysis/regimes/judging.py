"""Verdicts on a group of trajectories whose products are known, with the numbers beside them."""

from __future__ import annotations

import dataclasses
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
from looplens.analysis.regimes.tail import (
    Tail,
    amplitude_of,
    has_converged,
    tail_of,
    unit_tail_of,
    wide_tail_of,
)
from looplens.analysis.regimes.thresholds import RegimeThresholds, resting_spread
from looplens.analysis.regimes.turning import fundamental_of
from looplens.analysis.regimes.verdict import (
    REGIMES,
    Codes,
    Finding,
    Seen,
    agree,
    find,
)
from looplens.analysis.regimes.window import Window, measure, recurrence_dip, recurrence_lag

_OF_MODELS = ("periodic_residual", "growth_exponent")
_RADIAL = 0.1  # less of the motion than this, 1 % of the variance, changes no regime
_FIXED, _ORBIT, _SLIDER, _UNRESOLVED = (REGIMES.index(name) for name in REGIMES)
# More states than those of the window are looked at where these spread as far as the earlier ones
# (natural logarithm of the ratio), and states come back to within this share of the mean square
# distance after a lag of which the window holds few.
STATIONARY, DIP, MANY_TURNS = 0.3, 0.3, 6.0


def wide_points(length: int, limits: RegimeThresholds) -> int:
    """Return in how many states orbits are looked for of which the window holds few turns."""
    return min(length, limits.longest_window)


def window_points(length: int, limits: RegimeThresholds) -> int:
    """Return how many states the long window has."""
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
    tail = tail_of(part).last(window_points(length, limits))
    plain = _plain(tail, part, length, limits, step)
    b = len(plain.regime)
    floor = resting_spread(step, limits)
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
        numbers |= ways_of(tail, part.tail.along[:, -tail.square.shape[1] :])
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


def _plain(
    tail: Tail, part: Moments | None, length: int, limits: RegimeThresholds, step: float
) -> _Plain:
    """Judge the tails of trajectories of `length` states; `part` is for a look back."""
    b, points = tail.square.shape
    late_points = min(max(round(limits.confirm_tail * length), 12), points)
    floor = resting_spread(step, limits)
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
        found, by_late = agree(seen, confirmed, limits)
        if part is not None and part.wide is not None:
            _look_back(part, rows, found, long, seen, limits, floor, step)
        regime[rows] = found
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


def _look_back(
    part: Moments,
    moving: NDArray[np.int64],
    regime: Codes,
    long: Window,
    seen: Seen,
    limits: RegimeThresholds,
    floor: float,
    step: float,
) -> None:
    """Look for orbits of few turns in the window in all states that there are products of.

    Changes `regime` and `seen`, those of the `moving` trajectories, where the motion recurs there
    and the window itself does not say otherwise.
    """
    assert part.wide is not None
    steady = np.abs(np.log(np.maximum(long.settled_ratio, TINY))) < STATIONARY
    rows = np.flatnonzero((regime == _UNRESOLVED) & steady)
    rows = rows[np.isin(moving[rows], part.wide.rows)]
    if not len(rows):
        return
    more = wide_tail_of(part, np.searchsorted(part.wide.rows, moving[rows]))
    lag, dip = recurrence_dip(more.gram)
    few = np.flatnonzero((dip < DIP) & (lag * MANY_TURNS > long.points))
    if not len(few):
        return
    rows = rows[few]
    # No second window is as long, so what is no noise has to be less.
    strict = dataclasses.replace(
        limits,
        periodic_residual=limits.periodic_residual / 3,
        shape_residual=limits.shape_residual / 3,
    )
    whole = find(measure(more.of(few), floor, step), strict, turns=limits.turns_of_record)
    back, _ = agree(whole, seen.of(rows), limits)
    hit = (back == _ORBIT) & (whole.finding == Finding.ORBIT)
    # The strongest harmonic may not be the turn.
    turn = fundamental_of(whole.period, recurrence_lag(more.of(few).gram))
    whole.period[:] = np.where(whole.folded, whole.period, turn)
    hit &= more.square.shape[1] >= limits.turns_of_record * whole.period
    regime[rows[hit]] = _ORBIT
    seen.put(rows[hit], whole.of(np.flatnonzero(hit)))


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
    """Regimes of the states divided by their norms; the same where the norm hardly moves.

    What settles, settles in direction too, and what recurs does, unless only the norm moves; of the
    others the directions are judged as the states are.
    """
    points = window_points(length, limits)
    norm = np.sqrt(part.norm2[:, -points:])
    change = norm.std(1) / np.maximum(norm.mean(1), TINY)
    rows = np.flatnonzero((change > _RADIAL * plain.amplitude) & (plain.regime != _FIXED))
    regime = plain.regime.copy()
    if len(rows):
        unit = unit_tail_of(part).of(rows).last(points)
        recurs = regime[rows] == _ORBIT
        still = has_converged(unit, resting_spread(step, limits))
        regime[rows[recurs & still]] = _FIXED
        rest = np.flatnonzero(~recurs)
        if len(rest):
            regime[rows[rest]] = _plain(unit.of(rest), None, length, limits, step).regime
    return regime
