"""Tasks that read their texts one by one; what a text means is the business of the task."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from looplens.tasks.base import NO_TARGET, Batch, Task, Tokens


class RowTask(Task):
    """A task whose subclasses label a single text, in :meth:`label_row`."""

    @abstractmethod
    def label_row(self, row: Tokens, targets: Tokens, difficulty: NDArray[np.float64]) -> bool:
        """Write the targets and difficulties of one text; False where it is not well formed.

        Parameters
        ----------
        row, targets, difficulty : ndarray, shape (position,)
            One text without its pads, and what to write into: no targets and NaN so far.
        """

    def label(self, tokens: ArrayLike) -> Batch:
        """Label texts exactly; the class says where their targets are."""
        ids = self._as_tokens(tokens)
        targets = np.full_like(ids, NO_TARGET)
        difficulty = np.full(ids.shape, np.nan)
        good = [
            self.label_row(ids[i, :size], targets[i, :size], difficulty[i, :size])
            for i, size in enumerate(self._texts.sizes(ids))
        ]
        self._reject(ids, ~np.array(good))
        return Batch(tokens=ids, targets=targets, metadata={"difficulty": difficulty})
