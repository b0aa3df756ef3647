"""Motion that returns: how it answers to a push in one round (Floquet multipliers).

A motion can have doubled its period, and turn about a shorter cycle that it runs away from, as that
one turns about a fixed point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from looplens.dynamics.eigen.spectrum import leading
from looplens.dynamics.maps.loop_maps import SequenceMap, TokenMap
from looplens.dynamics.maps.loop_step import LoopStep
from looplens.dynamics.maps.state_map import StateMap
from looplens.dynamics.solving.fixed_point import solve

_APART = 1e-3  # of the norm, between states of a cycle that is no shorter one


class CycleMap(StateMap):
    """A round of p iterations for each token, while the others go around their cycle.

    Its Jacobian at the first state of the cycle is the product of the Jacobians along it; the
    eigenvalues of that are the Floquet multipliers of the token's block.

    Parameters
    ----------
    maps : sequence of TokenMap
        The step of each phase, with the others where they are then.
    """

    def __init__(self, maps: Sequence[TokenMap]) -> None:
        self.maps, first = list(maps), maps[0]
        super().__init__(
            self._round,
            first.shape,
            dtype=first.dtype,
            device=first.device,
            is_fixed=first.is_fixed,
            ways=first.ways,
        )

    @classmethod
    def along(
        cls,
        step: LoopStep,
        cycle: Float[Tensor, "phase pos d_model"],
        positions: Sequence[int],
    ) -> CycleMap:
        """Take states of all tokens, of which the one after the last is the first again."""
        return cls([TokenMap(step, context, positions) for context in cycle])

    @property
    def attention(self) -> str:
        """Which attention kernel the derivatives take."""
        return self.maps[0].attention

    def rows(self, chosen: Tensor) -> CycleMap:
        """Return the map of some of the rows."""
        return CycleMap([map_.rows(chosen) for map_ in self.maps])

    def each(self, times: int) -> CycleMap:
        """Return the map of rows of which each stands so many times in a row."""
        return CycleMap([map_.each(times) for map_ in self.maps])

    def _round(self, tokens: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_model"]:
        for map_ in self.maps:
            tokens = map_.function(tokens)
        return tokens


class RoundMap(SequenceMap):
    """A round of p iterations of the whole sequence."""

    def __init__(self, step: LoopStep, period: int) -> None:
        super().__init__(step)
        self.function, self.period = self._round, period

    def _round(self, states: Float[Tensor, "row pos d_model"]) -> Tensor:
        for _ in range(self.period):
            states = self.step(states)
        return states


@dataclass(frozen=True, kw_only=True, slots=True)
class Cycle:
    """A verified cycle of one token, the others at their fixed points; stable or not.

    Attributes
    ----------
    period : int
        Iterations of a round.
    state : Float[Tensor, "d_model"]
        One of its states.
    multiplier : complex
        Leading Floquet multiplier: beyond 1 in modulus the cycle is unstable.
    """

    period: int
    state: Float[Tensor, " d_model"]
    multiplier: complex

    @property
    def message(self) -> str:
        """What it is, in words."""
        value = self.multiplier
        said = f"{value:.3f}" if value.imag else f"{value.real:.3f}"
        kind = "an unstable" if abs(value) > 1 else "a stable"
        return f"beside the motion there is {kind} cycle of period {self.period}, multiplier {said}"


def shorter_cycle(
    step: LoopStep,
    context: Float[Tensor, "pos d_model"],
    position: int,
    path: Float[Tensor, "time d_model"],
    period: float,
) -> Cycle | None:
    """Solve for the cycle of half the period under the motion of a token; 2 where none is known.

    It is a fixed point of so many iterations at once, and Newton's method finds it although the
    motion runs away from it. It begins at the means of the motion, phase by phase.

    Parameters
    ----------
    step : LoopStep
        The loop.
    context : Float[Tensor, "pos d_model"]
        Where the other tokens are held.
    position : int
        The token.
    path : Float[Tensor, "time d_model"]
        Its motion.
    period : float
        Iterations of that; NaN where it does not return.

    Returns
    -------
    Cycle or None
        None where there is no half (odd periods, and 2), or none was verified that is no shorter
        one.
    """
    if not np.isnan(period) and (period % 2 or period <= 2):
        return None
    half = 2 if np.isnan(period) else int(period) // 2
    given = torch.stack([path[phase::half].mean(0) for phase in range(half)])
    rows = [position] * half
    map_ = CycleMap.along(step, context.expand(half, -1, -1), rows)
    found = solve(map_, given, max_iterations=60)
    single, x = TokenMap(step, context, rows), found.best.state
    state, apart = x, torch.full_like(found.best.residual, torch.inf)
    for number in range(1, half):
        state = single(state)
        if half % number == 0:
            apart = torch.minimum(apart, (state - x).norm(dim=-1) / found.best.size())
    good = found.verdict.verified & (apart > _APART)
    if not bool(good.any()):
        return None
    best = int(torch.where(good, (x - given).norm(dim=-1), torch.inf).argmin())
    value = leading(map_.rows(torch.tensor([best])), x[[best]], 1, stretch=False).eigenvalues[0, 0]
    return Cycle(period=half, state=x[best], multiplier=complex(value))
