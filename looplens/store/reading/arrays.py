"""Lazy, checked reading of one stored array.

Zarr reads a chunk file that does not exist as fill values, and a part of a chunk without looking
at its checksum. Here every chunk that a selection touches must exist, is read whole and is
verified, so that a damaged run raises and never shows NaN or wrong numbers. It knows nothing of
what the numbers mean.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import xarray as xr
import zarr
from xarray.backends import BackendArray
from xarray.core import indexing

from looplens.errors import CorruptRunError
from looplens.store.files.documents import RESTORE
from looplens.store.files.location import RunLocation
from looplens.store.files.shard_reading import DamagedChunkError, read_chunks
from looplens.store.files.shards import read_format


@dataclass(frozen=True, kw_only=True, slots=True)
class Recorded:
    """Which tokens of a run are recorded.

    Attributes
    ----------
    committed : frozenset of int
        Numbers of the blocks that are on disk.
    block_tokens, n_tokens : int
        Tokens of a block, and of the run.
    """

    committed: frozenset[int]
    block_tokens: int
    n_tokens: int

    @property
    def n_blocks(self) -> int:
        """Blocks of the run."""
        return -(-self.n_tokens // self.block_tokens)

    @property
    def complete(self) -> bool:
        """Whether every block is on disk."""
        return len(self.committed) == self.n_blocks

    def tokens(self) -> np.ndarray:
        """Return whether each token is recorded: (token,), bool."""
        blocks = np.zeros(self.n_blocks, dtype=bool)
        blocks[sorted(self.committed)] = True
        return np.repeat(blocks, self.block_tokens)[: self.n_tokens]

    def require(self, what: str, tokens: np.ndarray) -> None:
        """Raise CorruptRunError unless all of some token numbers are recorded."""
        if self.complete:
            return
        for block in map(int, np.unique(tokens // self.block_tokens)):
            if block not in self.committed:
                start = block * self.block_tokens
                stop = min(start + self.block_tokens, self.n_tokens)
                raise CorruptRunError(
                    f"{what} is not recorded yet: block {block} (tokens {start} to {stop - 1}) is "
                    f"missing, {len(self.committed)} of {self.n_blocks} blocks are there. Read "
                    "other tokens (run.committed_tokens says which), or go on with the recording "
                    "(resume=True, --resume)."
                )


class StoredArray(BackendArray):
    """One array of a run, read on demand, as xarray's lazy indexing wants it.

    Parameters
    ----------
    location : RunLocation
        The run.
    key : str
        Path of the array inside it.
    recorded : Recorded, optional
        Which tokens are recorded, for an array of a run that may not be complete.

    Raises
    ------
    CorruptRunError
        When opened or read, if the array cannot be; when read, if tokens are not recorded yet.
    """

    def __init__(
        self, location: RunLocation, key: str, *, recorded: Recorded | None = None
    ) -> None:
        self.location = location
        self.key = key
        self.recorded = recorded
        try:
            document = location.read_metadata(key)
            if document is None:
                raise ValueError("it has no metadata")
            self._format = read_format(key, document)
            names = document["dimension_names"]
            self.attributes: dict[str, Any] = dict(document.get("attributes", {}))
        except CorruptRunError:
            raise
        except Exception as error:  # a damaged document can lack anything
            raise CorruptRunError(
                f"{location}: the array {key!r} cannot be opened ({error}). {RESTORE}"
            ) from error
        self.dims: tuple[str, ...] = tuple(names)
        source: Any = self._format or self._zarr
        self.shape: tuple[int, ...] = source.shape
        self.chunks: tuple[int, ...] = source.chunks
        self.dtype: np.dtype = source.dtype

    @functools.cached_property
    def _zarr(self) -> zarr.Array:
        try:
            return self.location.open_array(self.key)
        except Exception as error:  # zarr raises many kinds for a broken document
            raise CorruptRunError(
                f"{self.location}: the array {self.key!r} cannot be opened ({error}). {RESTORE}"
            ) from error

    def variable(self) -> xr.Variable:
        """Return the array as a lazy variable with its axes and attributes."""
        return xr.Variable(self.dims, indexing.LazilyIndexedArray(self), self.attributes)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        support = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, support, self._read)

    def _read(self, key: tuple[int | slice | np.ndarray, ...]) -> np.ndarray:
        wanted = [self._positions(part, size) for part, size in zip(key, self.shape, strict=True)]
        if self.recorded is not None and "token" in self.dims:
            tokens = wanted[self.dims.index("token")]
            self.recorded.require(f"{self.location}: {self.key!r}", tokens)
        if any(positions.size == 0 for positions in wanted):
            data = np.empty([positions.size for positions in wanted], dtype=self.dtype)
        else:
            data = self._gather(wanted)
        dropped = [axis for axis, part in enumerate(key) if isinstance(part, (int, np.integer))]
        return data.squeeze(axis=tuple(dropped))

    @staticmethod
    def _positions(part: int | slice | np.ndarray, size: int) -> np.ndarray:
        if isinstance(part, slice):
            return np.arange(*part.indices(size))
        return np.atleast_1d(np.asarray(part))

    def _gather(self, wanted: list[np.ndarray]) -> np.ndarray:
        """Read the given positions of each axis.

        Neighbouring positions are read at once; positions spread over an axis one chunk after the
        other, so that a few tokens from all over a large run never bring all of it into memory.
        """
        pieces = [
            [slice(None)] if _is_range(positions) else _by_chunk(positions, length)
            for positions, length in zip(wanted, self.chunks, strict=True)
        ]
        axis = max(range(len(pieces)), key=lambda number: len(pieces[number]), default=None)
        if axis is None or len(pieces[axis]) == 1:
            return self._region(wanted)
        out = np.empty([positions.size for positions in wanted], dtype=self.dtype)
        for members in pieces[axis]:
            part = [*wanted]
            part[axis] = wanted[axis][members]
            out[(*[slice(None)] * axis, members)] = self._region(part)
        return out

    def _region(self, wanted: list[np.ndarray]) -> np.ndarray:
        chunks, shape = self.chunks, self.shape
        first = [int(p.min()) // chunk for p, chunk in zip(wanted, chunks, strict=True)]
        last = [int(p.max()) // chunk for p, chunk in zip(wanted, chunks, strict=True)]
        start = [number * chunk for number, chunk in zip(first, chunks, strict=True)]
        stop = [
            min((number + 1) * chunk, size)
            for number, chunk, size in zip(last, chunks, shape, strict=True)
        ]
        data = self._read_whole(first, last, start, stop)
        for axis, positions in enumerate(wanted):
            if positions.size != data.shape[axis] or not _is_range(positions):
                data = data.take(positions - start[axis], axis=axis)
        return data

    def _read_whole(
        self, first: list[int], last: list[int], start: list[int], stop: list[int]
    ) -> np.ndarray:
        """Read the chunks from ``first`` to ``last``, which are the numbers ``start:stop``."""
        if self._format is None:
            return self._read_through_zarr(first, last, tuple(map(slice, start, stop)))
        size = [b - a for a, b in zip(start, stop, strict=True)]
        data = np.empty(size, dtype=self.dtype)
        try:
            read_chunks(self.location.files, self._format, first, last, data)
        except DamagedChunkError as error:
            self._raise_damage(error.chunk, error.key, error.what)
        return data

    def _read_through_zarr(
        self, first: list[int], last: list[int], region: tuple[slice, ...]
    ) -> np.ndarray:
        self._check_chunks(first, last)
        try:
            return np.asarray(self._zarr[region])
        except Exception as error:  # every codec has its own kinds of error
            self._check_chunks(first, last, verify=True)  # names the one chunk, if it can be told
            raise CorruptRunError(
                f"{self.location}: {self._where(first, last)} cannot be read: the stored bytes are "
                f"damaged ({error}). {RESTORE}"
            ) from error

    def _check_chunks(self, first: list[int], last: list[int], *, verify: bool = False) -> None:
        ranges = [range(a, b + 1) for a, b in zip(first, last, strict=True)]
        for chunk in itertools.product(*ranges):
            problem = self.location.chunk_problem(self._zarr, chunk, verify=verify)
            if problem is not None:
                self._raise_damage(chunk, *problem)

    def _raise_damage(self, chunk: tuple[int, ...], file: str, what: str) -> NoReturn:
        where = self._where(list(chunk), list(chunk))
        if what == "is missing" and self.recorded is not None and not self.recorded.complete:
            raise CorruptRunError(
                f"{self.location}: {where} is not recorded yet. Go on with the recording "
                "(resume=True, --resume)."
            )
        raise CorruptRunError(
            f"{self.location}: {where} cannot be read: the chunk file {file} {what}. {RESTORE}"
        )

    def _where(self, first: list[int], last: list[int]) -> str:
        """Name a range of chunks, such as ``'loop/state' at restart 0, token 8:16``."""
        parts = []
        for axis, name in enumerate(self.dims):
            chunk, size = self.chunks[axis], self.shape[axis]
            start, stop = first[axis] * chunk, min((last[axis] + 1) * chunk, size)
            if (start, stop) != (0, size) or name == "token":
                parts.append(f"{name} {start}" if stop == start + 1 else f"{name} {start}:{stop}")
        return f"{self.key!r}" + (f" at {', '.join(parts)}" if parts else "")


def _is_range(positions: np.ndarray) -> bool:
    return bool((np.diff(positions) == 1).all())


def _by_chunk(positions: np.ndarray, length: int) -> list[np.ndarray]:
    """Return, for each chunk that is touched, the indices into ``positions`` that lie in it."""
    order = np.argsort(positions // length, kind="stable")
    breaks = np.flatnonzero(np.diff(positions[order] // length)) + 1
    return np.split(order, breaks)
