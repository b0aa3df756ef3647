"""Blocks: the unit in which a run is committed, and the records that say which are.

A block is a range of tokens of fixed length. Its record is written last, so a block is on disk
exactly when its record is; a record holds no time and no name of a machine, so that the same
recording has the same bytes however often it was interrupted, and by however many it was written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from looplens.errors import CorruptRunError, InputError

if TYPE_CHECKING:
    from looplens.store.files.location import RunLocation
    from looplens.store.format.layout import Layout

BLOCKS = "blocks"


@dataclass(frozen=True, kw_only=True, slots=True)
class CommitRecord:
    """What is on disk of one block.

    Attributes
    ----------
    block : int
        Its number.
    start, stop : int
        Its tokens.
    files : mapping of str to (int, str)
        Path in the run to the size in bytes and the CRC-32 (8 hexadecimal digits) of each file.
    non_finite : mapping of str to int
        How many NaN or infinite numbers it holds, of the variables that have any.
    """

    block: int
    start: int
    stop: int
    files: Mapping[str, tuple[int, str]]
    non_finite: Mapping[str, int]

    def to_json(self) -> bytes:
        """Return the bytes of the file; the same for the same block."""
        document = {
            "block": self.block,
            "start": self.start,
            "stop": self.stop,
            "files": {path: list(self.files[path]) for path in sorted(self.files)},
            "non_finite": {path: self.non_finite[path] for path in sorted(self.non_finite)},
        }
        return json.dumps(document, indent=1).encode()


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockPrompts:
    """The prompts that have tokens in one block.

    Attributes
    ----------
    start, stop : int
        Tokens of the block.
    own : range
        Prompts that start in the block; its attention patterns are theirs. A prompt without
        recorded tokens belongs to the block in which its first one would lie.
    crossing : int or None
        The own prompt that goes on in the next block.
    entering : int or None
        The prompt that started in an earlier block and goes on in this one.
    """

    start: int
    stop: int
    own: range
    crossing: int | None
    entering: int | None


def block_ranges(layout: Layout) -> list[tuple[int, int]]:
    """Return the tokens (start, stop) of each block of a run."""
    return _ranges(layout.n_tokens, layout.block_tokens)


def prompts_of_block(
    first_token: Sequence[int] | np.ndarray,
    n_tokens: Sequence[int] | np.ndarray,
    block_tokens: int,
    total: int,
) -> list[BlockPrompts]:
    """Return, for each block, the prompts that start in it and those that cross its edges.

    Parameters
    ----------
    first_token, n_tokens : sequence of int
        Of each prompt: the number of its first recorded token, and how many are recorded.
    block_tokens : int
        Tokens of a block.
    total : int
        Recorded tokens of all prompts.
    """
    first = np.asarray(first_token, dtype=np.int64)
    last = first + np.asarray(n_tokens, dtype=np.int64)
    ranges = _ranges(total, block_tokens)
    # Behind the last token there is no block, but there may be a prompt without recorded tokens.
    owner = np.minimum(first // block_tokens, len(ranges) - 1)
    edges = np.searchsorted(owner, np.arange(len(ranges) + 1))
    found = []
    entering = None
    for number, (start, stop) in enumerate(ranges):
        # Of the prompts that start before an edge, only the last can reach over it.
        latest = int(np.searchsorted(first, stop)) - 1
        over = latest if last[latest] > stop else None
        own = range(int(edges[number]), int(edges[number + 1]))
        crossing = over if over in own else None
        found.append(
            BlockPrompts(start=start, stop=stop, own=own, crossing=crossing, entering=entering)
        )
        entering = over
    return found


def split_blocks(n_blocks: int, worker: int, workers: int) -> range:
    """Return the blocks of one worker: contiguous, and as many for each as can be.

    Parameters
    ----------
    n_blocks : int
        Blocks of the run.
    worker, workers : int
        Number of the worker, counted from 0, and how many there are.

    Raises
    ------
    InputError
        If there is no such worker. A worker may have no block.
    """
    if workers < 1 or not 0 <= worker < workers:
        raise InputError(
            f"There is no worker {worker} of {workers}: workers are counted from 0 to "
            f"{max(0, workers - 1)}. Give the number and the count as 0/{max(1, workers)}."
        )
    return range(n_blocks * worker // workers, n_blocks * (worker + 1) // workers)


# Records


def record_key(block: int) -> str:
    """Return where the commit record of a block lies."""
    return f"{BLOCKS}/{block:06d}.json"


def claim_key(block: int) -> str:
    """Return where the claim to a block lies."""
    return f"{BLOCKS}/{block:06d}.claim"


def committed_blocks(location: RunLocation) -> frozenset[int]:
    """Return the numbers of the blocks that are on disk, from one listing."""
    names = (name.removesuffix(".json") for name in location.list(BLOCKS) if _is_record(name))
    return frozenset(map(int, names))


def read_record(location: RunLocation, block: int) -> CommitRecord:
    """Read the commit record of a block.

    Raises
    ------
    CorruptRunError
        If it is not there, or is not what was written.
    """
    key = record_key(block)
    if not location.exists(key):
        raise CorruptRunError(
            f"{location}: block {block} is not recorded yet: {key} does not exist. Go on with the "
            "recording (resume=True)."
        )
    try:
        document = json.loads(location.read_bytes(key))
        record = CommitRecord(
            block=int(document["block"]),
            start=int(document["start"]),
            stop=int(document["stop"]),
            files={
                str(path): (int(size), str(checksum))
                for path, (size, checksum) in document["files"].items()
            },
            non_finite={str(path): int(n) for path, n in document["non_finite"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptRunError(
            f"{location}: the commit record {key} is damaged ({error}). Remove that file and go "
            "on with the recording (resume=True): it writes the block again."
        ) from error
    if record.block != block:
        raise CorruptRunError(
            f"{location}: the commit record {key} is of block {record.block}. Restore it from a "
            "copy, or remove it and go on with the recording (resume=True)."
        )
    return record


def write_record(location: RunLocation, record: CommitRecord) -> None:
    """Commit a block: write its record, atomically. All of its files must be there."""
    location.write_atomic(record_key(record.block), record.to_json())


def remove_leftovers(location: RunLocation) -> None:
    """Remove what writers that were killed left beside the records of a run that is whole."""
    for name in location.list(BLOCKS):
        if not _is_record(name):
            location.remove(f"{BLOCKS}/{name}")
    for prefix in ("", BLOCKS):
        location.remove_partial(prefix)


def _is_record(name: str) -> bool:
    stem = name.removesuffix(".json")
    return stem != name and stem.isdecimal()


def _ranges(total: int, block_tokens: int) -> list[tuple[int, int]]:
    return [(start, min(start + block_tokens, total)) for start in range(0, total, block_tokens)]
