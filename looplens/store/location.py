"""Where a run lies: the only module of the store that touches paths and files.

Runs are local directories. Everything that would change for an object store (existence, sizes,
removal, atomic replacement) is a method here and nowhere else.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.errors import ZarrUserWarning
from zarr.storage import LocalStore

from looplens.errors import CorruptRunError, InputError, NotARunError, StoreError
from looplens.store.codecs import PYTHON_CODECS, fast_codecs, pipeline
from looplens.store.room import make_room, swap
from looplens.store.schema import VariableSpec

RESTORE = "Restore the run from a copy, or record it again."

_CHECKSUM_BYTES = 4


class RunLocation:
    """A directory that holds a run, or will.

    Parameters
    ----------
    path : str or path
        The directory.

    Raises
    ------
    InputError
        If the path is a URL.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if "://" in os.fspath(path):
            raise InputError(
                f"A run is a local directory, but the path is a URL: {os.fspath(path)!r}. "
                "Copy the run to this machine first."
            )
        self.path = Path(path).expanduser()
        self._replaces: Path | None = None  # the run whose place this one takes once it is whole

    def __str__(self) -> str:
        return str(self.path)

    def __truediv__(self, key: str) -> Path:
        return self.path / key

    def read_metadata(self, key: str = "") -> dict[str, Any] | None:
        """Return the Zarr metadata document of a group or array; None when there is none.

        Raises
        ------
        CorruptRunError
            If the document is there but cannot be read.
        """
        file = self.path / key / "zarr.json"
        try:
            document = json.loads(file.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, OSError) as error:
            raise CorruptRunError(f"{file} cannot be read ({error}). {RESTORE}") from error
        if not isinstance(document, dict):
            raise CorruptRunError(f"{file} does not hold Zarr metadata. {RESTORE}")
        return document

    def root_attributes(self) -> dict[str, Any]:
        """Return the attributes of the run.

        Raises
        ------
        NotARunError
            If the directory does not exist or holds something else.
        CorruptRunError
            If its metadata cannot be read.
        """
        if not self.path.exists():
            raise NotARunError(f"There is no run at {self}: the directory does not exist.")
        if not self.path.is_dir():
            raise NotARunError(f"There is no run at {self}: a run is a directory, this is a file.")
        document = self.read_metadata()
        if document is None:
            raise NotARunError(
                f"There is no run at {self}: the directory has no zarr.json. Give the directory "
                "that the recording was written to."
            )
        attributes = document.get("attributes")
        # Other programs version their schemas too, so one of the two names alone proves nothing.
        if not isinstance(attributes, dict) or not {"schema_version", "looplens_version"} <= set(
            attributes
        ):
            raise NotARunError(
                f"There is no run at {self}: its zarr.json has no schema_version of looplens, so "
                "another program wrote it."
            )
        return attributes

    def children(self, key: str) -> list[str]:
        """Return the names of the groups and arrays in a group, sorted."""
        return sorted(file.parent.name for file in (self.path / key).glob("*/zarr.json"))

    def prepare(self, *, overwrite: bool, needed_bytes: int) -> None:
        """Make room for a new run; see `looplens.store.room.make_room`.

        A run that is to be replaced stays until the new one is whole: that one is written beside
        it, and moved by `take_place`.
        """
        working = make_room(self, overwrite=overwrite, needed_bytes=needed_bytes)
        self._replaces = self.path if working != self.path else None
        self.path = working

    def take_place(self) -> None:
        """Put a finished run in the place of the one that it replaces, if there is one."""
        if self._replaces is not None:
            swap(self.path, self._replaces)
            self.path, self._replaces = self._replaces, None

    def create_group(self, key: str = "", attributes: dict[str, Any] | None = None) -> None:
        """Create a group."""
        zarr.create_group(LocalStore(self.path), path=key, attributes=attributes or {})

    def create_array(self, variable: VariableSpec) -> None:
        """Create an array at full size, without chunks yet."""
        compressors = [ZstdCodec(level=1)] if variable.compressed else []
        with pipeline(PYTHON_CODECS):
            zarr.create_array(
                LocalStore(self.path),
                name=variable.path,
                shape=variable.shape,
                chunks=variable.chunks,
                dtype=variable.dtype,
                compressors=[*compressors, Crc32cCodec()],
                filters=None,
                fill_value=variable.fill_value,
                dimension_names=variable.dims,
                attributes={"long_name": variable.long_name, "units": variable.units},
            )

    def open_array(self, key: str) -> zarr.Array:
        """Open an array for reading."""
        document = self.read_metadata(key)
        text = document is None or document.get("data_type") == "string"
        with pipeline(PYTHON_CODECS if text else fast_codecs()):
            return zarr.open_array(LocalStore(self.path, read_only=True), path=key, mode="r")

    def write(self, variable: VariableSpec, region: tuple[slice, ...], data: np.ndarray) -> None:
        """Write whole chunks of an array.

        Raises
        ------
        StoreError
            If the disk refuses.
        """
        codecs = PYTHON_CODECS if variable.dtype == "string" else fast_codecs()
        try:
            self._writable(variable.path, codecs)[region] = data
            # The Rust codecs leave out a chunk of nothing but fill values, whatever the setting;
            # here a chunk file that does not exist has to mean damage.
            if not all(map(os.path.exists, self._chunk_files(variable, region))):
                self._writable(variable.path, PYTHON_CODECS)[region] = data
        except (OSError, RuntimeError, ValueError) as error:
            raise StoreError(
                f"{variable.path} could not be written ({error}). Check the free space and the "
                "permissions of the directory; the run is left incomplete."
            ) from error

    def _chunk_files(self, variable: VariableSpec, region: tuple[slice, ...]) -> Iterator[Path]:
        numbers = [
            range(part.start // length, -(-part.stop // length))
            for part, length in zip(region, variable.chunks, strict=True)
        ]
        for chunk in itertools.product(*numbers):
            yield self.path / variable.path / "c" / "/".join(map(str, chunk))

    @functools.lru_cache(maxsize=4096)  # noqa: B019  (a location lives as long as its run)
    def _writable(self, key: str, codecs: str) -> zarr.Array:
        with pipeline(codecs):
            return zarr.open_array(LocalStore(self.path), path=key, mode="r+")

    def chunk_problem(
        self, array: zarr.Array, chunk: tuple[int, ...], *, verify: bool = False
    ) -> tuple[str, str] | None:
        """Return (chunk file, what is wrong with it), or None when it looks whole.

        Parameters
        ----------
        array : zarr.Array
            As `open_array` returned it.
        chunk : tuple of int
            Number of the chunk along each axis.
        verify : bool
            Whether to compare the checksum in any case, and not only where reading will not do so.
        """
        key = f"{array.path}/{array.metadata.encode_chunk_key(chunk)}"
        try:
            size = os.stat(self.path / key).st_size
        except (FileNotFoundError, NotADirectoryError):
            return key, "is missing"
        if array.compressors == (Crc32cCodec(),) and array.dtype.kind in "fi":
            expected = array.dtype.itemsize * math.prod(array.chunks) + _CHECKSUM_BYTES
            if size != expected:
                return key, f"has {size} bytes and not {expected}"
        ends_past_array = any(
            (number + 1) * length > total
            for number, length, total in zip(chunk, array.chunks, array.shape, strict=True)
        )
        # A chunk that is read in part is decoded without a look at its checksum.
        if (verify or ends_past_array) and Crc32cCodec() in array.compressors:
            content = (self.path / key).read_bytes()
            checksum = google_crc32c.value(content[:-_CHECKSUM_BYTES])
            if checksum.to_bytes(_CHECKSUM_BYTES, "little") != content[-_CHECKSUM_BYTES:]:
                return key, "does not match its checksum"
        return None

    def update_root_attributes(self, changes: dict[str, Any]) -> None:
        """Change attributes of the run, in one atomic write."""
        document = self.read_metadata() or {}
        document["attributes"] = {**document["attributes"], **changes}
        self._replace_metadata(document)

    def consolidate(self) -> None:
        """Gather the metadata of all groups and arrays in the root, where xarray looks for it."""
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="Consolidated metadata is currently", category=ZarrUserWarning
            )
            zarr.consolidate_metadata(LocalStore(self.path))

    def consolidate_below(self, key: str) -> None:
        """Gather the metadata of one group that was replaced, without walking the whole run."""
        document = self.read_metadata() or {}
        gathered = document.get("consolidated_metadata")
        if gathered is None:
            self.consolidate()
            return
        entries = gathered["metadata"]
        for old in [name for name in entries if name == key or name.startswith(f"{key}/")]:
            del entries[old]
        entries[key] = self.read_metadata(key)
        for child in self.children(key):
            entries[f"{key}/{child}"] = self.read_metadata(f"{key}/{child}")
        self._replace_metadata(document)

    def _replace_metadata(self, document: dict[str, Any]) -> None:
        partial = self.path / f".zarr.json.{os.getpid()}.partial"
        partial.write_text(json.dumps(document, indent=2))
        partial.replace(self.path / "zarr.json")
