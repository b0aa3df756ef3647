"""Lazy, checked reading of one stored array.

Zarr reads a chunk file that does not exist as fill values, and a part of a chunk without looking
at its checksum. Here every chunk that a selection touches must exist, is read whole and is
verified, so that a damaged run raises and never shows NaN or wrong numbers. It knows nothing of
what the numbers mean.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from looplens.errors import CorruptRunError
from looplens.store.location import RESTORE, RunLocation


class StoredArray(BackendArray):
    """One array of a run, read on demand, as xarray's lazy indexing wants it.

    Parameters
    ----------
    location : RunLocation
        The run.
    key : str
        Path of the array inside it.
    complete : bool
        Whether the run was closed; decides what a missing chunk is called.

    Raises
    ------
    CorruptRunError
        When opened or read, if the array cannot be.
    """

    def __init__(self, location: RunLocation, key: str, *, complete: bool = True) -> None:
        self.location = location
        self.key = key
        self.complete = complete
        try:
            self._zarr = location.open_array(key)
        except Exception as error:  # zarr raises many kinds for a broken document
            raise CorruptRunError(
                f"{location}: the array {key!r} cannot be opened ({error}). {RESTORE}"
            ) from error
        self.dims: tuple[str, ...] = tuple(self._zarr.metadata.dimension_names)
        self.shape: tuple[int, ...] = self._zarr.shape
        self.chunks: tuple[int, ...] = self._zarr.chunks
        self.dtype: np.dtype = self._zarr.dtype

    def variable(self) -> xr.Variable:
        """Return the array as a lazy variable with its axes and attributes."""
        attributes = dict(self._zarr.attrs)
        return xr.Variable(self.dims, indexing.LazilyIndexedArray(self), attributes)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        support = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, support, self._read)

    def _read(self, key: tuple[int | slice | np.ndarray, ...]) -> np.ndarray:
        wanted = [self._positions(part, size) for part, size in zip(key, self.shape, strict=True)]
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
        axis = max(range(len(pieces)), key=lambda number: len(pieces[number]))
        if len(pieces[axis]) == 1:
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
        self._check_chunks(first, last)
        start = [number * chunk for number, chunk in zip(first, chunks, strict=True)]
        stop = [
            min((number + 1) * chunk, size)
            for number, chunk, size in zip(last, chunks, shape, strict=True)
        ]
        region = tuple(map(slice, start, stop))
        try:
            data = np.asarray(self._zarr[region])
        except Exception as error:  # every codec has its own kinds of error
            self._check_chunks(first, last, verify=True)  # names the one chunk, if it can be told
            raise CorruptRunError(
                f"{self.location}: {self._where(first, last)} cannot be read: the stored bytes are "
                f"damaged ({error}). {RESTORE}"
            ) from error
        for axis, positions in enumerate(wanted):
            if positions.size != data.shape[axis] or not _is_range(positions):
                data = data.take(positions - start[axis], axis=axis)
        return data

    def _check_chunks(self, first: list[int], last: list[int], *, verify: bool = False) -> None:
        ranges = [range(a, b + 1) for a, b in zip(first, last, strict=True)]
        for chunk in itertools.product(*ranges):
            problem = self.location.chunk_problem(self._zarr, chunk, verify=verify)
            if problem is None:
                continue
            file, what = problem
            where = self._where(list(chunk), list(chunk))
            if what == "is missing" and not self.complete:
                raise CorruptRunError(
                    f"{self.location}: {where} was never written: the recording stopped before it "
                    "was complete. Record the run again, or read the tokens before."
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
