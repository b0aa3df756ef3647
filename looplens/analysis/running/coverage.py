"""Which tokens of a run an analysis can look at, and which it cannot, and why.

A run may still be growing, and a block of it may be damaged. Neither stops an analysis; both are
counted and named, so that nothing is missing without a word.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from looplens.errors import CorruptRunError

if TYPE_CHECKING:
    from looplens.store import StoredRun

T = TypeVar("T")
NOT_RECORDED, UNREADABLE = "not recorded", "unreadable"


def pieces_of(wanted: NDArray[np.bool_], tokens: slice) -> Iterator[slice]:
    """Yield the runs of wanted tokens of a slice."""
    inside = np.concatenate([[False], wanted[tokens], [False]])
    edges = np.flatnonzero(np.diff(inside.astype(np.int8)))
    for start, stop in edges.reshape(-1, 2):
        yield slice(tokens.start + int(start), tokens.start + int(stop))


def by_block(tokens: slice, size: int) -> list[slice]:
    """Cut a slice at the edges of blocks of some size."""
    edges = range(tokens.start // size * size, tokens.stop, size)
    return [slice(max(start, tokens.start), min(start + size, tokens.stop)) for start in edges]


def covered_tokens(result: xr.Dataset, run: StoredRun) -> NDArray[np.bool_]:
    """Return which tokens a result is of, by the blocks that its attributes name."""
    if not {"tokens_not_recorded", "tokens_unreadable"} & set(result.attrs):
        return np.ones(run.n_tokens, dtype=bool)
    covered = np.zeros(run.n_tokens, dtype=bool)
    for block in map(int, json.loads(result.attrs["blocks"])):
        covered[block * run.block_tokens : (block + 1) * run.block_tokens] = True
    return covered


def unreadable_blocks(result: xr.Dataset) -> dict[int, str]:
    """Return what is wrong with the blocks that a result lacks because they could not be read."""
    problems = json.loads(result.attrs.get("unreadable_blocks", "{}"))
    return {int(block): problem for block, problem in problems.items()}


class Coverage:
    """The tokens of a run that are known to an analysis, updated while they are read.

    Each analysis has its own: a damaged file takes no tokens from those that never read it.

    Parameters
    ----------
    run : StoredRun
        The run.

    Attributes
    ----------
    recorded, unreadable : ndarray of bool, shape (token,)
        Tokens that are on disk, and those of them that could not be read.
    problems : dict of int to str
        What is wrong, by number of the block.
    """

    def __init__(self, run: StoredRun) -> None:
        self.recorded: NDArray[np.bool_] = run.committed_tokens.copy()
        self.unreadable: NDArray[np.bool_] = np.zeros(run.n_tokens, dtype=bool)
        self.problems: dict[int, str] = {}
        self._block = run.block_tokens

    @property
    def known(self) -> NDArray[np.bool_]:
        """Tokens that can be read, as far as it is known."""
        return self.recorded & ~self.unreadable

    def give_up(self, tokens: slice, problem: str) -> None:
        """Count tokens as unreadable."""
        self.unreadable[tokens] = True
        for block in range(tokens.start // self._block, -(-tokens.stop // self._block)):
            self.problems.setdefault(block, problem)

    def pieces(self, tokens: slice) -> Iterator[slice]:
        """Yield the runs of known tokens of a slice."""
        return pieces_of(self.known, tokens)

    def readable(
        self, pieces: Iterable[slice], read: Callable[[slice], T]
    ) -> Iterator[tuple[slice, T]]:
        """Yield pieces with what was read of them; by block, where they cannot be read at once.

        Blocks that cannot be read are counted as unreadable.
        """
        pending = list(pieces)
        while pending:
            tokens = pending.pop(0)
            try:
                found = read(tokens)
            except CorruptRunError as error:
                parts = self.by_block(tokens)
                if len(parts) > 1:
                    pending = parts + pending
                else:
                    self.give_up(tokens, str(error))
            else:
                yield tokens, found

    def by_block(self, tokens: slice) -> list[slice]:
        """Cut a slice at the edges of blocks."""
        return by_block(tokens, self._block)

    def attributes(self) -> dict[str, int]:
        """Return counts for a stored result; none where every token is known."""
        counts = {
            "tokens_not_recorded": int((~self.recorded).sum()),
            "tokens_unreadable": int(self.unreadable.sum()),
        }
        return {name: count for name, count in counts.items() if count}

    def words(self, length: int) -> NDArray[np.object_]:
        """Say of every token why it is not known; empty where it is."""
        words = np.full(length, "", dtype=object)
        words[~self.recorded] = NOT_RECORDED
        words[self.unreadable] = UNREADABLE
        return words
