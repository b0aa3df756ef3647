"""Checking every recorded byte of a run against the commit records of its blocks.

Files are read one after the other, so memory stays small; nothing is decoded.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from looplens.errors import CorruptRunError
from looplens.store.files.location import RunLocation
from looplens.store.files.shard_reading import DamagedChunkError
from looplens.store.format.blocks import committed_blocks, read_record
from looplens.store.format.layout import Layout
from looplens.store.reading.arrays import StoredArray
from looplens.store.reading.checks import attributes_digest, check_arrays, read_layout


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """One thing that is not as it was written.

    Attributes
    ----------
    block : int or None
        The block that it belongs to; None for what was written when the run was created.
    file : str
        Path in the run.
    what : str
        What is wrong with it.
    """

    block: int | None
    file: str
    what: str

    def __str__(self) -> str:
        where = "" if self.block is None else f"block {self.block}: "
        return f"{where}{self.file} {self.what}"


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyReport:
    """What `verify` found.

    Attributes
    ----------
    path : str
        The run.
    n_blocks, checked : int
        Blocks of the run, and those that are recorded and were read.
    nbytes : int
        Bytes that were read.
    damaged : tuple of Damage
        What is not as it was written, in the order of blocks.
    uncommitted : tuple of int
        Blocks that are not recorded yet.
    """

    path: str
    n_blocks: int
    checked: int
    nbytes: int
    damaged: tuple[Damage, ...]
    uncommitted: tuple[int, ...]

    @property
    def ok(self) -> bool:
        """Whether everything that is recorded is as it was written; it may not be all."""
        return not self.damaged

    @property
    def damaged_blocks(self) -> tuple[int, ...]:
        """Numbers of the blocks with damage, ascending."""
        return tuple(sorted({d.block for d in self.damaged if d.block is not None}))

    def __str__(self) -> str:
        lines = [
            f"{self.path}: {self.checked} of {self.n_blocks} blocks checked, "
            f"{self.nbytes / 2**20:.1f} MiB"
        ]
        if self.uncommitted:
            lines.append(f"not recorded yet: {_numbers(self.uncommitted)} (go on with resume=True)")
        lines += [f"damaged: {damage}" for damage in self.damaged]
        if self.damaged_blocks:
            lines.append(
                f"Restore the blocks {_numbers(self.damaged_blocks)} from a copy; or remove their "
                "records (blocks/<number>.json) and record them again with resume=True."
            )
        return "\n".join([*lines, "ok" if self.ok else "DAMAGED"])


def verify(
    path: str | os.PathLike[str], *, progress: Callable[[int, int], None] | None = None
) -> VerifyReport:
    """Read a run and compare every file of every recorded block with its checksum.

    Parameters
    ----------
    path : str or path
        The directory or URL of the run; it may be incomplete, and may be recorded meanwhile.
    progress : callable, optional
        Called with the number of blocks that are done, and of those there are.

    Returns
    -------
    VerifyReport
        What was read, and what is damaged. Damage is no error here.

    Raises
    ------
    NotARunError, SchemaVersionError
        If the path holds no run of this schema.
    CorruptRunError
        If the attributes of the run, without which nothing can be found, are damaged.
    """
    location = RunLocation(path)
    attributes = location.root_attributes()
    layout = read_layout(location, attributes)
    damaged = _creation_damage(location, layout)
    if attributes.get("digest") != attributes_digest(attributes):
        what = "has other attributes (model, seeds, settings, sizes) than were written"
        damaged.append(Damage(block=None, file="zarr.json", what=what))
    committed = committed_blocks(location)
    every = range(layout.n_blocks)
    nbytes = 0
    for done, block in enumerate(sorted(committed)):
        found, size = _block_damage(location, block)
        damaged += found
        nbytes += size
        if progress is not None:
            progress(done + 1, len(committed))
    missing = tuple(block for block in every if block not in committed)
    if attributes["complete"]:
        damaged += [
            Damage(block=block, file=f"blocks/{block:06d}.json", what="is missing")
            for block in missing
        ]
    return VerifyReport(
        path=str(location),
        n_blocks=layout.n_blocks,
        checked=len(committed),
        nbytes=nbytes,
        damaged=tuple(damaged),
        uncommitted=missing,
    )


def _block_damage(location: RunLocation, block: int) -> tuple[list[Damage], int]:
    """Return what is damaged of a block, and how many bytes were read."""
    try:
        record = read_record(location, block)
    except CorruptRunError as error:
        return [Damage(block=block, file=f"blocks/{block:06d}.json", what=f"({error})")], 0
    damaged, nbytes = [], 0
    for file, expected in record.files.items():
        what = None
        try:
            size, checksum = location.checksum(file)
            nbytes += size
            if size != expected[0]:
                what = f"has {size} bytes and not {expected[0]}"
            elif checksum != expected[1]:
                what = "does not match its checksum"
        except FileNotFoundError:
            what = "is missing"
        except DamagedChunkError as error:
            what = error.what
        except OSError as error:
            what = f"cannot be read ({error})"
        if what is not None:
            damaged.append(Damage(block=block, file=file, what=what))
    return damaged, nbytes


def _creation_damage(location: RunLocation, layout: Layout) -> list[Damage]:
    """Return what is damaged of the documents, tables, coordinates and the reduction."""
    try:
        check_arrays(location, layout)
    except CorruptRunError as error:
        return [Damage(block=None, file="zarr.json", what=f"({error})")]
    keys = [*layout.coordinates()]
    keys += [
        key
        for key, variable in layout.variables().items()
        if variable.token_axis is None and not key.startswith("attention/")
    ]
    for group in ("prompts", "tokens", "vocabulary"):
        keys += [f"{group}/{name}" for name in location.children(group)]
    damaged = []
    for key in keys:
        try:
            StoredArray(location, key).variable().load()
        except CorruptRunError as error:
            damaged.append(Damage(block=None, file=key, what=f"({error})"))
    return damaged


def _numbers(blocks: tuple[int, ...], most: int = 20) -> str:
    shown = ", ".join(map(str, blocks[:most]))
    return shown + (f" and {len(blocks) - most} more" if len(blocks) > most else "")
