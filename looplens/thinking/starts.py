"""Initial states position by position, the same as a forward over the finished text would use.

A generated token at position ``p`` starts from row ``p`` of the draw, or of the tensor that was
given. How states are drawn is :mod:`looplens.models.initial_state`'s affair.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from looplens.errors import InputError
from looplens.models import InitialState, LoopedTransformer


class Starts:
    """Makes the initial states of one generation.

    Parameters
    ----------
    model : LoopedTransformer
        Its ``position_offset`` tells where a chunk begins.
    spec : optional
        As for :meth:`LoopedTransformer.initial_state`.
    positions : int
        How many positions will ask for a state.

    Raises
    ------
    InputError
        If ``spec`` is unknown, or a tensor that does not broadcast to (1, positions, d_model).
    """

    def __init__(
        self,
        model: LoopedTransformer,
        spec: str | int | InitialState | Tensor | None,
        positions: int,
    ) -> None:
        self._model = model
        self._positions = positions
        if isinstance(spec, Tensor):
            self._check_shape(spec)
            self._spec: InitialState | Tensor = spec
        else:
            self._spec = InitialState.parse(spec, model.cfg)
        self._table: Tensor | None = None

    def at(
        self,
        embedding: Float[Tensor, "1 pos d_model"],
        injected: Float[Tensor, "1 pos d_model"],
    ) -> Float[Tensor, "1 pos d_model"]:
        """Return the states of the positions from ``model.position_offset`` on."""
        start = self._model.position_offset
        stop = start + injected.shape[1]
        if isinstance(self._spec, Tensor) or self._spec.scheme == "noise":
            if self._table is None:
                # One draw for the whole text, since it depends on seed and position alone.
                blank = injected.new_zeros((1, self._positions, injected.shape[-1]))
                self._table = self._states(blank, blank)
            return self._table[:, start:stop]
        if start == 0:
            return self._states(injected, embedding)
        # States are made from position 0 on; at the earlier ones any token may stand.
        shape = (1, stop, injected.shape[-1])
        states = self._states(injected[:, -1:].expand(shape), embedding[:, -1:].expand(shape))
        return states[:, start:]

    def _states(self, injected: Tensor, embedding: Tensor) -> Tensor:
        """Make the states of a text that begins at position 0."""
        offset, self._model.position_offset = self._model.position_offset, 0
        try:
            return self._model.initial_state(injected, self._spec, embedding=embedding)
        finally:
            self._model.position_offset = offset

    def _check_shape(self, state: Tensor) -> None:
        shape = (1, self._positions, self._model.cfg.d_model)
        try:
            state.expand(shape)
        except RuntimeError:
            raise InputError(
                f"initial_state of shape {tuple(state.shape)} does not broadcast to {shape} "
                "(batch, all positions of prompt and generated tokens but the last, d_model). To "
                "start generated tokens from the state before them, pass continuous_start=True."
            ) from None
