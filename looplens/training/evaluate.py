"""Held-out accuracy of a looped model by iteration count and by difficulty.

Sequences are drawn from a stream of randomness that training never uses. Nothing here changes a
model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from looplens.errors import InputError
from looplens.models import LoopedTransformer
from looplens.tasks import Task
from looplens.training.truncated import batch_noise, start

ITERATIONS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Accuracy and loss on held-out sequences.

    Attributes
    ----------
    iterations : tuple of int
        The iteration counts that were read out.
    accuracy, loss : tuple of float
        One number an iteration count, over all labelled positions; loss in nats.
    difficulty : tuple of int
        The difficulties that occurred.
    accuracy_by_difficulty : tuple of tuple of float
        Rows are iteration counts, columns are difficulties.
    targets : tuple of int
        How many positions of each difficulty were answered.
    sequences : int
        How many sequences they came from.
    """

    iterations: tuple[int, ...]
    accuracy: tuple[float, ...]
    loss: tuple[float, ...]
    difficulty: tuple[int, ...]
    accuracy_by_difficulty: tuple[tuple[float, ...], ...]
    targets: tuple[int, ...]
    sequences: int

    def accuracy_at(self, iterations: int) -> float:
        """Return the accuracy at one of the iteration counts.

        Raises
        ------
        InputError
            When that count was not evaluated.
        """
        if iterations not in self.iterations:
            raise InputError(
                f"Iteration count {iterations} was not evaluated; there are {self.iterations}."
            )
        return self.accuracy[self.iterations.index(iterations)]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return asdict(self)


@torch.no_grad()
def evaluate(
    model: LoopedTransformer,
    task: Task,
    rng: np.random.Generator,
    *,
    iterations: Sequence[int] = ITERATIONS,
    sequences: int = 1024,
    batch: int = 128,
    length: int | None = None,
    difficulty: int | tuple[int, int] | None = None,
) -> Evaluation:
    """Measure accuracy on freshly drawn sequences.

    Parameters
    ----------
    model : LoopedTransformer
        The model.
    task : Task
        Draws and labels the sequences.
    rng : numpy.random.Generator
        Decides the sequences and the initial states.
    iterations : sequence of int
        Iteration counts to read out; all in one pass over the largest.
    sequences, batch : int
        How many sequences, and how many at a time.
    length, difficulty
        As in :meth:`looplens.tasks.Task.sample`.

    Raises
    ------
    InputError
        When an iteration count is below 1.
    """
    counts = sorted(set(iterations))
    if not counts or counts[0] < 1:
        raise InputError(f"Iteration counts are at least 1; got {list(iterations)}.")
    device = next(model.parameters()).device
    levels: list[np.ndarray] = []
    right: list[np.ndarray] = []  # (iteration count, answered position)
    losses: list[np.ndarray] = []
    for first in range(0, sequences, batch):
        drawn = task.sample(
            rng, min(batch, sequences - first), length=length, difficulty=difficulty
        )
        labelled = torch.from_numpy(drawn.targets >= 0).to(device)
        wanted = torch.from_numpy(drawn.targets).to(device)[labelled]
        state, injected = start(
            model,
            torch.from_numpy(drawn.tokens).to(device),
            batch_noise(model.cfg, drawn.tokens.shape, rng),
        )
        marks, costs = [], []
        for iteration in range(1, counts[-1] + 1):
            state = model.step(state, injected)
            if iteration in counts:
                logits = model.readout(state)[labelled]
                marks.append((logits.argmax(dim=-1) == wanted).cpu().numpy())
                cost = torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
                costs.append(cost.cpu().numpy())
        right.append(np.stack(marks))
        losses.append(np.stack(costs))
        levels.append(drawn.metadata["difficulty"][drawn.targets >= 0].astype(int))
    level, mark = np.concatenate(levels), np.concatenate(right, axis=1)
    mean_loss = np.concatenate(losses, axis=1).mean(axis=1, dtype=np.float64)
    difficulties, number = np.unique(level, return_counts=True)
    by_difficulty = np.stack([mark[:, level == d].mean(axis=1) for d in difficulties], axis=1)
    return Evaluation(
        iterations=tuple(counts),
        accuracy=tuple(map(float, mark.mean(axis=1))),
        loss=tuple(map(float, mean_loss)),
        difficulty=tuple(map(int, difficulties)),
        accuracy_by_difficulty=tuple(tuple(map(float, row)) for row in by_difficulty),
        targets=tuple(map(int, number)),
        sequences=sequences,
    )
