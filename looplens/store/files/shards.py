"""The bytes of the large arrays: chunks with a checksum each, many of them in one file.

This is the part of Zarr v3 that states, sites and readouts use, written out: little-endian numbers,
a CRC-32C after every chunk, and ``sharding_indexed`` with the index at the end. Zarr reads what is
written here and the other way round. It is written out for three reasons: the Rust codecs lay the
chunks of a shard in the order in which threads finish, so the same run would not have the same
bytes; they leave out chunks of nothing but fill values; and reading a part of a chunk through Zarr
skips its checksum.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np

CHECKSUM_BYTES = 4
NOT_THERE = np.uint64(2**64 - 1)
_PLAIN = [("bytes", "little"), ("crc32c", None)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """How one array lies in files.

    Attributes
    ----------
    path : str
        Of the array in the run.
    shape, chunks : tuple of int
        Sizes of the array and of one chunk, the unit of a checksum.
    shards : tuple of int or None
        Numbers in one file along each axis; None where a chunk is a file.
    dtype : dtype
        Of the numbers.
    fill : number
        What stands where nothing was written.
    """

    path: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None
    dtype: np.dtype
    fill: float

    @property
    def cells(self) -> tuple[int, ...]:
        """Numbers in one file along each axis."""
        return self.shards or self.chunks

    @property
    def chunk_bytes(self) -> int:
        """Size of one chunk, without its checksum."""
        return math.prod(self.chunks) * self.dtype.itemsize

    def file_bytes(self, shape: tuple[int, ...]) -> int:
        """Return the size of a file that holds so many numbers along each axis."""
        chunks = math.prod(-(-n // k) for n, k in zip(shape, self.chunks, strict=True))
        index = 16 * math.prod(self.grid()) + CHECKSUM_BYTES if self.shards is not None else 0
        return chunks * (self.chunk_bytes + CHECKSUM_BYTES) + index

    def file(self, cell: tuple[int, ...]) -> str:
        """Return the file of a cell of the grid of files."""
        return f"{self.path}/c/{'/'.join(map(str, cell))}"

    def grid(self) -> tuple[int, ...]:
        """Return how many chunks one file holds along each axis."""
        return tuple(c // k for c, k in zip(self.cells, self.chunks, strict=True))


def read_format(path: str, document: dict[str, Any]) -> Format | None:
    """Return the format that an array's metadata declares; None if it is not of this kind."""
    codecs, shards = document["codecs"], None
    chunks = tuple(document["chunk_grid"]["configuration"]["chunk_shape"])
    if [codec["name"] for codec in codecs] == ["sharding_indexed"]:
        inner = codecs[0]["configuration"]
        plain = inner.get("index_location", "end") == "end"
        if not plain or _names(inner["index_codecs"]) != _PLAIN:
            return None
        codecs, shards, chunks = inner["codecs"], chunks, tuple(inner["chunk_shape"])
    if _names(codecs) != _PLAIN or document["data_type"] not in ("float32", "float16", "int32"):
        return None
    return Format(
        path=path,
        shape=tuple(document["shape"]),
        chunks=chunks,
        shards=shards,
        dtype=np.dtype(document["data_type"]).newbyteorder("<"),
        fill=float(document["fill_value"]),
    )


def _names(codecs: list[dict[str, Any]]) -> list[tuple[str, str | None]]:
    return [(codec["name"], codec.get("configuration", {}).get("endian")) for codec in codecs]


class Digest:
    """Size and checksum of a file, gathered while it is written or read.

    The checksum is a CRC-32 of what guards the numbers (the CRC-32C of each chunk, and the index),
    not of the numbers again: it tells files apart, and costs nothing. Not a CRC-32C of the file:
    content that is followed by its own CRC-32C always leaves the same remainder, so that of a file
    of such chunks is that of any other such file.
    """

    def __init__(self) -> None:
        self.size = 0
        self._value = 0

    def add(self, guards: np.ndarray, *, beside: int = 0) -> None:
        """Take in what guards numbers, which are ``beside`` bytes themselves."""
        self.size += guards.nbytes + beside
        self._value = zlib.crc32(guards.data, self._value)

    def result(self) -> tuple[int, str]:
        """Return the size in bytes and the checksum, eight hexadecimal digits."""
        return self.size, f"{self._value:08x}"


def encode(fmt: Format, data: np.ndarray, digest: Digest) -> Iterator[list[np.ndarray]]:
    """Yield the content of one file, as contiguous arrays to be written one after the other.

    One chunk at a time, so that a copy, where one is needed, stays in the processor's cache.

    Parameters
    ----------
    fmt : Format
        Of the array.
    data : array
        The numbers of the file; shorter than a whole cell where the array ends.
    digest : Digest
        Takes in the file on the way.
    """
    index = np.full((math.prod(fmt.grid()), 2), NOT_THERE, dtype="<u8")
    for number, chunk in enumerate(np.ndindex(*fmt.grid())):
        piece = data[_slices(chunk, fmt.chunks)]
        if piece.size == 0:
            continue
        if piece.shape != fmt.chunks:
            whole = np.full(fmt.chunks, fmt.fill, dtype=fmt.dtype)
            whole[tuple(map(slice, piece.shape))] = piece
            piece = whole
        piece = np.ascontiguousarray(piece, dtype=fmt.dtype)
        index[number] = digest.size, piece.nbytes + CHECKSUM_BYTES
        check = checksum(piece)
        digest.add(check, beside=piece.nbytes)
        yield [piece, check]
    if fmt.shards is not None:
        check = checksum(index)
        digest.add(index)
        digest.add(check)
        yield [index, check]


def cells_of(
    fmt: Format, region: tuple[slice, ...]
) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """Yield the grid numbers of each file of a region, and its part of the data of the region.

    Raises
    ------
    ValueError
        If the region does not cover whole files.
    """
    ranges = []
    for part, length, size in zip(region, fmt.cells, fmt.shape, strict=True):
        if part.start % length or (part.stop % length and part.stop != size):
            raise ValueError(
                f"{fmt.path} is written in whole files of {fmt.cells}, but {region} was given"
            )
        ranges.append(range(part.start // length, -(-part.stop // length)))
    for cell in itertools.product(*ranges):
        starts = [
            number * length - part.start
            for number, length, part in zip(cell, fmt.cells, region, strict=True)
        ]
        within = tuple(slice(a, a + n) for a, n in zip(starts, fmt.cells, strict=True))
        yield cell, within


def ends_in_checksum(content: bytes) -> bool:
    """Return whether the last four bytes are the CRC-32C of the others."""
    value = google_crc32c.value(content[:-CHECKSUM_BYTES])
    return value.to_bytes(CHECKSUM_BYTES, "little") == content[-CHECKSUM_BYTES:]


def checksum(data: np.ndarray) -> np.ndarray:
    """Return the CRC-32C of a contiguous array, as the four bytes that are stored after it."""
    value = google_crc32c.value(data)
    return np.frombuffer(value.to_bytes(CHECKSUM_BYTES, "little"), dtype=np.uint8)


def _slices(chunk: tuple[int, ...], lengths: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(c * n, (c + 1) * n) for c, n in zip(chunk, lengths, strict=True))
