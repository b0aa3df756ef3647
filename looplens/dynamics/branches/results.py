"""Branches of the tokens of a prompt as a labelled result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from looplens.dynamics.branches.crossings import Crossing
from looplens.dynamics.branches.following import period_of
from looplens.dynamics.branches.late import Late
from looplens.dynamics.branches.tracing import Traced, gains_of
from looplens.dynamics.maps.labelled import STATE, variable

FOLLOWED, DEGENERATE = "followed", "degenerate"
NO_POINT, NO_CONTEXT = "no fixed point", "no context"
_MOVES = 1e-3  # spread of late states, relative to that of the branch, that a drawing shows
_LAST = 16  # late states of a run that tell in which direction it moves


@dataclass(frozen=True, kw_only=True, slots=True)
class Followed:
    """What is known of one token.

    Attributes
    ----------
    status : str
        ``followed``, or why not.
    branch : Traced or None
        The branch.
    states : Float[ndarray, "point d_model"] or None
        The token's states on it.
    block : int
        Which block of the branch is the token's.
    crossings : list of Crossing
        Of the token's block, and of those that it sees.
    crossing_states : Float[ndarray, "crossing d_model"] or None
        The token's states there.
    numbers : dict of int to int
        Token number by block, of a branch that has several.
    """

    status: str
    branch: Traced | None = None
    states: Float[np.ndarray, "point d_model"] | None = None
    block: int = 0
    crossings: Sequence[Crossing] = ()
    crossing_states: Float[np.ndarray, "crossing d_model"] | None = None
    numbers: dict[int, int] = field(default_factory=dict)


def variables_of(
    found: Sequence[Followed],
    recorded: Float[np.ndarray, "token d_model"],
    late: Late | None,
    run_gains: Float[np.ndarray, " run"],
    k: int,
) -> dict[str, xr.Variable]:
    """Name and label the branches of some tokens.

    Parameters
    ----------
    found : sequence of Followed
        One a token.
    recorded : Float[ndarray, "token d_model"]
        The states that the runs begin at.
    late : Late or None
        Runs, if there were any.
    run_gains : Float[ndarray, "run"]
        Their gains.
    k : int
        Eigenvalues.
    """
    count = len(found)
    points = max([len(f.branch.z) for f in found if f.branch is not None], default=0)
    most = max([len(f.crossings) for f in found], default=0)
    data: dict[str, xr.Variable] = {}

    def put(name: str, dims: tuple[str, ...], values: Any, text: str, units: str = "1") -> None:
        data[name] = variable(("token", *dims), values, text, units)

    def of_points(*more: int) -> np.ndarray:
        return np.full((count, points, *more), np.nan)

    gain, place, distance, residual = (of_points() for _ in range(4))
    eigen = of_points(k).astype(np.complex128)
    outside = np.full((count, points), -1)
    start = np.full(count, -1)
    bif: dict[str, np.ndarray] = {
        name: np.full((count, most), np.nan) for name in ("gain", "real", "imag", "period", "place")
    }
    kind = np.full((count, most), "", dtype=object)
    whose = np.full((count, most), -1)
    onsets = {
        name: (np.full(count, np.nan), np.full(count, "", dtype=object), np.full(count, -1))
        for name in ("onset_below", "onset_above", "first_below", "first_above")
    }
    late_place = None if late is None else np.full(late.states.shape[:3], np.nan)
    for row, one in enumerate(found):
        runs = None if late is None else late.states[row]
        if runs is None and one.states is None:
            continue
        way = _direction(one.states, runs)
        centre = recorded[row]
        if late_place is not None and runs is not None:
            late_place[row] = (runs - centre) @ way
        if one.branch is None or one.states is None:
            continue
        n, branch = len(one.branch.z), one.branch
        gain[row, :n], residual[row, :n] = gains_of(branch), branch.residual
        place[row, :n] = (one.states - centre) @ way
        distance[row, :n] = np.linalg.norm(one.states - centre, axis=-1)
        values = np.stack(branch.eigenvalues)[:, one.block]
        eigen[row, :n] = values
        known = np.isfinite(values[:, 0])
        outside[row, :n] = np.where(known, (np.abs(values) > 1).sum(-1), -1)
        start[row] = branch.start
        for column, crossing in enumerate(one.crossings):
            kind[row, column] = crossing.kind
            whose[row, column] = one.numbers.get(crossing.block, -1)
            bif["gain"][row, column] = crossing.gain
            bif["real"][row, column] = crossing.eigenvalue.real
            bif["imag"][row, column] = crossing.eigenvalue.imag
            bif["period"][row, column] = period_of(crossing.kind, crossing.eigenvalue)
        if one.crossing_states is not None and len(one.crossings):
            bif["place"][row, : len(one.crossings)] = (one.crossing_states - centre) @ way
        for name, (gains, kinds, tokens) in onsets.items():
            lost = _onset(one, down="below" in name, own="onset" in name)
            if lost is not None:
                gains[row], kinds[row] = lost.gain, lost.kind
                tokens[row] = one.numbers.get(lost.block, -1)
    put("status", (), [one.status for one in found], "whether a branch could be followed")
    put("gain", ("point",), gain, "gain along the branch")
    put("place", ("point",), place, "fixed point along the drawn direction", STATE)
    put("distance", ("point",), distance, "distance to the recorded state", STATE)
    put("residual", ("point",), residual, "|f(s) - s| over the size of the first state")
    put("start", (), start, "point at the model's own gain; -1 without a branch")
    across = ("point", "eigenvalue")
    put("eigenvalue_real", across, eigen.real, "leading eigenvalues, real part")
    put("eigenvalue_imag", across, eigen.imag, "leading eigenvalues, imaginary part")
    radius = np.abs(eigen[:, :, 0])
    put("spectral_radius", ("point",), radius, "largest modulus; below 1 is stable")
    put("outside", ("point",), outside, "leading eigenvalues beyond 1; -1 where not known")
    over = ("bifurcation",)
    put("bifurcation_kind", over, kind, "fold, branch_point, flip or neimark_sacker")
    put("bifurcation_gain", over, bif["gain"], "at which gain")
    put("bifurcation_real", over, bif["real"], "eigenvalue there, real part")
    put("bifurcation_imag", over, bif["imag"], "eigenvalue there, imaginary part")
    put("bifurcation_period", over, bif["period"], "turn that is born there", "iteration")
    put("bifurcation_place", over, bif["place"], "fixed point there, along the direction", STATE)
    put("bifurcation_token", over, whose, "token whose eigenvalue it is; -1 where none is known")
    for name, (gains, kinds, tokens) in onsets.items():
        side, own = name.partition("_")[2], "onset" in name
        what = "the token itself gains or loses its stability" if own else ""
        what = what or "the token or one before it stops being stable"
        put(name, (), gains, f"first gain {side} the model's at which {what}")
        put(f"{name}_kind", (), kinds, f"how: the bifurcation of {name}")
        if not own:
            put(f"{name}_token", (), tokens, "the token that does; -1 where none is known")
    if late is not None:
        put("run_gain", ("run",), np.tile(run_gains, (count, 1)), "gain of a run")
        put("run_regime", ("run",), late.regime.astype(object), "regime of its late states")
        put("run_kind", ("run",), late.kind.astype(object), "kind of that regime")
        put("run_period", ("run",), late.period, "period, of orbits", "iteration")
        put("run_amplitude", ("run",), late.amplitude, "size of the motion over the norm")
        assert late_place is not None
        seen = late_place.astype(np.float32)
        put("run_place", ("run", "late"), seen, "late states along the drawn direction", STATE)
    return data


def _direction(
    states: Float[np.ndarray, "point d_model"] | None,
    runs: Float[np.ndarray, "run late d_model"] | None,
) -> Float[np.ndarray, " d_model"]:
    """Return the unit vector that a drawing shows states along.

    That along which late states spread most about their mean at each gain; where all runs settle,
    that along which the branch is longest.
    """
    spreads = []
    if states is not None:
        spreads.append(states - states.mean(0))
    if runs is not None:
        last = runs[np.isfinite(runs).all((1, 2)), -_LAST:]
        away = (last - last.mean(1, keepdims=True)).reshape(-1, runs.shape[-1])
        least = _MOVES * np.abs(spreads[0]).max(initial=0) if spreads else 0.0
        if np.abs(away).max(initial=0) > least or not spreads:
            spreads = [away]
    if not spreads[0].size:  # no branch, and no run stays finite: there is nothing to draw
        return np.full(spreads[0].shape[-1], np.nan)
    way = np.linalg.svd(spreads[0].astype(np.float64), full_matrices=False)[2][0]
    return way * np.sign(way[np.abs(way).argmax()])


def _onset(one: Followed, *, down: bool, own: bool) -> Crossing | None:
    """Return where the branch first changes the stability of a token, going one way.

    Of the token by itself, or (unless `own`) of it and all that it sees, if those are stable.
    """
    assert one.branch is not None
    begin = one.branch.start
    seen = [one.block] if own else [b for b in {one.block, *one.numbers} if b <= one.block]
    stable = bool((np.abs(one.branch.eigenvalues[begin][seen, 0]) < 1).all())
    if not stable and not own:
        return None
    ahead = [c for c in one.crossings if (c.point < begin if down else c.point > begin)]
    for crossing in sorted(ahead, key=lambda c: abs(c.point - begin)):
        leaves = crossing.out != down
        if crossing.block in seen and (crossing.kind == "fold" or leaves == stable):
            return crossing
        if crossing.kind == "fold":
            break  # the branch turns back before that
    return None
