"""Motion that returns: how it answers to a push in one round (Floquet multipliers)."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from looplens.dynamics.maps.loop_maps import SequenceMap, TokenMap
from looplens.dynamics.maps.loop_step import LoopStep
from looplens.dynamics.maps.state_map import StateMap


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
