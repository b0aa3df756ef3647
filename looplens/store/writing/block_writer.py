"""Writes a run block by block, by any number of processes.

A block is claimed, written whole and then committed, so a run that is killed keeps every block that
was committed, and another process, or the same one later, goes on with the rest. The writer takes
numpy arrays and knows nothing of models.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from looplens.errors import CorruptRunError, InputError, NotARunError, StoreError
from looplens.store.files.location import RunLocation
from looplens.store.format import blocks
from looplens.store.format.spec import RunSpec
from looplens.store.writing.claims import Claims
from looplens.store.writing.column import shape_message, tokens_of, whole
from looplens.store.writing.committing import commit_block
from looplens.store.writing.creating import check_same, create_run, is_finished
from looplens.store.writing.sequence import check_keys, check_shapes

_NO_PATTERNS: Mapping[int, np.ndarray] = MappingProxyType({})


class BlockWriter:
    """One process's hold on a run, which writes it block by block; see `RunWriter`."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        spec: RunSpec,
        *,
        overwrite: bool = False,
        resume: bool = False,
        check_space: bool = True,
        takeover: bool = False,
    ) -> None:
        self.spec = spec
        self.location = RunLocation(path)
        self.path = self.location.path  # where the finished run lies
        layout = spec.layout
        variables = layout.variables()
        self._variables = {k: v for k, v in variables.items() if v.token_axis is not None}
        self._patterns = {i: variables[f"attention/{i}/pattern"] for i in spec.attention_prompts}
        self._ranges = blocks.block_ranges(layout)
        self._patterns_of = _patterns_of(spec, layout.block_tokens)
        self._open(overwrite=overwrite, resume=resume, check_space=check_space)
        self._claims = Claims(self.location, takeover=takeover)
        self._closed = False
        self.refresh()

    def _open(self, *, overwrite: bool, resume: bool, check_space: bool) -> None:
        if resume and overwrite and not RunLocation(f"{self.path}.partial").exists("zarr.json"):
            # Another worker, or an earlier attempt, was done and put the run in its place.
            overwrite = not is_finished(self.location, self.spec)
        needed = sum(self.spec.nbytes().values()) if check_space else 0
        joined = self.location.prepare(overwrite=overwrite, resume=resume, needed_bytes=needed)
        if not joined:
            try:
                joined = not create_run(self.location, self.spec)
            except OSError as error:
                raise StoreError(
                    f"The run at {self.path} could not be created ({error}). Check the free space "
                    "and the permissions of the directory."
                ) from error
            if joined and not resume:
                raise StoreError(
                    f"Another process created a run at {self.path} just now. Pass resume=True "
                    "(--resume on the command line) to join it, or choose another path."
                )
        if not joined:
            return
        try:
            check_same(self.location, self.spec)
        except (NotARunError, CorruptRunError):
            if not self._joins_what_was_moved():
                raise

    def _joins_what_was_moved(self) -> bool:
        """Whether the run to be joined was finished and put in its final place just now."""
        for _ in range(20):
            if self.location.exists("zarr.json"):
                return False
            if is_finished(RunLocation(self.path), self.spec):
                self.location = RunLocation(self.path)
                return True
            time.sleep(0.05)  # between two renames neither place has a run
        return False

    # Blocks

    @property
    def n_blocks(self) -> int:
        """How many blocks the run has."""
        return len(self._ranges)

    @property
    def committed(self) -> frozenset[int]:
        """Numbers of the blocks that are on disk, as of the last `refresh` and of this writer."""
        return frozenset(self._committed)

    def refresh(self) -> frozenset[int]:
        """Look which blocks are on disk, those of other processes too, and return them."""
        self._committed = set(blocks.committed_blocks(self.location))
        return self.committed

    def block_range(self, block: int) -> tuple[int, int]:
        """Return the tokens (start, stop) of a block."""
        self._check_block(block)
        return self._ranges[block]

    def patterns_of(self, block: int) -> frozenset[int]:
        """Return the prompts whose attention patterns are committed with a block."""
        self._check_block(block)
        return self._patterns_of[block]

    def claim(self, block: int) -> None:
        """Claim a block, so that no other process writes it.

        Raises
        ------
        StoreError
            If it is committed already, or claimed by a process that lives or may live.
        """
        self._check_open()
        self._check_block(block)
        try:
            self._claims.claim(block)
            committed = self.location.exists(blocks.record_key(block))
        except OSError as error:
            committed = self._follow()
            if not committed:
                raise StoreError(
                    f"{self.location}: block {block} could not be claimed ({error}). "
                    "Blocks that were committed are kept. Check the free space and the "
                    "permissions of the directory, then go on with resume=True (--resume on the "
                    "command line)."
                ) from error
        # A run that is moved has all its blocks. What was not moved by now will not be while
        # this block is claimed, because it lacks it.
        if committed or self._follow():
            self._claims.release(block)
            self._committed.add(block)
            raise StoreError(
                f"{self.location}: block {block} is already committed; there is nothing to write."
            )

    def release(self, block: int) -> None:
        """Give up the claim to a block, if this writer holds it."""
        self._claims.release(block)

    def write_block(
        self,
        block: int,
        arrays: Mapping[str, np.ndarray],
        patterns: Mapping[int, np.ndarray] = _NO_PATTERNS,
    ) -> None:
        """Write a block and commit it. The block is claimed, if it is not yet.

        Parameters
        ----------
        block : int
            Its number.
        arrays : mapping of str to array
            Path such as ``"loop/state"`` to an array with all axes of that variable, the token
            axis being that of the block: all variables of the layout that have one. Views in any
            order of memory: a site that lies layer by layer (restart, layer, token, ...) and is
            given with its axes swapped is written without a copy.
        patterns : mapping of int to array
            Prompt to its attention patterns (restart, layer, iteration, head, query, key): all
            declared prompts that start in this block.

        Raises
        ------
        InputError
            If an array is missing or unknown, or has another shape.
        StoreError
            If the block is committed or claimed, a number overflows float16, or the disk refuses;
            then what was written of this block is removed, and other blocks stay.
        """
        start, stop = self.block_range(block)
        given = {key: np.asarray(array) for key, array in arrays.items()}
        check_keys(given, self._variables)
        check_shapes(given, self._variables, stop - start)
        self._check_patterns(block, patterns)
        self.claim(block)
        pieces = [
            (variable, tokens_of(variable, start, stop), given[key])
            for key, variable in self._variables.items()
        ]
        for prompt in sorted(patterns):
            variable = self._patterns[prompt]
            pieces.append((variable, whole(variable), np.asarray(patterns[prompt])))
        try:
            commit_block(self.location, block, start, stop, pieces)
            self._committed.add(block)
        finally:
            self._claims.release(block)

    def finish(self) -> bool:
        """Complete the run if every block is committed, by whichever process.

        Can be called by any process, and again.

        Returns
        -------
        bool
            Whether the run is complete.
        """
        try:
            if len(self.refresh()) < self.n_blocks:
                return self._follow()
            if not self.location.root_attributes()["complete"]:
                self.location.update_root_attributes(
                    {"complete": True, "non_finite": self._non_finite()}
                )
            self._claims.release_all()
            blocks.remove_leftovers(self.location)
            self.location.take_place()
        except (OSError, StoreError):
            if not self._follow():
                raise
        return True

    def _follow(self) -> bool:
        """Go to the final place of the run, if another process finished it and moved it there."""
        if self.location.exists("zarr.json") or not is_finished(RunLocation(self.path), self.spec):
            return False
        self.location = self._claims.location = RunLocation(self.path)
        return True

    def _non_finite(self) -> dict[str, int]:
        totals: dict[str, int] = {}
        for block in range(self.n_blocks):
            for path, count in blocks.read_record(self.location, block).non_finite.items():
                totals[path] = totals.get(path, 0) + count
        return {path: totals[path] for path in sorted(totals)}

    def _check_patterns(self, block: int, patterns: Mapping[int, np.ndarray]) -> None:
        own = self._patterns_of[block]
        if set(patterns) != own:
            raise InputError(
                f"Block {block} has the attention patterns of the prompts {sorted(own) or 'none'}, "
                f"but those of {sorted(patterns) or 'none'} were given."
            )
        for prompt, pattern in patterns.items():
            variable = self._patterns[prompt]
            if np.shape(pattern) != variable.shape:
                raise InputError(shape_message(variable, variable.shape, np.shape(pattern)))

    def _check_block(self, block: int) -> None:
        if not 0 <= block < self.n_blocks:
            raise InputError(
                f"There is no block {block}: this run has {self.n_blocks}, counted 0 to "
                f"{self.n_blocks - 1}."
            )

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"{self.path}: this run is closed; nothing more can be written to it.")


def _patterns_of(spec: RunSpec, block_tokens: int) -> list[frozenset[int]]:
    """Return, for each block, the prompts whose attention patterns are committed with it."""
    counts = np.array(spec.recorded_lengths)
    of_blocks = blocks.prompts_of_block(
        np.cumsum(counts) - counts, counts, block_tokens, spec.n_tokens
    )
    declared = set(spec.attention_prompts)
    return [frozenset(declared.intersection(prompts.own)) for prompts in of_blocks]
