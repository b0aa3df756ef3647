"""The two maps of a loop that questions are asked of: one token's, and the whole sequence's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from looplens.dynamics.maps.loop_step import LoopStep
from looplens.dynamics.maps.state_map import StateMap


class SequenceMap(StateMap):
    """All positions together: rows are starts, a state is ``[pos, d_model]``."""

    def __init__(self, step: LoopStep) -> None:
        self.step = step
        super().__init__(step, step.shape, dtype=step.looped.dtype, device=step.looped.device)


class TokenMap(StateMap):
    """One token each, with the other tokens of the prompt held still: a state is ``[d_model]``.

    The Jacobian of a row is the diagonal block of its token in the Jacobian of the sequence.

    Parameters
    ----------
    step : LoopStep
        The map of the sequence.
    context : Float[Tensor, "pos d_model"] or Float[Tensor, "row pos d_model"]
        Where the others are held.
    positions : sequence of int
        The token of every row.
    """

    def __init__(
        self,
        step: LoopStep,
        context: Float[Tensor, "*row pos d_model"],
        positions: Sequence[int] | Int[Tensor, " row"],
    ) -> None:
        self.step = step
        self.positions = torch.as_tensor(positions, device=context.device)
        self.context = context.expand(len(self.positions), *context.shape[-2:])
        super().__init__(self._move, context.shape[-1:], dtype=context.dtype, device=context.device)

    def rows(self, chosen: Tensor) -> TokenMap:
        """Return the map of some of the rows."""
        return self._with(self.context[chosen], self.positions[chosen])

    def each(self, times: int) -> TokenMap:
        """Return the map of rows of which each stands so many times in a row."""
        return self._with(
            self.context.repeat_interleave(times, dim=0), self.positions.repeat_interleave(times)
        )

    def _with(self, context: Tensor, positions: Tensor) -> TokenMap:
        found = TokenMap(self.step, context, positions)
        found.attention = self.attention
        return found

    def _move(self, tokens: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_model"]:
        """Put every row's token into its context, and take it out one step later."""
        here = torch.arange(self.context.shape[1], device=tokens.device)
        mine = (here == self.positions[:, None])[..., None]  # row pos 1
        states = torch.where(mine, tokens[:, None], self.context)
        rows = torch.arange(len(tokens), device=tokens.device)
        return self.step(states)[rows, self.positions]
