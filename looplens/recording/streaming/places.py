"""Where the tokens of one forward go: from the rows of a batch to the buffers of the blocks.

In the usual case both are in one piece and a firing is one copy. This module knows tensors only.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from looplens.recording.streaming.staging import Staging


class Places:
    """The kept tokens of a forward and their places in the buffers.

    Parameters
    ----------
    staging : Staging
        The buffers.
    tokens : Int[ndarray, "kept"]
        Places on the token axis of the buffers.
    rows : Int[ndarray, "kept"]
        Which tokens, counted through the prompts of the batch laid end to end.
    total : int
        Tokens of all prompts of the batch.
    restarts : slice
        The restarts that run in this forward.
    """

    def __init__(
        self,
        staging: Staging,
        tokens: Int[np.ndarray, " kept"],
        rows: Int[np.ndarray, " kept"],
        total: int,
        restarts: slice,
    ) -> None:
        self.staging, self.restarts = staging, restarts
        # Indices lie beside what they pick from, or every firing would bring them there.
        self._to = _compact(tokens, staging.buffer_device)
        self._from = _compact(rows, staging.device)
        # Whether every token of every prompt has its place, so that states can be read back.
        self.covers_all = np.array_equal(rows, np.arange(total))

    def of(self, path: str, layer: int = 0) -> Tensor:
        """Return the buffer of a variable, of these restarts: (restart, place, ...)."""
        return self.staging.at(path, layer)[self.restarts]

    def put(self, buffer: Tensor, value: Tensor) -> None:
        """Copy ``value`` (restart * prompt, pos, ...) into ``buffer`` (restart, place, ...)."""
        self.put_picked(buffer, self._pick(value, len(buffer)))

    def put_once(self, path: str, value: Tensor) -> None:
        """Copy what is the same from every start: (prompt, pos, ...)."""
        self.put_picked(self.staging.at(path), self._pick(value, 1))

    def pick(self, value: Tensor) -> Tensor:
        """Return the kept tokens of (restart * prompt, pos, ...): (restart, kept, ...)."""
        return self._pick(value, self._count())

    def put_picked(self, buffer: Tensor, picked: Tensor) -> None:
        """Copy what `pick` returned to its place."""
        if isinstance(self._to, slice):
            buffer[:, self._to].copy_(picked)
        else:
            buffer.index_copy_(1, self._to, picked.to(buffer))

    def take(self, buffer: Tensor) -> Tensor:
        """Return a copy of what lies in these places: (restart, kept, ...)."""
        if isinstance(self._to, slice):
            return buffer[:, self._to].clone(memory_format=torch.contiguous_format)
        return buffer.index_select(1, self._to)

    def fill_from(self, path: str, slot: int) -> None:
        """Write "nothing" into the iterations of a variable from ``slot`` on, if it exists."""
        if path not in self.staging:
            return
        for layer in range(self.staging.layers(path)):
            buffer = self.of(path, layer)[:, :, slot:]
            if buffer.shape[2]:
                nothing = torch.nan if buffer.is_floating_point() else -1
                buffer[:, self._to] = nothing

    def _count(self) -> int:
        return len(range(*self.restarts.indices(self.staging.restarts)))

    def _pick(self, value: Tensor, restarts: int) -> Tensor:
        return value.reshape(restarts, -1, *value.shape[2:])[:, self._from]


def _compact(index: Int[np.ndarray, " kept"], device: torch.device) -> slice | Tensor:
    """Return a slice where one says the same."""
    if len(index) == 0:
        return slice(0, 0)
    if (np.diff(index) == 1).all():
        return slice(int(index[0]), int(index[-1]) + 1)
    return torch.from_numpy(np.ascontiguousarray(index, dtype=np.int64)).to(device)
