"""Truncated backpropagation through the loop, and the numbers that tell whether a loop is healthy.

Only the last iterations carry gradient; the prelude is reached through the tensor that is injected
into each of those. Nothing here knows about optimisers, tasks or schedules.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from looplens.errors import InputError
from looplens.models import AdaptiveConfig, LoopedConfig, LoopedTransformer
from looplens.models.health.numbers import masked_loss, relative_step, token_correlation
from looplens.models.initial_state import noise


def batch_noise(
    cfg: LoopedConfig | AdaptiveConfig, shape: tuple[int, ...], rng: np.random.Generator
) -> Tensor | None:
    """Draw an initial state of its own for each sequence, or None for a model with a fixed start.

    The model's own seeds give every row of a batch the same draw, which is right for comparing
    prompts and wrong for training: a step would see a single start.

    Parameters
    ----------
    cfg : LoopedConfig or AdaptiveConfig
        Says whether the start is noise, and its standard deviation; adaptive layers have none.
    shape : (batch, position)
        The shape of the tokens.
    rng : numpy.random.Generator
        Decides the draw.
    """
    if not isinstance(cfg, LoopedConfig) or cfg.initial_state != "noise":
        return None
    draw = noise(int(rng.integers(2**63)), math.prod(shape), cfg.d_model)
    return cfg.initial_state_std * draw.view(*shape, cfg.d_model)


def start(
    model: LoopedTransformer, tokens: Tensor, initial_state: Tensor | int | str | None = None
) -> tuple[Tensor, Tensor]:
    """Return the initial state and the injected tensor of a batch, both with gradient."""
    embedding = model.token_embedding(tokens)
    injected = model.run_prelude(embedding)
    return model.initial_state(injected, initial_state, embedding=embedding), injected


def unroll(
    model: LoopedTransformer,
    tokens: Tensor,
    *,
    iterations: int,
    backprop_iterations: int,
    initial_state: Tensor | int | str | None = None,
) -> Tensor:
    """Run the loop and return its last state, with gradient through the last iterations only.

    The arguments and errors are those of :func:`states_with_gradient`.

    Returns
    -------
    Tensor, shape (batch, position, d_model)
        The state after the last iteration.
    """
    states = states_with_gradient(
        model,
        tokens,
        iterations=iterations,
        backprop_iterations=backprop_iterations,
        initial_state=initial_state,
    )
    return deque(states, maxlen=1).pop()


def states_with_gradient(
    model: LoopedTransformer,
    tokens: Tensor,
    *,
    iterations: int,
    backprop_iterations: int,
    initial_state: Tensor | int | str | None = None,
) -> Iterator[Tensor]:
    """Run the loop and yield the states of the last iterations, which alone carry gradient.

    Parameters
    ----------
    model : LoopedTransformer
        The model; its parts are called one by one.
    tokens : Tensor of int64, shape (batch, position)
        Token ids.
    iterations : int
        All iterations, at least 1.
    backprop_iterations : int
        How many of the last ones carry gradient, at least 1. With ``backprop_iterations >=
        iterations`` this is ordinary backpropagation.
    initial_state : Tensor, int, str or None
        As in ``LoopedTransformer.initial_state``.

    Yields
    ------
    Tensor, shape (batch, position, d_model)
        ``min(iterations, backprop_iterations)`` states.

    Raises
    ------
    InputError
        When either number is below 1.

    References
    ----------
    Geiping et al., arXiv 2502.05171, section 3.3 (truncated backpropagation; there the last 8).
    """
    if iterations < 1 or backprop_iterations < 1:
        raise InputError(
            f"iterations and backprop_iterations are at least 1; got {iterations} and "
            f"{backprop_iterations}."
        )
    state, injected = start(model, tokens, initial_state)
    without_gradient = max(iterations - backprop_iterations, 0)
    with torch.no_grad():
        for _ in range(without_gradient):
            state = model.step(state, injected)
    for _ in range(iterations - without_gradient):
        state = model.step(state, injected)
        yield state


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """Signs of a loop that collapses or is ignored.

    Attributes
    ----------
    token_correlation : float
        Mean cosine between the final states of two positions of a sequence. Near 1: every
        position holds the same state.
    loss_one_iteration, loss : float
        Cross-entropy in nats after 1 iteration and after all. Equal: the loop is not used.
    relative_step : float
        Length of the last step over the length of the state.
    state_norm : float
        Mean length of the final state.
    """

    token_correlation: float
    loss_one_iteration: float
    loss: float
    relative_step: float
    state_norm: float


@torch.no_grad()
def health(
    model: LoopedTransformer,
    tokens: Tensor,
    targets: Tensor,
    *,
    iterations: int,
    initial_state: Tensor | int | str | None = None,
    real: Tensor | None = None,
) -> Health:
    """Measure the health of the loop on one batch.

    Parameters
    ----------
    model : LoopedTransformer
        The model.
    tokens, targets : Tensor of int64, shape (batch, position)
        The batch, with at least two positions.
    iterations : int
        How many iterations, at least 1. With one, as in a plain model, both losses are equal.
    initial_state : Tensor, int, str or None
        As in ``LoopedTransformer.initial_state``.
    real : Tensor of bool, shape (batch, position), optional
        The positions that count; the others are pads.

    References
    ----------
    Geiping et al., arXiv 2502.05171, section 4.3: the two failed runs (token correlation 1, and a
    loss that does not depend on the number of iterations).
    """
    state, injected = start(model, tokens, initial_state)
    first = previous = state
    for iteration in range(iterations):
        previous, state = state, model.step(state, injected)
        first = state if iteration == 0 else first
    real = torch.ones_like(tokens, dtype=torch.bool) if real is None else real
    return Health(
        token_correlation=float(token_correlation(state, real).mean()),
        loss_one_iteration=float(masked_loss(model.readout(first), targets)[0]),
        loss=float(masked_loss(model.readout(state), targets)[0]),
        relative_step=float(relative_step(state, previous)[real].mean()),
        state_norm=float(state.norm(dim=-1)[real].mean()),
    )
