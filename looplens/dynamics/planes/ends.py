"""Where many trajectories of one map end, and when they get there.

Ends are numbered as they are met: fixed points, each verified once; orbits, as sets of states; and
what is at rest without a proof. Trajectories come in parts, so that the memory stays bounded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from looplens.analysis import classify
from looplens.analysis.algebra.gram import TINY
from looplens.analysis.measures.state_sets import squares_between, to_path
from looplens.dynamics.eigen.spectrum import leading
from looplens.dynamics.planes.plane import STANDS, Floats
from looplens.dynamics.planes.slices import Slice
from looplens.dynamics.solving.fixed_point import solve

SLIDER, UNRESOLVED, NOT_FINITE, FURTHER = -1, -2, -3, -4
FIXED_POINT, ORBIT, AT_REST = "fixed point", "orbit", "at rest, not verified"
_FAR = 1e30  # a state that grows beyond this does not come back
_SET = 64  # states of an orbit that stand for it
_APART = 8.0  # errors, from which on two points are two
_WHOLE = 0.1  # a period this close to a whole number has phases


@dataclass(frozen=True, kw_only=True, slots=True)
class End:
    """One place where trajectories end.

    Attributes
    ----------
    kind : str
        Fixed point (verified), orbit, or at rest without a proof.
    states : Float[ndarray, "state n"]
        The point, or states of the orbit.
    reach : float
        Distance within which a trajectory is there.
    period : float
        Of an orbit; NaN otherwise.
    radius : float
        Spectral radius of the Jacobian at a fixed point; NaN otherwise.
    """

    kind: str
    states: Float[np.ndarray, "state n"]
    reach: float
    period: float = np.nan
    radius: float = np.nan


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What was found of trajectories.

    Attributes
    ----------
    end : Int[ndarray, "row"]
        Number of the end, or a negative code.
    arrival : Float[ndarray, "row"]
        First iteration from which it stays there; NaN where it is not there yet.
    phase : Float[ndarray, "row"]
        On a cycle of a whole period: by how many states it is ahead of the one met first.
    """

    end: Int[np.ndarray, " row"]
    arrival: Float[np.ndarray, " row"]
    phase: Float[np.ndarray, " row"]


@dataclass(slots=True)
class Ends:
    """Ends that were met so far.

    Attributes
    ----------
    given : Slice
        The map at the end, for which fixed points are verified.
    most : int
        Ends that get a number; further ones share a code.
    tolerance : float
        Distance that counts as the same place, over the norm.
    found : list of End
        The ends, by number.
    """

    given: Slice
    most: int = 12
    tolerance: float = STANDS
    found: list[End] = field(default_factory=list)

    def of(self, paths: Float[Tensor, "row iteration n"]) -> Told:
        """Say of every trajectory where it ends, and when it has come there to stay."""
        rows, length, _ = paths.shape
        values = paths.double().cpu().numpy()
        finite = (np.abs(values) < _FAR).all((1, 2))  # neither infinite nor NaN
        states = self.given.states(paths.flatten(0, 1)).reshape(rows, length, -1)
        judged = classify(
            states.double().cpu().numpy(),
            source_dtype=str(paths.dtype).removeprefix("torch."),
            unit=False,
            surrogates=0,
        )
        end = np.full(rows, UNRESOLVED)
        end[judged.regime == "slider"] = SLIDER
        end[~finite] = NOT_FINITE
        rounding = torch.finfo(paths.dtype).eps
        for regime, kind in (("fixed_point", _AtPoint), ("orbit", _OnOrbit)):
            mine = np.flatnonzero(finite & (judged.regime == regime))
            if mine.size:
                ending = kind(self.given, values[mine], self.tolerance, rounding)
                ending.periods = judged.period[mine]
                end[mine] = self._numbers(ending)
        arrival, phase = np.full((2, rows), np.nan)
        for number, place in enumerate(self.found):
            mine = np.flatnonzero(end == number)
            if mine.size:
                arrival[mine] = _arrival(values[mine], place)
                phase[mine] = _phase(values[mine, -1], place)
        return Told(end=end, arrival=arrival, phase=phase)

    def _numbers(self, ending: _Ending) -> Int[np.ndarray, " row"]:
        """Match rows with the ends that are known, and take new ones from what is left."""
        end = np.full(len(ending.paths), FURTHER)
        left, tested = np.arange(len(end)), 0
        while left.size:
            nearest = np.full(left.size, np.inf)
            for number in range(tested, len(self.found)):
                gap = ending.gaps(left, self.found[number])
                closer = (gap <= 1) & (gap < nearest)
                end[left[closer]], nearest[closer] = number, gap[closer]
            tested = len(self.found)
            left = left[~np.isfinite(nearest)]
            if left.size:
                place = ending.new(int(left[0]))
                known = [ending.same(place, other) for other in self.found]
                if not any(known) and tested == self.most:
                    break
                end[left[0]] = known.index(True) if any(known) else tested
                if not any(known):
                    self.found.append(place)
                left = left[1:]
        return end


