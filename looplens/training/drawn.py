"""Held-out sequences of a task, a batch at a time, as evaluations read them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from looplens.tasks import Batch, Task


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """A batch of sequences and what is asked of it.

    Attributes
    ----------
    task, batch : Task, Batch
        Where it comes from.
    tokens : torch.Tensor of int64, shape (batch, position)
        What the model reads.
    labelled : torch.Tensor of bool, shape (batch, position)
        The positions that have a target; the answered positions are these, row by row.
    """

    task: Task
    batch: Batch
    tokens: torch.Tensor
    labelled: torch.Tensor

    @property
    def level(self) -> NDArray[np.int64]:
        """The difficulty of each answered position."""
        return self.batch.metadata["difficulty"][self.batch.targets >= 0].astype(np.int64)

    def wanted(self, iteration: int) -> torch.Tensor:
        """Return the right answer at each answered position after so many iterations."""
        targets = torch.from_numpy(self.task.targets_at(self.batch, iteration))
        return targets.to(self.labelled.device)[self.labelled]


def draw_batches(
    task: Task,
    rng: np.random.Generator,
    *,
    sequences: int,
    batch: int,
    length: int | None,
    difficulty: int | tuple[int, int] | None,
    device: torch.device,
) -> Iterator[Drawn]:
    """Draw sequences, ``batch`` at a time; the arguments are those of ``evaluate``."""
    for first in range(0, sequences, batch):
        drawn = task.sample(
            rng, min(batch, sequences - first), length=length, difficulty=difficulty
        )
        yield Drawn(
            task=task,
            batch=drawn,
            tokens=torch.from_numpy(drawn.tokens).to(device),
            labelled=torch.from_numpy(drawn.targets >= 0).to(device),
        )
