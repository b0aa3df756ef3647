"""Accuracy of a looped model by iteration count and by difficulty, on texts not trained on.

Sequences are drawn from a stream of randomness that training never uses, and from the held-out part
of tasks that have one. Nothing here changes a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from looplens.errors import InputError
from looplens.models import AdaptiveTransformer, LoopedTransformer
from looplens.tasks import Task, get_task
from looplens.training.drawn import draw_batches
from looplens.training.recipe import Recipe
from looplens.training.truncated import batch_noise, start

ITERATIONS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Accuracy and loss on sequences of a task.

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
    sequence_accuracy : tuple of float
        One number an iteration count: the share of sequences that are right at every target, which
        is exact match for answers of several tokens.
    """

    iterations: tuple[int, ...]
    accuracy: tuple[float, ...]
    loss: tuple[float, ...]
    difficulty: tuple[int, ...]
    accuracy_by_difficulty: tuple[tuple[float, ...], ...]
    targets: tuple[int, ...]
    sequences: int
    sequence_accuracy: tuple[float, ...] = ()

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


def held_out_of(recipe: Recipe) -> tuple[Task, tuple[int, int]] | None:
    """Return the task that draws what a recipe never trains on, and the difficulties of its texts.

    Returns
    -------
    (Task, (int, int)) or None
        None where every text of the last stage may have been trained on.
    """
    stage, task = recipe.curriculum[-1], get_task(recipe.task).held_out()
    if task is None:
        return None
    low, high = stage.difficulty
    if task is not get_task(recipe.task):
        low = max(low, task.difficulty_range[0])
    try:
        probe = np.random.default_rng(0)
        task.sample(probe, max(1, high - low + 1), length=stage.length, difficulty=(low, high))
    except InputError:  # a small world may hold none out
        return None
    return task, (low, high)


@torch.no_grad()
def evaluate(
    model: LoopedTransformer | AdaptiveTransformer,
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
    model : LoopedTransformer or AdaptiveTransformer
        The model.
    task : Task
        Draws and labels the sequences.
    rng : numpy.random.Generator
        Decides the sequences and the initial states.
    iterations : sequence of int
        Iteration counts to read out; all in one pass over the largest. An adaptive model, whose
        loops are inside its layers, has the single count ``max_steps`` whatever is asked for.
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
    if isinstance(model, AdaptiveTransformer):
        counts = [model.cfg.max_steps]
    levels: list[np.ndarray] = []
    right: list[np.ndarray] = []  # (iteration count, answered position)
    losses: list[np.ndarray] = []
    whole: list[np.ndarray] = []  # (iteration count, sequence)
    for drawn in draw_batches(
        task,
        rng,
        sequences=sequences,
        batch=batch,
        length=length,
        difficulty=difficulty,
        device=next(model.parameters()).device,
    ):
        marks, costs, exact = [], [], []
        for iteration, readout in _readouts(model, drawn.tokens, counts, rng):
            logits, wanted = readout[drawn.labelled], drawn.wanted(iteration)
            mark = logits.argmax(dim=-1) == wanted
            marks.append(mark.cpu().numpy())
            exact.append(_whole_sequences(mark, drawn.labelled).cpu().numpy())
            cost = torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
            costs.append(cost.cpu().numpy())
        right.append(np.stack(marks))
        whole.append(np.stack(exact))
        losses.append(np.stack(costs))
        levels.append(drawn.level)
    level, all_marks = np.concatenate(levels), np.concatenate(right, axis=1)
    mean_loss = np.concatenate(losses, axis=1).mean(axis=1, dtype=np.float64)
    difficulties, number = np.unique(level, return_counts=True)
    by_difficulty = np.stack([all_marks[:, level == d].mean(axis=1) for d in difficulties], axis=1)
    return Evaluation(
        iterations=tuple(counts),
        accuracy=tuple(map(float, all_marks.mean(axis=1))),
        loss=tuple(map(float, mean_loss)),
        difficulty=tuple(map(int, difficulties)),
        accuracy_by_difficulty=tuple(tuple(map(float, row)) for row in by_difficulty),
        targets=tuple(map(int, number)),
        sequences=sequences,
        sequence_accuracy=tuple(map(float, np.concatenate(whole, axis=1).mean(axis=1))),
    )


def _readouts(
    model: LoopedTransformer | AdaptiveTransformer,
    tokens: torch.Tensor,
    counts: Sequence[int],
    rng: np.random.Generator,
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield some iteration counts and the logits after them, (batch, position, vocabulary)."""
    if isinstance(model, AdaptiveTransformer):
        yield counts[0], model(tokens)
        return
    state, injected = start(model, tokens, batch_noise(model.cfg, tuple(tokens.shape), rng))
    for iteration in range(1, counts[-1] + 1):
        state = model.step(state, injected)
        if iteration in counts:
            yield iteration, model.readout(state)


def _whole_sequences(mark: torch.Tensor, labelled: torch.Tensor) -> torch.Tensor:
    """Say which sequences have no wrong target, from one mark a target, row by row."""
    row = labelled.nonzero()[:, 0]
    wrong = torch.bincount(row, weights=(~mark).double(), minlength=len(labelled))
    return wrong == 0
