"""One block to disk: its numbers cast, checked and written whole, then its commit record.

If the disk refuses, nothing of the block stays and all other blocks do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from looplens.errors import StoreError
from looplens.store.files.location import RunLocation
from looplens.store.format.blocks import CommitRecord, write_record
from looplens.store.format.schema import VariableSpec
from looplens.store.writing.column import count_non_finite, to_stored_dtype

# A variable, which part of it, and the numbers.
Piece = tuple[VariableSpec, tuple[slice, ...], np.ndarray]


def commit_block(
    location: RunLocation, block: int, start: int, stop: int, pieces: Sequence[Piece]
) -> None:
    """Write all files of a block, then the record that says so.

    Parameters
    ----------
    location : RunLocation
        The run.
    block, start, stop : int
        Number and tokens of the block.
    pieces : sequence
        A variable, a region of whole files of it, and the numbers, for all that is in the block.

    Raises
    ------
    StoreError
        If a number overflows float16, or the disk refuses.
    InputError
        If the numbers are of another kind than the variable.
    """
    files: dict[str, tuple[int, str]] = {}
    non_finite: dict[str, int] = {}
    with _removing_on_failure(location, block, pieces):
        for variable, region, data in pieces:
            stored = to_stored_dtype(data, variable)
            if count := count_non_finite(stored, variable):
                non_finite[variable.path] = count
            files |= location.write(variable, region, stored)
        record = CommitRecord(
            block=block, start=start, stop=stop, files=files, non_finite=non_finite
        )
        write_record(location, record)


@contextmanager
def _removing_on_failure(
    location: RunLocation, block: int, pieces: Sequence[Piece]
) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        for variable, region, _ in pieces:
            for file in location.shard_files(variable, region):
                location.remove(file)
        of_disk = isinstance(error, StoreError) and error.__cause__ is not None
        if not of_disk and not isinstance(error, OSError):
            raise
        free = location.free_bytes()
        needed = sum(v.nbytes_of(region) for v, region, _ in pieces)
        why = error.__cause__ or error
        room = "" if free is None else f", and {free / 2**20:.1f} MiB are free"
        raise StoreError(
            f"{location}: block {block} could not be written ({why}). It needs "
            f"{needed / 2**20:.1f} MiB{room}. What was written of it is removed, and blocks that "
            "were committed are kept. Make room, then go on with resume=True (--resume on the "
            "command line)."
        ) from error
