"""From a recipe, a model and a batch to the number that a step minimises.

It runs the loop with the gradient that the loss asks for. The losses are in ``losses``, the loop
in ``truncated``; optimisers and schedules are the business of ``step``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from looplens.models import AdaptiveTransformer, LoopedTransformer
from looplens.training.losses import (
    adaptive_gate_loss,
    block_similarity,
    cross_entropies,
    expected_exit_loss,
)
from looplens.training.recipe import Recipe
from looplens.training.truncated import masked_loss, states_with_gradient, unroll


def training_loss(
    recipe: Recipe,
    model: LoopedTransformer | AdaptiveTransformer,
    tokens: Tensor,
    targets: Tensor,
    *,
    iterations: int,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return the loss of a batch, with gradient, and the accuracy after the last iteration.

    Parameters
    ----------
    recipe : Recipe
        Says which loss.
    model : LoopedTransformer or AdaptiveTransformer
        The model; an adaptive one has one answer, and no iterations or start.
    tokens : Tensor of int64, shape (batch, position)
        The batch.
    targets : Tensor of int64, shape (batch, position) or (iteration 1..T, batch, position)
        The tokens to predict, -1 for none.
    iterations : int
        Iterations of this step.
    initial_state : Tensor or None
        A start for each sequence, where the model's scheme draws it.

    Returns
    -------
    loss, accuracy : Tensor
        Scalars; the loss in nats, less the regulariser's similarity where there is one.
    """
    loss = recipe.loss
    last = targets if targets.ndim == 2 else targets[-1]
    if isinstance(model, AdaptiveTransformer):
        return masked_loss(model(tokens), last)
    if loss.kind == "last":
        state = unroll(
            model,
            tokens,
            iterations=iterations,
            backprop_iterations=recipe.backprop_iterations,
            initial_state=initial_state,
        )
        value, accuracy = masked_loss(model.readout(state), last)
    else:
        with torch.set_grad_enabled(loss.kind != "gate"):
            whole = loss.kind == "gate"  # every iteration counts, and none carries gradient
            states = list(
                states_with_gradient(
                    model,
                    tokens,
                    iterations=iterations,
                    backprop_iterations=iterations if whole else recipe.backprop_iterations,
                    initial_state=initial_state,
                )
            )
            logits = torch.stack([model.readout(state) for state in states])
        each = targets if targets.ndim == 2 else targets[-len(states) :]
        losses = cross_entropies(logits, each)
        accuracy = masked_loss(logits[-1].detach(), last)[1]
        if loss.kind == "every":
            value = losses.mean()
        else:
            gates = torch.stack([model.gate(state)[last >= 0] for state in states])
            if loss.kind == "expected":
                value = expected_exit_loss(losses, gates, loss.entropy)
            else:
                value = adaptive_gate_loss(
                    losses, gates, slope=loss.slope, threshold=loss.threshold
                )
    if recipe.regulariser is not None:
        similarity = block_similarity(model, recipe.regulariser.block)
        value = value - recipe.regulariser.strength * similarity
    return value, accuracy
