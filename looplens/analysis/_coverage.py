"""Which tokens of a run an analysis can look at, and which it cannot, and why.

A run may still be growing, and a block of it may be damaged. Neither stops an analysis; both are
counted and named, so that nothing is missing without a word.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

if TYPE_CHECKING:
    from looplens.store import StoredRun

NOT_RECORDED, UNREADABLE = "not recorded", "unreadable"


def covered_tokens(result: xr.Dataset, run: StoredRun) -> NDArray[np.bool_]:
    """Return which tokens a result is of, by the blocks that its attributes name."""
    if not {"tokens_not_recorded", "tokens_unreadable"} & set(result.attrs):
        return np.ones(run.n_tokens, dtype=bool)
    covered = np.zeros(run.n_tokens, dtype=bool)
    for block in map(int, json.loads(result.attrs["blocks"])):
        covered[block * run.block_tokens : (block + 1) * run.block_tokens] = True
    return covered


class Coverage:
    """The tokens of a run that are known, updated while they are read.

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

    def copy(self) -> Coverage:
        """Return one that goes on from here by itself."""
        new = copy.copy(self)
        new.unreadable, new.problems = self.unreadable.copy(), dict(self.problems)
        return new

    @property
    def known(self) -> NDArray[np.bool_]:
        """Tokens that can be read, as far as it is known."""
        return self.recorded & ~self.unreadable

    def give_up(self, tokens: slice, problem: str) -> None:
        """Count tokens as unreadable."""
        self.unreadable[tokens] = True
        for block in range(tokens.start // self._block, -(-tokens.stop // self._block)):
            self.problems.setdefault(block, problem)

    def pieces(self, tokens: slice, wanted: NDArray[np.bool_] | None = None) -> Iterator[slice]:
        """Yield the runs of known tokens of a slice, of those that are wanted."""
        known = self.known[tokens] if wanted is None else (self.known & wanted)[tokens]
        edges = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]]).astype(np.int8)))
        for start, stop in edges.reshape(-1, 2):
            yield slice(tokens.start + int(start), tokens.start + int(stop))

    def by_block(self, tokens: slice) -> list[slice]:
        """Cut a slice at the edges of blocks."""
        first = tokens.start // self._block * self._block
        edges = range(first, tokens.stop, self._block)
        return [
            slice(max(start, tokens.start), min(start + self._block, tokens.stop))
            for start in edges
        ]

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
