"""Follow a loop while it runs, and keep a few numbers of every iteration instead of its states."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from looplens.models.health.numbers import radial_share, relative_step, token_correlation


class Watch:
    """A listener to the loop state that keeps means over the batch.

    Attributes
    ----------
    first, last : Tensor or None
        The states after the first and the last iteration so far.
    sequences, positions : int
        Size of the batch.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.first: Tensor | None = None
        self.last: Tensor | None = None
        self.sequences = self.positions = 0
        self._numbers: dict[str, list[float]] = {}
        self._gap: Tensor | None = None

    def __call__(self, iteration: int, state: Tensor) -> None:
        """Take the state after an iteration; 0 is the start."""
        state = state.detach().clone()
        self._keep("token_correlation", token_correlation(state))
        self._keep("state_norm", state.float().norm(dim=-1))
        if iteration > 0 and self.last is not None:
            self._keep("relative_step", relative_step(state, self.last))
            self._keep("radial_share", radial_share(state, self.last))
        if iteration == 1:
            self.first = state
        self.last = state
        self.sequences, self.positions = state.shape[:2]

    def pair(self, iteration: int, states: Tensor) -> None:
        """Take the states of two runs, one after the other along the batch, and their distance."""
        state, beside = states.chunk(2)
        gap = (beside - state).float().norm(dim=-1)
        if iteration == 0:
            self._gap = gap.clone()
        elif self._gap is not None:
            self._keep("sensitivity", gap / self._gap)
        self(iteration, state)

    def series(self, name: str) -> np.ndarray | None:
        """Return one number by iteration, or None where it was not measured."""
        values = self._numbers.get(name)
        return None if values is None else np.array(values)

    def _keep(self, name: str, values: Tensor) -> None:
        self._numbers.setdefault(name, []).append(float(values.nanmean()))
