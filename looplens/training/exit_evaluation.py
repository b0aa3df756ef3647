"""What an exit gate is worth on held-out sequences: when tokens leave, how often they are right.

Sequences come from a stream that training never uses; nothing here changes a model.
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
from looplens.thinking import exit_distribution, threshold_exit
from looplens.training.drawn import draw_batches
from looplens.training.losses import exit_entropy
from looplens.training.truncated import batch_noise, states_with_gradient

QUANTILES = (0.01, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExitEvaluation:
    """Exits of a gate over all labelled positions.

    Attributes
    ----------
    quantile : tuple of float
        Cumulative exit probabilities q at which a token leaves.
    iterations, accuracy : tuple of float
        Mean iteration of leaving, and the share of right answers there, one number a quantile.
    entropy : float
        Mean entropy of the distribution over exits, in nats; 0 for a collapsed gate.
    difficulty : tuple of int
        The difficulties that occurred.
    expected_exit : tuple of float
        Mean expected exit iteration, one number a difficulty.
    """

    quantile: tuple[float, ...]
    iterations: tuple[float, ...]
    accuracy: tuple[float, ...]
    entropy: float
    difficulty: tuple[int, ...]
    expected_exit: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return asdict(self)


@torch.no_grad()
def evaluate_exits(
    model: LoopedTransformer,
    task: Task,
    rng: np.random.Generator,
    *,
    quantiles: Sequence[float] = QUANTILES,
    iterations: int | None = None,
    sequences: int = 1024,
    batch: int = 128,
    length: int | None = None,
    difficulty: int | tuple[int, int] | None = None,
) -> ExitEvaluation:
    """Let every token leave by itself when its gate says so, and mark its answer there.

    Parameters
    ----------
    model : LoopedTransformer
        A model with an exit gate.
    task : Task
        Draws and labels the sequences.
    rng : numpy.random.Generator
        Decides the sequences and the initial states.
    quantiles : sequence of float
        Cumulative exit probabilities between 0 and 1; see
        :func:`looplens.thinking.threshold_exit`.
    iterations : int, optional
        The last possible exit; the model's default depth when not given.
    sequences, batch : int
        How many sequences, and how many at a time.
    length, difficulty
        As in :meth:`looplens.tasks.Task.sample`.

    Raises
    ------
    InputError
        When the model has no exit gate.
    """
    if not model.cfg.exit_gate:
        raise InputError(f"{model.model_name} has no exit gate (cfg.exit_gate is False).")
    depth = iterations or model.cfg.default_iterations
    gates, marks, levels = [], [], []
    for drawn in draw_batches(
        task,
        rng,
        sequences=sequences,
        batch=batch,
        length=length,
        difficulty=difficulty,
        device=next(model.parameters()).device,
    ):
        states = states_with_gradient(
            model,
            drawn.tokens,
            iterations=depth,
            backprop_iterations=depth,
            initial_state=batch_noise(model.cfg, tuple(drawn.tokens.shape), rng),
        )
        gate, mark = [], []
        for iteration, state in enumerate(states, start=1):
            said = model.readout(state)[drawn.labelled].argmax(-1)
            mark.append((said == drawn.wanted(iteration)).cpu())
            gate.append(model.gate(state)[drawn.labelled].cpu())
        gates.append(torch.stack(gate))
        marks.append(torch.stack(mark))
        levels.append(drawn.level)
    logits, right, level = torch.cat(gates, 1), torch.cat(marks, 1).double(), np.concatenate(levels)
    left = [threshold_exit(logits, q) for q in quantiles]
    steps = torch.arange(1, depth + 1, dtype=torch.float64)[:, None]
    expected = (exit_distribution(logits).double() * steps).sum(0).numpy()
    difficulties = np.unique(level)
    return ExitEvaluation(
        quantile=tuple(map(float, quantiles)),
        iterations=tuple(float(step.double().mean()) for step in left),
        accuracy=tuple(float(right.gather(0, (step - 1)[None]).mean()) for step in left),
        entropy=float(exit_entropy(logits).mean()),
        difficulty=tuple(map(int, difficulties)),
        expected_exit=tuple(float(expected[level == d].mean()) for d in difficulties),
    )
