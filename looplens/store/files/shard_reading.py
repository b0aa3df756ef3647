"""Reading what `looplens.store.files.shards` lays out: whole chunks, each with its checksum."""

from __future__ import annotations

import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from looplens.store.files.shards import CHECKSUM_BYTES, NOT_THERE, Digest, Format, checksum

MISMATCH = "does not match its checksum"
ELSEWHERE = "has an index that points to other places"

_AT_ONCE = 8


class DamagedChunkError(Exception):
    """A chunk that cannot be read; carries its number along each axis, its file and what is wrong.

    Never leaves the store: `looplens.store.reading.arrays` turns it into a message about tokens.
    """

    def __init__(self, chunk: tuple[int, ...], key: str, what: str) -> None:
        super().__init__(f"{key} {what}")
        self.chunk, self.key, self.what = chunk, key, what


def read_chunks(
    files: Any, fmt: Format, first: list[int], last: list[int], out: np.ndarray
) -> None:
    """Read whole chunks, from ``first`` to ``last`` along each axis, each with its checksum.

    Parameters
    ----------
    files : LocalFiles or RemoteFiles
        Where the run lies.
    fmt : Format
        Of the array.
    first, last : list of int
        Numbers of the chunks along each axis, both included.
    out : array
        What is filled: the numbers of these chunks, as far as the array reaches.

    Raises
    ------
    DamagedChunkError
        At the first chunk that is missing, too short or does not match its checksum.
    """
    grid = fmt.grid()
    cells = [range(a // n, b // n + 1) for a, b, n in zip(first, last, grid, strict=True)]

    def read(cell: tuple[int, ...]) -> None:
        wanted = [
            range(max(a, number * n), min(b + 1, (number + 1) * n))
            for a, b, number, n in zip(first, last, cell, grid, strict=True)
        ]
        _read_file(files, fmt, cell, list(itertools.product(*wanted)), first, out)

    every = list(itertools.product(*cells))
    if files.is_local or len(every) == 1:
        for cell in every:
            read(cell)
        return
    # An object store answers late, but many at once.
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(read, every):
            pass


def _read_file(
    files: Any,
    fmt: Format,
    cell: tuple[int, ...],
    chunks: list[tuple[int, ...]],
    first: list[int],
    out: np.ndarray,
) -> None:
    key = fmt.file(cell)
    try:
        with files.reading(key) as reader:
            places = _places(fmt, key, cell, chunks, reader)
            there = [place for place in places if place is not None]
            if there:
                span = fmt.chunk_bytes + CHECKSUM_BYTES
                reader.expect(min(there), max(there) + span)
            for chunk, place in zip(chunks, places, strict=True):
                starts = [c * k - f * k for c, k, f in zip(chunk, fmt.chunks, first, strict=True)]
                lengths = zip(starts, fmt.chunks, strict=True)
                target = out[tuple(slice(start, start + n) for start, n in lengths)]
                if place is None:
                    target[...] = fmt.fill
                else:
                    _read_chunk(reader, fmt, key, chunk, place, target)
    except FileNotFoundError as error:
        raise DamagedChunkError(chunks[0], key, "is missing") from error


def _places(
    fmt: Format,
    key: str,
    cell: tuple[int, ...],
    chunks: list[tuple[int, ...]],
    reader: Any,
) -> list[int | None]:
    """Return where in a file each chunk begins; None for one of nothing but fill values."""
    span = fmt.chunk_bytes + CHECKSUM_BYTES
    grid = fmt.grid()
    index, stop = _read_index(fmt, key, chunks[0], reader)
    places: list[int | None] = []
    for chunk in chunks:
        within = tuple(c - n * g for c, n, g in zip(chunk, cell, grid, strict=True))
        offset, length = map(int, index[np.ravel_multi_index(within, grid)])
        if offset == length == NOT_THERE:
            places.append(None)
        elif length != span or offset + length > stop:
            raise DamagedChunkError(chunk, key, ELSEWHERE)
        else:
            places.append(offset)
    return places


def _read_index(
    fmt: Format, key: str, chunk: tuple[int, ...], reader: Any
) -> tuple[np.ndarray, int]:
    """Return (offset, length) of each chunk of a file, and where the chunks end."""
    span = fmt.chunk_bytes + CHECKSUM_BYTES
    if fmt.shards is None:
        if reader.size != span:
            raise DamagedChunkError(chunk, key, f"has {reader.size} bytes and not {span}")
        return np.array([[0, span]], dtype="<u8"), span
    index = np.empty((math.prod(fmt.grid()), 2), dtype="<u8")
    check = np.empty(CHECKSUM_BYTES, dtype=np.uint8)
    least = index.nbytes + CHECKSUM_BYTES
    start = reader.size - least
    if start < 0 or not reader.read_into(start, [index, check]):
        what = f"has {reader.size} bytes, less than the {least} of its index"
        raise DamagedChunkError(chunk, key, what)
    if (check != checksum(index)).any():
        raise DamagedChunkError(chunk, key, "has an index that does not match its checksum")
    return index, start


def _read_chunk(
    reader: Any,
    fmt: Format,
    key: str,
    chunk: tuple[int, ...],
    place: int,
    target: np.ndarray,
) -> None:
    direct = target.shape == fmt.chunks and target.flags.c_contiguous and target.dtype == fmt.dtype
    whole = target if direct else np.empty(fmt.chunks, dtype=fmt.dtype)
    check = np.empty(CHECKSUM_BYTES, dtype=np.uint8)
    if not reader.read_into(place, [whole, check]):
        raise DamagedChunkError(chunk, key, f"ends early, at {reader.size} bytes")
    if (check != checksum(whole)).any():
        raise DamagedChunkError(chunk, key, MISMATCH)
    if not direct:
        target[...] = whole[tuple(map(slice, target.shape))]


def digest_of(files: Any, key: str, fmt: Format | None) -> tuple[int, str]:
    """Return size and checksum of a file, as `encode` found them; see `Digest`.

    Parameters
    ----------
    files : LocalFiles or RemoteFiles
        Where the run lies.
    key : str
        The file.
    fmt : Format, optional
        Of the array that it is of; without one, the checksum is of all of its bytes.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    DamagedChunkError
        If a chunk or the index does not match its own checksum.
    """
    digest = Digest()
    if fmt is None:
        digest.add(np.frombuffer(files.read_bytes(key), dtype=np.uint8))
        return digest.result()
    whole = np.empty(fmt.chunks, dtype=fmt.dtype)
    check = np.empty(CHECKSUM_BYTES, dtype=np.uint8)
    origin = (0,) * len(fmt.chunks)
    with files.reading(key) as reader:
        reader.expect(0, reader.size)
        index, stop = _read_index(fmt, key, origin, reader)
        for offset in sorted(int(place[0]) for place in index if place[0] != NOT_THERE):
            if offset != digest.size or offset + whole.nbytes + CHECKSUM_BYTES > stop:
                raise DamagedChunkError(origin, key, ELSEWHERE)
            if not reader.read_into(offset, [whole, check]) or (check != checksum(whole)).any():
                raise DamagedChunkError(origin, key, MISMATCH)
            digest.add(check, beside=whole.nbytes)
        if fmt.shards is not None:
            digest.add(index)
            digest.add(checksum(index))
    return digest.result()
