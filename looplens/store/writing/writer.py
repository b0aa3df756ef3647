"""Writes a run: block by block, or simply its tokens in order.

What was committed survives the death of the process and a full disk. It is not forced out of the
cache of the operating system, so it need not survive a loss of power.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

import numpy as np

from looplens.errors import CorruptRunError
from looplens.store.writing.block_writer import BlockWriter
from looplens.store.writing.sequence import BlockSequence


class RunWriter(BlockWriter):
    """One process's hold on a run that is being recorded.

    Used as a context manager: leaving it completes the run if every block is committed. One thread
    may claim blocks while another one writes; for more, give each a writer that joins the run.

    Parameters
    ----------
    path : str or path
        The directory to write, or a URL; parents are created.
    spec : RunSpec
        What is recorded.
    overwrite : bool
        Replace a run that is there, once this one is whole; until then it is written beside it, to
        ``<path>.partial``. Anything but a run is never removed.
    resume : bool
        Go on with a run that is there, or join others that are writing it; create it if there is
        none. With ``overwrite``, go on with ``<path>.partial``.
    check_space : bool
        Whether to refuse a new run for which the disk has no room.
    takeover : bool
        Whether blocks claimed by processes on other machines, which cannot be seen from here, are
        taken over.

    Raises
    ------
    RunExistsError
        If the path is taken.
    InputError
        If the run that is there is of another recording; the message names what differs.
    SchemaVersionError
        If it was written by another version of looplens.
    StoreError
        If the disk has no room for the run.

    Attributes
    ----------
    spec : RunSpec
        What is recorded.
    location : RunLocation
        Where it is written.

    Examples
    --------
    >>> with RunWriter(path, spec) as writer:  # doctest: +SKIP
    ...     for block in range(writer.n_blocks):
    ...         start, stop = writer.block_range(block)
    ...         writer.write_block(block, {"loop/state": states[:, start:stop]})
    """

    _sequence: BlockSequence | None = None

    def write(self, start: int, stop: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the next tokens; blocks are made of them here.

        Parameters
        ----------
        start, stop : int
            Global token numbers, in order and without gaps.
        arrays : mapping of str to array
            As for `write_block`, the token axis being ``stop - start`` long.

        Raises
        ------
        InputError, StoreError
            As for `write_block`; and if tokens are out of order.
        """
        given = {key: np.asarray(array) for key, array in arrays.items()}
        self._in_order().write(start, stop, given)

    def write_attention(self, prompt_index: int, pattern: np.ndarray) -> None:
        """Write the attention patterns of one prompt, before or after its tokens.

        Parameters
        ----------
        prompt_index : int
            One of the spec's ``attention_prompts``.
        pattern : array
            (restart, layer, iteration, head, query, key).

        Raises
        ------
        InputError
            If the prompt was not declared, was written before, or the shape is another.
        """
        self._in_order().write_pattern(prompt_index, np.asarray(pattern))

    def close(self) -> None:
        """Complete the run.

        Raises
        ------
        CorruptRunError
            If blocks are missing. The run stays marked incomplete.
        """
        if self._closed:
            return
        complete = self.finish()
        self._end()
        if complete:
            return
        missing = self._sequence.missing() if self._sequence else []
        missing += [f"{len(self.committed)} of {self.n_blocks} blocks are committed"]
        raise CorruptRunError(
            f"{self.path}: the run was closed before everything was written: "
            f"{'; '.join(missing)}. It is kept and marked incomplete; go on with resume=True."
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None and self._sequence is not None:
                self.close()
            elif kind is None:
                self.finish()
        finally:
            self._end()

    def _end(self) -> None:
        self._claims.release_all()
        self._closed = True

    def _in_order(self) -> BlockSequence:
        self._check_open()
        if self._sequence is None:
            self._sequence = BlockSequence(self.spec.layout, self._patterns_of, self.write_block)
        return self._sequence