class _Ending:
    """Trajectories of one regime: how far they are from an end, and what a new one is.

    Parameters
    ----------
    given : Slice
        The map at the end.
    paths : Float[ndarray, "row iteration n"]
        The trajectories.
    tolerance, rounding : float
        Distance that counts as the same place, over the norm; machine epsilon of the states.
    """

    periods: Float[np.ndarray, " row"]

    def __init__(self, given: Slice, paths: Floats, tolerance: float, rounding: float) -> None:
        self.given, self.paths, self.tolerance, self.rounding = given, paths, tolerance, rounding
        self.size = np.linalg.norm(paths[:, -1], axis=1)

    def gaps(self, rows: Int[np.ndarray, " row"], place: End) -> Floats:
        """Return distances of rows from an end, over what counts as there."""
        raise NotImplementedError

    def new(self, row: int) -> End:
        """Return the end that a row belongs to."""
        raise NotImplementedError

    def same(self, place: End, other: End) -> bool:
        """Return whether a new end is one that is known."""
        return False


class _AtPoint(_Ending):
    """Trajectories that come to rest."""

    def gaps(self, rows: Int[np.ndarray, " row"], place: End) -> Floats:
        """Return distances from a point; a trajectory that still contracts may be further off."""
        if place.kind == ORBIT:
            return np.full(len(rows), np.inf)
        gap = np.linalg.norm(self.paths[rows, -1] - place.states[0], axis=1)
        return gap / np.maximum(place.reach, self._left(rows)).clip(min=TINY)

    def new(self, row: int) -> End:
        """Solve for the fixed point that a trajectory runs into."""
        path, map_ = self.paths[row], self.given.map(1)
        last = torch.as_tensor(path[-1:]).to(dtype=map_.dtype, device=map_.device)
        solution = solve(map_, last)
        state = solution.best.state.double().cpu().numpy()
        # Close to zero, what rounding has left of the way is no other place.
        way = self.rounding * float(np.linalg.norm(path, axis=1).max())
        reach = max(self.tolerance * float(self.size[row]), way)
        near = np.linalg.norm(state[0] - path[-1]) <= max(10 * reach, float(self._left(row)))
        if bool(solution.verdict.verified[0]) and near:
            reach = max(reach, _APART * float(solution.verdict.error[0]))
            radius = float(leading(map_, solution.best.state, 1, stretch=False).spectral_radius[0])
            return End(kind=FIXED_POINT, states=state, reach=reach, radius=radius)
        return End(kind=AT_REST, states=path[-1:].copy(), reach=reach)

    def same(self, place: End, other: End) -> bool:
        """Return whether two points are no further apart than is known of them."""
        if place.kind != other.kind:
            return False
        gap = float(np.linalg.norm(place.states[0] - other.states[0]))
        return gap <= max(place.reach, other.reach)

    def _left(self, rows: Any) -> Floats:
        """Return how far trajectories that still contract may be from their limit."""
        quarter = max(1, self.paths.shape[1] // 4)
        step = self.paths[rows, -1] - self.paths[rows, -1 - quarter]
        return 3 * np.linalg.norm(step, axis=-1)


class _OnOrbit(_Ending):
    """Trajectories that go round: their ends are sets of states, compared as `basins` does."""

    def __init__(self, given: Slice, paths: Floats, tolerance: float, rounding: float) -> None:
        super().__init__(given, paths, tolerance, rounding)
        self.tails = paths[:, -min(_SET, paths.shape[1] // 2) :]
        self.own = squares_between(self.tails, self.tails)
        # What is sampled coarsely is not told apart more finely.
        others = self.own + np.where(np.eye(self.own.shape[-1], dtype=bool), np.inf, 0.0)
        norm = np.linalg.norm(self.tails, axis=2).mean(1)
        self.reach = np.maximum(tolerance * norm, 2 * np.sqrt(to_path(others, self.own)))

    def gaps(self, rows: Int[np.ndarray, " row"], place: End) -> Floats:
        """Return distances between sets of states, the larger of both ways."""
        if place.kind != ORBIT:
            return np.full(len(rows), np.inf)
        far = squares_between(self.tails[rows], place.states)
        there = np.sqrt(to_path(far, squares_between(place.states, place.states)))
        back = np.sqrt(to_path(np.swapaxes(far, 1, 2), self.own[rows]))
        reach = self.reach[rows].clip(min=TINY)
        return np.maximum(there / reach, back / max(place.reach, TINY))

    def new(self, row: int) -> End:
        """Take the states that a trajectory visits."""
        return End(
            kind=ORBIT,
            states=self.tails[row].copy(),
            reach=float(self.reach[row]),
            period=float(self.periods[row]),
        )


def _arrival(paths: Floats, place: End) -> Floats:
    """Return the first iteration from which a trajectory stays; NaN where it is not there yet."""
    squares = squares_between(
        paths, np.broadcast_to(place.states, (len(paths), *place.states.shape))
    )
    reach = place.reach
    if place.kind == ORBIT:  # between its states, a sampled orbit is as coarse as they are apart
        own = squares_between(place.states, place.states)
        np.fill_diagonal(own, np.inf)
        reach = max(reach, float(np.sqrt(own.min(1).max())))
    outside = squares.min(-1) > reach**2
    last = paths.shape[1] - 1 - outside[:, ::-1].argmax(1)
    found = np.where(outside.any(1), last + 1, 0).astype(np.float64)
    return np.where(outside[:, -1], np.nan, found)


def _phase(last: Floats, place: End) -> Floats:
    """Return by how many states of a cycle rows are ahead of the one that it was taken from."""
    period = round(place.period) if place.kind == ORBIT and np.isfinite(place.period) else 0
    if not 2 <= period < len(place.states) or abs(place.period - period) > _WHOLE:
        return np.full(len(last), np.nan)
    cycle = place.states[-period:]
    nearest = squares_between(last, cycle).argmin(1)
    return ((nearest + 1) % period).astype(np.float64)
