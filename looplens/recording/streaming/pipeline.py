"""The recording of blocks: forwards on this thread, writing on another, a few blocks in between.

While a block is written the next one is computed, into buffers that are used in turn. What goes
wrong while writing is raised here. This module knows neither how a block is computed nor how it
lies on disk.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Collection, Mapping
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from looplens.recording.streaming.staging import Staging


class BlockSink(Protocol):
    """What takes filled blocks: a :class:`looplens.store.RunWriter`."""

    def write_block(
        self,
        block: int,
        arrays: Mapping[str, np.ndarray],
        patterns: Mapping[int, np.ndarray] = ...,
    ) -> None:
        """Write and commit a block."""


class BlockPipeline:
    """Writes filled blocks on a thread of its own; a context manager.

    Parameters
    ----------
    sink : BlockSink
        Takes the blocks, in the order of `submit`.
    staging : Staging
        The buffers that they are filled in.
    """

    def __init__(self, sink: BlockSink, staging: Staging) -> None:
        self.sink, self.staging = sink, staging
        self._waiting: queue.SimpleQueue = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._pending: set[int] = set()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._write, name="looplens-writer", daemon=True)

    def make_room(self, blocks: Collection[int]) -> None:
        """Wait until the buffers of these blocks may be written to.

        Raises
        ------
        Exception
            What went wrong while an earlier block was written.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._error or self.staging.is_free(blocks, self._pending)
            )
        self._raise()
        self.staging.claim(blocks)

    def submit(self, block: int, patterns: Mapping[int, np.ndarray]) -> None:
        """Hand over a filled block, with the attention patterns of its own prompts."""
        with self._changed:  # a device has its own buffers to wait for
            self._changed.wait_for(lambda: self._error or self.staging.can_hand_over(self._pending))
            self._raise()
            arrays = self.staging.hand_over(block)
            self._pending.add(block)
        self._waiting.put((block, arrays, patterns))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Whole blocks that wait are written even if what comes after them failed.
        self._waiting.put(None)
        self._thread.join()
        if kind is None:
            self._raise()

    def _write(self) -> None:
        while (item := self._waiting.get()) is not None:
            block, arrays, patterns = item
            try:
                if self._error is None:
                    self.sink.write_block(block, arrays(), patterns)
            except BaseException as error:  # raised again where the user's call is
                self._error = error
            with self._changed:
                self._pending.discard(block)
                self.staging.give_back(block)
                self._changed.notify_all()
            item = arrays = patterns = None  # or the patterns live on until the next block

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
