"""Buffers for a few blocks of all variables, filled by hooks and emptied by the writer.

They are made once and used in turn, so that memory neither grows with the run nor is faulted in
again with every batch. Within them the layers come before the tokens: the slice of one layer of
one block, which is what one file holds, lies in one piece. This module knows no model and no disk.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from looplens.store.format.schema import VariableSpec

Arrays = dict[str, np.ndarray]
_TORCH = {"float32": torch.float32, "float16": torch.float32, "int32": torch.int32}


class Staging:
    """Room for some consecutive blocks: token ``n`` lies at ``n`` modulo the number of tokens.

    Parameters
    ----------
    variables : mapping of str to VariableSpec
        Those with a token axis.
    block_tokens : int
        Tokens of a block.
    n_tokens : int
        Tokens of the run.
    slots : int
        How many blocks there is room for.
    device : torch.device
        Where the hooks see their values.
    """

    def __init__(
        self,
        variables: Mapping[str, VariableSpec],
        *,
        block_tokens: int,
        n_tokens: int,
        slots: int,
        device: torch.device,
    ) -> None:
        self.block_tokens, self.n_tokens, self.slots = block_tokens, n_tokens, slots
        self.device = device  # of the values; the buffers may lie elsewhere
        self._dims = {path: variable.dims for path, variable in variables.items()}
        self._tensors = {
            path: self._make(_shape(variable, block_tokens * slots), _TORCH[variable.dtype])
            for path, variable in variables.items()
        }

    def __contains__(self, path: str) -> bool:
        return path in self._tensors

    def at(self, path: str, layer: int = 0) -> Tensor:
        """Return the buffer of a variable, of the layer at this place: (restart, token, ...)."""
        return self._tensors[path][:, layer]

    def layers(self, path: str) -> int:
        """Return how many layers a variable has."""
        return self._tensors[path].shape[1]

    @property
    def buffer_device(self) -> torch.device:
        """Where the buffers lie."""
        return next(iter(self._tensors.values())).device

    @property
    def restarts(self) -> int:
        """How many restarts there are."""
        return max(tensor.shape[0] for tensor in self._tensors.values())

    def places(self, tokens: Int[np.ndarray, " token"]) -> Int[np.ndarray, " token"]:
        """Return where tokens of the run lie on the token axis of the buffers."""
        return tokens % (self.block_tokens * self.slots)

    def is_free(self, blocks: Collection[int], pending: Collection[int]) -> bool:
        """Return whether these blocks can be filled while those are not on disk yet."""
        taken = {block % self.slots for block in pending}
        return not taken & {block % self.slots for block in blocks if block not in pending}

    def can_hand_over(self, pending: Collection[int]) -> bool:
        """Return whether `hand_over` may be called while these blocks are not on disk yet."""
        return True

    def claim(self, blocks: Collection[int]) -> None:
        """Make sure that nothing is read any more from where these blocks will lie."""

    def hand_over(self, block: int) -> Callable[[], Arrays]:
        """Return what gives the arrays of a filled block, to be called by the writer's thread."""
        return lambda: self._views(self._tensors, block, self._start(block))

    def give_back(self, block: int) -> None:
        """Say that a block is on disk."""

    def _start(self, block: int) -> int:
        return block % self.slots * self.block_tokens

    def _length(self, block: int) -> int:
        return min(self.block_tokens, self.n_tokens - block * self.block_tokens)

    def _views(self, tensors: Mapping[str, Tensor], block: int, start: int) -> Arrays:
        """Return arrays with the axes of the store."""
        found = {}
        for path, tensor in tensors.items():
            array = tensor[:, :, start : start + self._length(block)].numpy()
            dims = self._dims[path]
            array = array.swapaxes(1, 2) if "layer" in dims else array[:, 0]
            found[path] = array if "restart" in dims else array[0]
        return found

    def _make(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.empty(tuple(shape), dtype=dtype)


class DeviceStaging(Staging):
    """Buffers on a CUDA device, copied to pinned ones on a stream of their own.

    The copy of a block runs while the next one is computed, and the writer's thread waits for it,
    not the thread that drives the device.
    """

    HOST_SETS = 2

    def __init__(self, variables: Mapping[str, VariableSpec], **sizes: object) -> None:
        super().__init__(variables, **sizes)  # type: ignore[arg-type]
        self._stream = torch.cuda.Stream(self.device)
        self._copied: dict[int, torch.cuda.Event] = {}  # by slot
        self._host = [
            {
                path: _pinned(_shape(variable, self.block_tokens), _TORCH[variable.dtype])
                for path, variable in variables.items()
            }
            for _ in range(self.HOST_SETS)
        ]
        self._set_of: dict[int, int] = {}

    def is_free(self, blocks: Collection[int], pending: Collection[int]) -> bool:
        """Return True: the device waits for itself."""
        return True

    def can_hand_over(self, pending: Collection[int]) -> bool:
        """Return whether a set of pinned buffers is free."""
        return len(pending) < self.HOST_SETS

    def claim(self, blocks: Collection[int]) -> None:
        """Let what is computed from now on wait for the copies out of these blocks' places."""
        for block in blocks:
            event = self._copied.pop(block % self.slots, None)
            if event is not None:
                torch.cuda.current_stream(self.device).wait_event(event)

    def hand_over(self, block: int) -> Callable[[], Arrays]:
        """Start the copy of a block; what is returned waits for it."""
        number = next(n for n in range(self.HOST_SETS) if n not in self._set_of.values())
        self._set_of[block] = number
        host = self._host[number]
        start, length = self._start(block), self._length(block)
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        event = torch.cuda.Event()
        with torch.cuda.stream(self._stream):
            for path, tensor in self._tensors.items():
                for restart, rows in enumerate(tensor):
                    for layer, row in enumerate(rows):  # each lies in one piece: one plain copy
                        target = host[path][restart, layer, :length]
                        target.copy_(row[start : start + length], non_blocking=True)
            event.record(self._stream)
        self._copied[block % self.slots] = event

        def arrays() -> Arrays:
            event.synchronize()
            return self._views(host, block, 0)

        return arrays

    def give_back(self, block: int) -> None:
        """Say that a block is on disk, so that its pinned buffers are free."""
        del self._set_of[block]

    def _make(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.empty(tuple(shape), dtype=dtype, device=self.device)


def staging_for(
    variables: Mapping[str, VariableSpec],
    *,
    block_tokens: int,
    n_tokens: int,
    slots: int,
    device: torch.device,
) -> Staging:
    """Return buffers for a device; those of other than CUDA devices lie in the memory of the host.

    See `Staging` for the parameters.
    """
    kind = DeviceStaging if device.type == "cuda" else Staging
    return kind(variables, block_tokens=block_tokens, n_tokens=n_tokens, slots=slots, device=device)


def _shape(variable: VariableSpec, tokens: int) -> tuple[int, ...]:
    """Return (restart, layer, token, ...), with one restart and layer where there are none."""
    sizes = dict(zip(variable.dims, variable.shape, strict=True))
    tail = [size for dim, size in sizes.items() if dim not in ("restart", "layer", "token")]
    return (sizes.get("restart", 1), sizes.get("layer", 1), tokens, *tail)


def _pinned(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty(tuple(shape), dtype=dtype, pin_memory=True)
