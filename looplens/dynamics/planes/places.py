"""Places where trajectories end: fixed points and orbits, and how far a trajectory is from one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from looplens.analysis.algebra.gram import TINY
from looplens.analysis.measures.state_sets import away, squares_between, to_path
from looplens.dynamics.eigen.spectrum import leading
from looplens.dynamics.planes.plane import Floats
from looplens.dynamics.planes.slices import Slice
from looplens.dynamics.solving.fixed_point import solve

FIXED_POINT, ORBIT, AT_REST = "fixed point", "orbit", "at rest, not verified"
_SET = 64  # states of an orbit that stand for it
_SMOOTH = 8.0  # a period from which on an orbit is taken for a sampled curve
_APART = 8.0  # errors, from which on two points are two


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


class Ending:
    """Trajectories of one kind: how far they are from an end, and what a new one is.

    Parameters
    ----------
    given : Slice
        The map at the end.
    paths : Float[ndarray, "row iteration n"]
        The trajectories.
    tolerance : float
        Distance that counts as the same place, over the norm.

    Attributes
    ----------
    there : Bool[ndarray, "row"]
        Which of them have come to an end; the others still go to new places.
    """

    def __init__(self, given: Slice, paths: Floats, tolerance: float) -> None:
        self.given, self.paths, self.tolerance = given, paths, tolerance
        self.there: Bool[np.ndarray, " row"] = np.ones(len(paths), dtype=bool)

    def gaps(self, rows: Int[np.ndarray, " row"], place: End) -> Floats:
        """Return distances of rows from an end, over what counts as there."""
        raise NotImplementedError

    def new(self, row: int) -> End:
        """Return the end that a row belongs to."""
        raise NotImplementedError

    def same(self, place: End, other: End) -> bool:
        """Return whether a new end is one that is known."""
        return False


class AtPoint(Ending):
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
        reach = self.tolerance * float(np.linalg.norm(path[-1]))
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


class OnOrbit(Ending):
    """Trajectories that go round: their ends are sets of states, compared as `basins` does.

    An orbit is not told apart more finely than it is sampled: than twice the distance of its states
    from the others. In a smooth orbit these are those of one turn: states of the same phase in
    other turns say nothing of what lies between.
    """

    def __init__(self, given: Slice, paths: Floats, tolerance: float, periods: Floats) -> None:
        super().__init__(given, paths, tolerance)
        self.periods = periods
        count = min(_SET, paths.shape[1] // 2)
        self.tails = paths[:, -count:]
        self.own = squares_between(self.tails, self.tails)
        lap = np.where(periods >= _SMOOTH, periods.round(), count).clip(max=count).astype(int)
        coarse = np.empty(len(paths))
        for n in np.unique(lap):
            own = self.own[lap == n, -n:, -n:]
            others = own + np.where(np.eye(n, dtype=bool), np.inf, 0.0)
            coarse[lap == n] = np.sqrt(to_path(others, own))
        norm = np.linalg.norm(self.tails, axis=2).mean(1)
        self.reach = np.maximum(tolerance * norm, 2 * coarse)
        before = paths[:, -2 * count : -count]
        self.there = np.sqrt(away(self.tails, before)) <= self.reach

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
