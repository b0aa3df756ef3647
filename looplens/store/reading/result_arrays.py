"""One array of a stored analysis, read chunk by chunk when it is indexed.

Chunks that were read stay in memory, decoded, for as long as their files do not change, so that one
token costs one small read the first time and none after it. As in `looplens.store.reading.arrays`,
every chunk that a selection touches must exist and match its checksum.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from typing import Any, NoReturn

import numcodecs.zstd
import numpy as np
from numcodecs.vlen import VLenUTF8

from looplens.errors import CorruptRunError
from looplens.store.files.location import RunLocation
from looplens.store.files.shard_reading import MISMATCH
from looplens.store.files.shards import CHECKSUM_BYTES, ends_in_checksum
from looplens.store.reading.arrays import StoredArray

_TEXT_BYTES = 64  # about what a short text takes as a Python object, with the pointer to it


class ChunkMemory:
    """Decoded chunks, as many as fit; those that were used longest ago make room.

    Parameters
    ----------
    most_bytes : int
        How much is kept.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._kept: OrderedDict[str, tuple[Any, np.ndarray, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()  # a dashboard reads from several threads

    def get(self, key: str, stamp: Any) -> np.ndarray | None:
        """Return a chunk whose file still has this stamp."""
        with self._lock:
            found = self._kept.get(key)
            if found is None or found[0] != stamp:
                return None
            self._kept.move_to_end(key)
            return found[1]

    def put(self, key: str, stamp: Any, chunk: np.ndarray) -> None:
        """Keep a chunk, read from a file of this stamp."""
        size = chunk.size * _TEXT_BYTES if chunk.dtype == object else chunk.nbytes
        if size > self.most_bytes:
            return
        with self._lock:
            self._bytes += size - (self._kept.pop(key)[2] if key in self._kept else 0)
            self._kept[key] = stamp, chunk, size
            while self._bytes > self.most_bytes:
                self._bytes -= self._kept.popitem(last=False)[1][2]


class ResultArray(StoredArray):
    """One array of a stored analysis, as xarray's lazy indexing wants it.

    Parameters
    ----------
    location : RunLocation
        The run.
    name, variable : str
        Of the analysis, and of the array in it.
    memory : ChunkMemory
        Where chunks are kept.
    version : object
        What stands for the state of all files of the result, where those of single files cannot be
        asked for cheaply.

    Raises
    ------
    CorruptRunError
        When opened or read, if the array cannot be.
    """

    def __init__(
        self, location: RunLocation, name: str, variable: str, memory: ChunkMemory, version: object
    ) -> None:
        self.location, self.name = location, name
        self.key = f"analysis/{name}/{variable}"
        self.recorded = None
        self._memory, self._version = memory, version
        try:
            document = location.read_metadata(self.key) or {}
            self.attributes = dict(document.get("attributes", {}))
            # A number that stands for nothing: which one, xarray says again when it writes.
            self.attributes.pop("_FillValue", None)
            self.dims = tuple(document.get("dimension_names") or ())  # none of a single number
            self.shape = tuple(document["shape"])
            self.chunks = tuple(document["chunk_grid"]["configuration"]["chunk_shape"])
            self._codecs = [codec["name"] for codec in document["codecs"]]
            unknown = set(self._codecs) - {"bytes", "vlen-utf8", "zstd", "crc32c"}
            if unknown:
                raise ValueError(f"it is coded in an unknown way: {', '.join(sorted(unknown))}")
            text = document["data_type"] == "string"
            self.dtype = np.dtype(object) if text else np.dtype(document["data_type"])
        except Exception as error:  # a damaged document can lack anything
            raise damaged(location, name, f"{self.key} cannot be read ({error})") from error

    def _read_whole(
        self, first: list[int], last: list[int], start: list[int], stop: list[int]
    ) -> np.ndarray:
        data = np.empty([b - a for a, b in zip(start, stop, strict=True)], dtype=self.dtype)
        ranges = [range(a, b + 1) for a, b in zip(first, last, strict=True)]
        for number in itertools.product(*ranges):
            places = [n * k - a for n, k, a in zip(number, self.chunks, start, strict=True)]
            cuts: Any = [slice(a, a + k) for a, k in zip(places, self.chunks, strict=True)]
            target = data[(*cuts, ...)]
            # What is kept belongs to nobody, so everyone gets a copy.
            target[...] = self._chunk(number)[tuple(map(slice, target.shape))]
        return data

    def _chunk(self, number: tuple[int, ...]) -> np.ndarray:
        file = "/".join([f"{self.key}/c", *map(str, number)])
        try:
            stamp = self.location.files.stamp(file) or self._version
            found = self._memory.get(file, stamp)
            if found is None:
                found = self._decode(file, self.location.read_bytes(file))
                self._memory.put(file, stamp, found)
            return found
        except (FileNotFoundError, NotADirectoryError):
            self._raise_damage(number, file, "is missing")

    def _decode(self, file: str, content: bytes) -> np.ndarray:
        try:
            data: Any = content
            for codec in reversed(self._codecs):
                if codec == "crc32c":
                    if not ends_in_checksum(data):
                        raise ValueError(MISMATCH)
                    data = memoryview(data)[:-CHECKSUM_BYTES]
                elif codec == "zstd":
                    data = numcodecs.zstd.decompress(data)
                elif codec == "vlen-utf8":
                    data = VLenUTF8().decode(data)
                else:
                    data = np.frombuffer(data, dtype=self.dtype.newbyteorder("<"))
            return data.reshape(self.chunks)
        except Exception as error:  # every codec has its own kinds of error
            what = MISMATCH if MISMATCH in str(error) else f"cannot be read ({error})"
            raise damaged(self.location, self.name, f"{file} {what}") from error

    def _raise_damage(self, chunk: tuple[int, ...], file: str, what: str) -> NoReturn:
        raise damaged(self.location, self.name, f"{file} {what}")


def damaged(location: RunLocation, name: str, what: str) -> CorruptRunError:
    """Return the error for a stored analysis of which something is damaged."""
    return CorruptRunError(
        f"{location}: the stored analysis {name!r} is damaged: {what}. "
        "Run the analysis again to replace it."
    )
