"""States of one token as rows of a map: with the others held still, or as part of the sequence.

A plane lies in the space of one state. What moves is either that state alone or the sequence that
it stands in; whoever samples a plane need not know which.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from looplens.dynamics.maps.loop_maps import SequenceMap, TokenMap
from looplens.dynamics.maps.loop_step import LoopStep
from looplens.dynamics.maps.state_map import Rows, StateMap

_CHUNK_NUMBERS = 2**23  # numbers in the states of the sequences that are mapped at once


class Slice:
    """A map whose states are those of the plane.

    Parameters
    ----------
    map_ : StateMap
        The map of one row.
    row_numbers : int, optional
        Numbers that mapping a row takes; those of its state by default.

    Attributes
    ----------
    whole : StateMap
        The map of one row.
    at_once : int
        Rows to map together.
    """

    def __init__(self, map_: StateMap, row_numbers: int | None = None) -> None:
        self.whole = map_
        self.at_once = max(1, _CHUNK_NUMBERS // (row_numbers or map_.size))

    def map(self, rows: int) -> StateMap:
        """Return the map of so many rows."""
        return self.whole.each(rows)

    def rows(self, states: Float[Tensor, "row d_model"]) -> Rows:
        """Return rows of the map with these states in them."""
        return states.to(dtype=self.whole.dtype, device=self.whole.device)

    def states(self, rows: Rows) -> Float[Tensor, "row d_model"]:
        """Return the states in rows of the map."""
        return rows


class SequenceSlice(Slice):
    """A whole sequence, in which the slice sets the state of one token."""

    def __init__(self, step: LoopStep, context: Float[Tensor, "pos d_model"], token: int) -> None:
        super().__init__(SequenceMap(step))
        self._context, self._token = context, token

    def rows(self, states: Float[Tensor, "row d_model"]) -> Rows:
        """Return sequences that differ in the state of the token."""
        found = self._context.repeat(len(states), 1, 1)
        found[:, self._token] = states.to(found)
        return found.flatten(1)

    def states(self, rows: Rows) -> Float[Tensor, "row d_model"]:
        """Return the state of the token in sequences."""
        return rows.reshape(len(rows), *self._context.shape)[:, self._token]


def slice_of(
    step: LoopStep, context: Float[Tensor, "pos d_model"], token: int, scope: str
) -> Slice:
    """Return the slice of a scope, ``token`` or ``sequence``."""
    if scope == "sequence":
        return SequenceSlice(step, context, token)
    # A token that cannot run by itself takes its whole sequence.
    return Slice(TokenMap(step, context, [token]), context.numel())
