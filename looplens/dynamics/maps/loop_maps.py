"""The two maps of a loop that questions are asked of: one token's, and the whole sequence's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from looplens.dynamics.maps.derivatives import Ways
from looplens.dynamics.maps.held import Held
from looplens.dynamics.maps.loop_step import LoopStep
from looplens.dynamics.maps.state_map import StateMap
from looplens.errors import InputError

OWN_QUERY = "written out (the query of the token against held keys)"


Scope = Literal["token", "sequence"]
"""Whether a question is asked of tokens with the others held still, or of all together."""


def check_scope(scope: object) -> None:
    """Check what a caller says of the scope.

    Raises
    ------
    InputError
        If it is neither.
    """
    if scope not in get_args(Scope):
        raise InputError(f"scope must be 'token' or 'sequence'; got {scope!r}")


class SequenceMap(StateMap):
    """All positions together: rows are starts, a state is ``[pos, d_model]``."""

    def __init__(self, step: LoopStep) -> None:
        self.step = step
        super().__init__(
            step,
            step.shape,
            dtype=step.looped.dtype,
            device=step.looped.device,
            is_fixed=not step.hooks,
            ways=Ways.like(step.settled.get("sequence")),
        )

    def _note_ways(self) -> None:
        self.step.settled["sequence"] = self.ways


class TokenMap(StateMap):
    """One token each, with the other tokens of the prompt held still: a state is ``[d_model]``.

    The Jacobian of a row is the diagonal block of its token in the Jacobian of the sequence. In a
    native model without hooks only the token itself runs, against keys and values of the others
    that are computed once; otherwise the whole prompt runs for every row.

    Parameters
    ----------
    step : LoopStep
        The map of the sequence.
    context : Float[Tensor, "pos d_model"] or Float[Tensor, "row pos d_model"]
        Where the others are held. It is read when the map is made.
    positions : sequence of int
        The token of every row.
    alone : bool
        Run tokens by themselves where that is possible; off for the reference.

    Attributes
    ----------
    is_alone : bool
        Whether tokens run by themselves.
    """

    def __init__(
        self,
        step: LoopStep,
        context: Float[Tensor, "*row pos d_model"],
        positions: Sequence[int] | Int[Tensor, " row"],
        *,
        alone: bool = True,
    ) -> None:
        positions = torch.as_tensor(positions, device=context.device)
        contexts = context.detach().reshape(-1, *context.shape[-2:])
        if context.ndim == 3 and context.stride(0) == 0:  # one context, expanded
            contexts = contexts[:1]
        if contexts.shape[1:] != step.shape or len(contexts) not in (1, len(positions)):
            raise InputError(
                f"the context has shape {tuple(context.shape)}; expected {list(step.shape)}, or "
                f"that for each of the {len(positions)} rows"
            )
        outside = (positions < 0) | (positions >= step.shape[0])
        if bool(outside.any()):
            raise InputError(
                f"positions must lie in 0..{step.shape[0] - 1}, got {positions.tolist()}"
            )
        which = torch.arange(len(positions), device=context.device) % len(contexts)
        held = Held(step, contexts) if alone and Held.serves(step) else None
        ways = Ways.like(step.settled.get(_kind(held)))
        self._set(step, contexts, which, positions, held, ways)

    def _set(
        self,
        step: LoopStep,
        contexts: Float[Tensor, "context pos d_model"],
        which: Int[Tensor, " row"],
        positions: Int[Tensor, " row"],
        held: Held | None,
        ways: Ways,
    ) -> None:
        """Set the parts; every row has its number among the contexts."""
        self.step, self.positions, self.is_alone = step, positions, held is not None
        self._contexts, self._which, self._held = contexts, which, held
        # No methods of this object: they would keep it alive, with all its graphs.
        function: Callable[[Tensor], Tensor]
        if held is None:
            function = partial(_in_prompt, step, contexts, which, positions)
        else:
            seen = held.seen_by(positions, which)
            function = partial(held.move, positions=positions, seen=seen)
        super().__init__(
            function,
            contexts.shape[-1:],
            dtype=contexts.dtype,
            device=contexts.device,
            is_fixed=not step.hooks,
            ways=ways,
        )
        if held is None:
            self.breadth = contexts[0].numel()

    @property
    def attention(self) -> str:
        """Which attention kernel the derivatives take."""
        return OWN_QUERY if self.is_alone else super().attention

    @property
    def context(self) -> Float[Tensor, "row pos d_model"]:
        """Where the others of every row are held."""
        if len(self._contexts) == 1:
            return self._contexts.expand(len(self.positions), -1, -1)
        return self._contexts[self._which]

    def rows(self, chosen: Tensor) -> TokenMap:
        """Return the map of some of the rows."""
        return self._with(self._which[chosen], self.positions[chosen])

    def each(self, times: int) -> TokenMap:
        """Return the map of rows of which each stands so many times in a row."""
        return self._with(
            self._which.repeat_interleave(times), self.positions.repeat_interleave(times)
        )

    def _note_ways(self) -> None:
        self.step.settled[_kind(self._held)] = self.ways

    def _with(self, which: Tensor, positions: Tensor) -> TokenMap:
        found = TokenMap.__new__(TokenMap)
        found._set(self.step, self._contexts, which, positions, self._held, self.ways)
        return found


def _in_prompt(
    step: LoopStep,
    contexts: Float[Tensor, "context pos d_model"],
    which: Int[Tensor, " row"],
    positions: Int[Tensor, " row"],
    tokens: Float[Tensor, "row d_model"],
) -> Float[Tensor, "row d_model"]:
    """Put every row's token into its context, and take it out one step later."""
    here = torch.arange(contexts.shape[1], device=tokens.device)
    mine = (here == positions[:, None])[..., None]  # row pos 1
    states = torch.where(mine, tokens[:, None], contexts if len(contexts) == 1 else contexts[which])
    return step(states)[torch.arange(len(tokens), device=tokens.device), positions]


def _kind(held: Held | None) -> str:
    return "token in its prompt" if held is None else "token alone"
