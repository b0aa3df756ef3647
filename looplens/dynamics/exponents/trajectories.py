"""A trajectory without gaps, out of what was recorded, and the derivatives along it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from looplens.dynamics.maps.loop_maps import SequenceMap, TokenMap
from looplens.dynamics.maps.loop_step import LoopStep
from looplens.dynamics.maps.recorded import Recorded
from looplens.dynamics.maps.state_map import Rows
from looplens.errors import AnalysisError, InputError
from looplens.models.inputs import whole_number

_OTHER = 1e-3  # relative difference by which a first pass is another map than the later ones


@dataclass(frozen=True, kw_only=True, slots=True)
class Trajectory:
    """States of successive iterations, the first of them `first`.

    Attributes
    ----------
    step : LoopStep
        The map that leads from each to the next.
    states : Float[Tensor, "iteration pos d_model"]
        Recorded, and in gaps and behind the end computed.
    first : int
        Iteration of the first state: 1 where the first pass is another map than the later ones.
    computed : int
        States that were not recorded.
    """

    step: LoopStep
    states: Float[Tensor, "iteration pos d_model"]
    first: int
    computed: int

    @property
    def steps(self) -> int:
        """How many derivatives there are."""
        return len(self.states) - 1

    def at(
        self, index: int, positions: Sequence[int] | None = None
    ) -> tuple[TokenMap | SequenceMap, Rows]:
        """Return a map and the states of its rows, so many steps after the first state.

        A row is the block of one token; without `positions` there is one row, the whole sequence.
        """
        context = self.states[index]
        if positions is None:
            return SequenceMap(self.step), context.reshape(1, -1)
        return TokenMap(self.step, context, positions), context[list(positions)]


@torch.no_grad()
def trajectory_of(recorded: Recorded, iterations: int | None = None) -> Trajectory:
    """Return the trajectory up to an iteration, by default the last recorded one.

    Raises
    ------
    InputError
        If `iterations` is no number of iterations, or ends before the first state.
    AnalysisError
        If the states leave the finite numbers.
    """
    known = dict(zip(recorded.iterations, recorded.states, strict=True))
    last = recorded.iterations[-1]
    if iterations is not None:
        last = whole_number(iterations, "iterations", least=1)
    first = _first(recorded, known)
    if last < first:
        raise InputError(
            f"iterations={last}, but the first state that can be used is that of iteration {first}"
        )
    states, computed = [known[first]], 0
    for iteration in range(first + 1, last + 1):
        if iteration in known:
            states.append(known[iteration])
            continue
        states.append(recorded.step(states[-1][None])[0])
        computed += 1
        if not bool(states[-1].isfinite().all()):
            raise AnalysisError(
                f"the states leave the finite numbers at iteration {iteration}: take fewer "
                "iterations"
            )
    return Trajectory(
        step=recorded.step, states=torch.stack(states), first=first, computed=computed
    )


def _first(recorded: Recorded, known: dict[int, Tensor]) -> int:
    """Return the first iteration from which on the step is the map of the trajectory."""
    first = recorded.iterations[0]
    if first > 0 or len(known) == 1:
        return first
    if 1 not in known:  # whether the first pass is like the others cannot be told
        return recorded.iterations[1]
    found = recorded.step(known[0][None])[0]
    apart = (found - known[1]).norm(dim=-1) / known[1].norm(dim=-1).clamp(min=1e-30)
    return 1 if float(apart.max()) > max(_OTHER, 4 * recorded.mismatch) else 0
