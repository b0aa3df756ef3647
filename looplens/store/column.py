"""The write end of one array: casts, counts, and collects tokens until a chunk is whole.

A block that already covers whole chunks goes straight to disk; at most one chunk of tokens is held.
"""

from __future__ import annotations

import numpy as np

from looplens.errors import InputError, StoreError
from looplens.store.location import RunLocation
from looplens.store.schema import NAN_MEANS_NONE, VariableSpec


class TokenColumn:
    """The write end of one array with a token axis: collects tokens until a chunk is whole."""

    def __init__(self, location: RunLocation, variable: VariableSpec) -> None:
        assert variable.token_axis is not None
        self.location = location
        self.variable = variable
        self.axis = variable.token_axis
        self.n_tokens = variable.shape[self.axis]
        self.block = variable.chunks[self.axis]
        self.position = 0  # tokens received
        self.non_finite = 0
        self._buffer: np.ndarray | None = None
        self._buffered = 0

    def write(self, start: int, stop: int, data: np.ndarray) -> None:
        """Take tokens ``start:stop``; see `RunWriter.write`."""
        self._check(start, stop, data)
        data = to_stored_dtype(data, self.variable)
        self.non_finite += count_non_finite(data, self.variable)
        taken = 0
        while taken < stop - start:
            left = stop - start - taken
            to_end = self.n_tokens - self.position
            if self._buffered == 0 and (left >= self.block or left == to_end):
                count = left if left == to_end else left // self.block * self.block
                self._put(self.position, self._tokens(data, taken, taken + count))
                self.position += count
            else:
                count = min(left, self.block - self._buffered)
                self._collect(self._tokens(data, taken, taken + count))
            taken += count

    def _collect(self, part: np.ndarray) -> None:
        if self._buffer is None:
            shape = list(self.variable.shape)
            shape[self.axis] = self.block
            self._buffer = np.empty(shape, dtype=self.variable.dtype)
        count = part.shape[self.axis]
        self._tokens(self._buffer, self._buffered, self._buffered + count)[...] = part
        self._buffered += count
        self.position += count
        if self._buffered == self.block or self.position == self.n_tokens:
            whole = self._tokens(self._buffer, 0, self._buffered)
            self._put(self.position - self._buffered, whole)
            self._buffered = 0

    def _put(self, start: int, data: np.ndarray) -> None:
        put(self.location, self.variable, data, start)

    def _tokens(self, data: np.ndarray, start: int, stop: int) -> np.ndarray:
        return data[(slice(None),) * self.axis + (slice(start, stop),)]

    def _check(self, start: int, stop: int, data: np.ndarray) -> None:
        path = self.variable.path
        if start != self.position or stop <= start:
            raise InputError(
                f"Blocks of {path} must arrive in order: the next one starts at token "
                f"{self.position}, but {start}:{stop} was given."
            )
        if stop > self.n_tokens:
            raise InputError(
                f"The run has {self.n_tokens} tokens, but a block {start}:{stop} of {path} was "
                "given."
            )
        expected = list(self.variable.shape)
        expected[self.axis] = stop - start
        if data.shape != tuple(expected):
            raise InputError(shape_message(self.variable, tuple(expected), data.shape))


def to_stored_dtype(data: np.ndarray, variable: VariableSpec) -> np.ndarray:
    """Return ``data`` in the dtype of the variable.

    Raises
    ------
    InputError
        If the numbers are of another kind, such as floats for an array of ids.
    StoreError
        If a finite number becomes infinite.
    """
    if data.dtype == variable.dtype:
        return data
    kinds = "iu" if variable.dtype == "int32" else "fiu"
    if data.dtype.kind not in kinds:
        raise InputError(
            f"{variable.path} is stored as {variable.dtype}, but {data.dtype} was given."
        )
    with np.errstate(over="ignore"):
        stored = data.astype(variable.dtype)
    if _has_non_finite(stored):
        overflowed = np.isinf(stored) & np.isfinite(data)
        if overflowed.any():
            largest = np.abs(data[overflowed]).max()
            limit = np.finfo(variable.dtype).max
            raise StoreError(
                f"{variable.path} holds {int(overflowed.sum())} numbers too large for "
                f"{variable.dtype}: the largest is {largest:.6g}, and the format ends at "
                f"{limit:.6g}. Record with dtype='float32'."
            )
    return stored


def count_non_finite(data: np.ndarray, variable: VariableSpec) -> int:
    """Count NaN and infinite numbers; only infinite ones where NaN says "there is none"."""
    if not _has_non_finite(data):
        return 0
    if variable.path in NAN_MEANS_NONE:
        return int(np.isinf(data).sum())
    return data.size - int(np.isfinite(data).sum())


def _has_non_finite(data: np.ndarray) -> bool:
    """Whether there may be NaN or infinite numbers; a sum is fast, it makes no big array."""
    if data.dtype.kind != "f":
        return False
    with np.errstate(all="ignore"):
        return not np.isfinite(data.sum(dtype=np.result_type(data.dtype, np.float32)))


def put(location: RunLocation, variable: VariableSpec, data: np.ndarray, start: int = 0) -> None:
    """Write to disk: all of an array, or the tokens from ``start`` on.

    Raises
    ------
    StoreError
        If the disk refuses.
    """
    region = [slice(0, size) for size in data.shape]
    if variable.token_axis is not None:
        region[variable.token_axis] = slice(start, start + data.shape[variable.token_axis])
    if variable.dims[0] != "restart":
        location.write(variable, tuple(region), data)
        return
    for restart in range(len(data)):
        # A block of tokens is contiguous within a restart, and Zarr copies what is not.
        one = slice(restart, restart + 1)
        location.write(variable, (one, *region[1:]), data[one])


def shape_message(variable: VariableSpec, expected: tuple[int, ...], seen: tuple[int, ...]) -> str:
    """Say which shape was expected, with the names of the axes, and which was given."""
    axes = ", ".join(f"{name} {size}" for name, size in zip(variable.dims, expected, strict=True))
    return f"{variable.path} must have the shape {expected} ({axes}), but {seen} was given."
