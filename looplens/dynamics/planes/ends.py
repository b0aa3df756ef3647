"""Where many trajectories of one map end, and when they get there.

Ends are numbered as they are met: fixed points, each verified once; orbits, as sets of states; and
what is at rest without a proof. Trajectories come in parts, so that the memory stays bounded.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from looplens.analysis import classify
from looplens.analysis.measures.state_sets import squares_between
from looplens.dynamics.planes.places import ORBIT, AtPoint, End, Ending, OnOrbit
from looplens.dynamics.planes.plane import STANDS, Floats
from looplens.dynamics.planes.slices import Slice

SLIDER, UNRESOLVED, NOT_FINITE, FURTHER = -1, -2, -3, -4
_FAR = 1e30  # a state that grows beyond this does not come back
_WHOLE = 0.1  # a period this close to a whole number has phases


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
        mine = np.flatnonzero(finite & (judged.regime == "fixed_point"))
        if mine.size:
            end[mine] = self._numbers(AtPoint(self.given, values[mine], self.tolerance))
        mine = np.flatnonzero(finite & (judged.regime == "orbit"))
        if mine.size:
            going = OnOrbit(self.given, values[mine], self.tolerance, judged.period[mine])
            end[mine] = self._numbers(going)
        arrival, phase = np.full((2, rows), np.nan)
        for number, place in enumerate(self.found):
            mine = np.flatnonzero(end == number)
            if mine.size:
                arrival[mine] = _arrival(values[mine], place)
                phase[mine] = _phase(values[mine, -1], place)
        return Told(end=end, arrival=arrival, phase=phase)

    def _numbers(self, ending: Ending) -> Int[np.ndarray, " row"]:
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
            # What still goes to new places is at no end of its own yet.
            end[left[~ending.there[left]]] = UNRESOLVED
            left = left[ending.there[left]]
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
