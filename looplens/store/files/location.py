"""Where a run lies: the only way from the store to files.

Files and documents are in `looplens.store.files.documents`; the birth of a run under a name of its
own, and the bytes of its arrays, are here.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from looplens.errors import LoopLensError, StoreError
from looplens.store.files.codecs import PYTHON_CODECS, fast_codecs, pipeline
from looplens.store.files.documents import Names, RunDocuments, unreachable
from looplens.store.files.room import finish_move, make_room, publish
from looplens.store.files.shard_reading import MISMATCH, digest_of
from looplens.store.files.shards import (
    Digest,
    Format,
    cells_of,
    encode,
    ends_in_checksum,
    read_format,
)
from looplens.store.format.schema import VariableSpec


class RunLocation(RunDocuments):
    """A place that holds a run, or will.

    Parameters
    ----------
    path : str or path
        A directory, or a URL such as ``s3://bucket/run`` or ``memory://run``. Options of the
        backend come from fsspec's configuration and from the environment.

    Raises
    ------
    InputError
        If the scheme of a URL is unknown, or its package is not installed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        # While a run is built: where it will appear, and what it replaces there.
        self._target: Any = None
        self._replaces: Any = None
        self._formats: dict[str, Format | None] = {}

    # A new run

    def prepare(
        self, *, overwrite: bool = False, resume: bool = False, needed_bytes: int = 0
    ) -> bool:
        """Find out what is to be done for a new run, and make room for it.

        A run that is built lies under a name of its own until `publish`; one that replaces
        another lies beside it, with ``.partial`` at the end of its name, until `take_place`.

        Parameters
        ----------
        overwrite : bool
            Replace a run that is there, once the new one is whole.
        resume : bool
            Go on with a run that is there; with ``overwrite``, with one beside it that was to
            replace it.
        needed_bytes : int
            Refuse to build a run that has no room; 0 does not ask.

        Returns
        -------
        bool
            True if there is a run to go on with, at which this location now points; False if one
            is to be built: groups, arrays and tables are created, then `consolidate`, `publish`.

        Raises
        ------
        RunExistsError
            If the path is taken, and either nothing of the kind was asked for or what is there is
            not a run.
        StoreError
            If there is not enough room, or the directory cannot be made.
        """
        try:
            room = make_room(self, overwrite=overwrite, resume=resume, needed_bytes=needed_bytes)
        except LoopLensError:
            raise
        except Exception as error:  # every backend has its own kinds of error
            if self.is_local:
                raise
            raise unreachable(self.files, error) from error
        self._replaces, self._target = room.replaces, room.target
        self._move_to(room.files)
        return room.joins

    def publish(self) -> bool:
        """Let a run that was built appear under its name, at once.

        Returns
        -------
        bool
            False if another process was faster: then this location points at the run of that one.
        """
        root = self._built[""]
        self._built, built = {}, self._built
        first = publish(self.files, self._target, json.dumps(root, indent=2).encode(), set(built))
        self._move_to(self._target)
        return first

    def take_place(self) -> None:
        """Put a finished run in the place of the one that it replaces, if there is one."""
        if self._replaces is not None:
            finish_move(self.files, self._replaces)
            self._move_to(self._replaces)
            self._replaces = None

    def _move_to(self, files: Any) -> None:
        self.files, self._root = files, None

    # Arrays

    def create_array(self, variable: VariableSpec) -> None:
        """Create an array at full size, without chunks yet."""
        compressors = [ZstdCodec(level=1)] if variable.compressed else []
        store: dict[str, Any] = {}
        with pipeline(PYTHON_CODECS):
            zarr.create_array(
                store,
                shape=variable.shape,
                chunks=variable.chunks,
                shards=variable.shards,
                dtype=variable.dtype,
                compressors=[*compressors, Crc32cCodec()],
                filters=None,
                fill_value=variable.fill_value,
                dimension_names=variable.dims,
                attributes={"long_name": variable.long_name, "units": variable.units},
            )
        self._write_document(variable.path, json.loads(store["zarr.json"].to_bytes()))

    def open_array(self, key: str) -> zarr.Array:
        """Open an array through Zarr, for reading."""
        document = self.read_metadata(key)
        text = document is None or document.get("data_type") == "string"
        codecs = PYTHON_CODECS if text or not self.is_local else fast_codecs()
        with pipeline(codecs):
            return zarr.open_array(self.files.zarr_store(read_only=True), path=key, mode="r")

    def chunk_problem(
        self, array: zarr.Array, chunk: tuple[int, ...], *, verify: bool = False
    ) -> tuple[str, str] | None:
        """Return (chunk file, what is wrong with it) of an array that is read through Zarr.

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
        ends_past_array = any(
            (number + 1) * length > total
            for number, length, total in zip(chunk, array.chunks, array.shape, strict=True)
        )
        try:
            # A chunk that is read in part is decoded without a look at its checksum.
            if (verify or ends_past_array) and Crc32cCodec() in array.compressors:
                return None if ends_in_checksum(self.read_bytes(key)) else (key, MISMATCH)
            self.size(key)
        except (FileNotFoundError, NotADirectoryError):
            return key, "is missing"
        return None

    def write(
        self, variable: VariableSpec, region: tuple[slice, ...], data: np.ndarray
    ) -> dict[str, tuple[int, str]]:
        """Write whole files (shards, or chunks where there are none) of an array.

        Parameters
        ----------
        variable : VariableSpec
            The array, which was created.
        region : tuple of slice
            With start and stop along each axis: whole files, or up to the end of the array.
        data : array
            The numbers of the region, in the dtype of the variable.

        Returns
        -------
        dict
            File name, relative to the run, to its size and checksum; computed on the way.

        Raises
        ------
        StoreError
            If the disk refuses.
        """
        written = {}
        try:
            fmt = self._format(variable.path)
            if fmt is None:
                self._write_through_zarr(variable, region, data)
                return {key: self.checksum(key) for key in self.shard_files(variable, region)}
            for cell, within in cells_of(fmt, region):
                digest = Digest()
                part = data[within]
                nbytes = fmt.file_bytes(part.shape)
                self.files.write(fmt.file(cell), encode(fmt, part, digest), nbytes)
                written[fmt.file(cell)] = digest.result()
        except (OSError, RuntimeError, ValueError) as error:
            raise StoreError(
                f"{variable.path} could not be written ({error}). Check the free space and the "
                "permissions of the directory; the run is left incomplete."
            ) from error
        return written

    def checksum(self, key: str) -> tuple[int, str]:
        """Return size and checksum of a file of an array, as `write` returned them.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        DamagedChunkError
            If a part of it does not match the checksum that is stored beside it.
        """
        return digest_of(self.files, key, self._format(key.split("/c/")[0]))

    def shard_files(self, variable: VariableSpec, region: tuple[slice, ...]) -> Names:
        """Return the files that hold a region of whole files, relative to the run."""
        fmt = Format(
            path=variable.path,
            shape=variable.shape,
            chunks=variable.chunks,
            shards=variable.shards,
            dtype=np.dtype("V1"),
            fill=0,
        )
        return [fmt.file(cell) for cell, _ in cells_of(fmt, region)]

    def _format(self, path: str) -> Format | None:
        """Return how the files of an array are laid out; None if they go through Zarr."""
        if path not in self._formats:
            document = self._built.get(path) or self.read_metadata(path)
            self._formats[path] = read_format(path, document) if document else None
        return self._formats[path]

    def _write_through_zarr(
        self, variable: VariableSpec, region: tuple[slice, ...], data: np.ndarray
    ) -> None:
        local_numbers = self.is_local and variable.dtype != "string"
        choices = (fast_codecs(),) if local_numbers else ()
        # The Rust codecs leave out a chunk of nothing but fill values, whatever the setting; here
        # a chunk file that does not exist has to mean damage.
        for codecs in (*choices, PYTHON_CODECS):
            with pipeline(codecs):
                store = self.files.zarr_store()
                array = zarr.open_array(store, path=variable.path, mode="r+")
                array[region] = data
            if all(map(self.exists, self.shard_files(variable, region))):
                return
