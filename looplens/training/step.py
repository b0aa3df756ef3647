"""One training step: build the model of a recipe, draw a batch, unroll, update.

A step depends on its number and on the weights alone, so it can be taken again at any time. When
steps are taken, logged and saved is the business of ``loop``.
"""

from __future__ import annotations

from dataclasses import asdict

import torch

from looplens.models import LoopedTransformer, char_tokenizer
from looplens.tasks import get_task
from looplens.training.recipe import Recipe
from looplens.training.truncated import batch_noise, health, masked_loss, unroll

PROBE_SEQUENCES = 64


def build_model(recipe: Recipe) -> LoopedTransformer:
    """Build the untrained model of a recipe, with weights decided by its seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        tokenizer = char_tokenizer(get_task(recipe.task).characters)
        return LoopedTransformer(recipe.model, tokenizer, name=recipe.name)


def make_optimizer(model: LoopedTransformer, recipe: Recipe) -> torch.optim.AdamW:
    """Make AdamW; norm weights and biases are not decayed."""
    parameters = list(model.parameters())
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        betas=recipe.betas,
    )


def take_step(
    recipe: Recipe, model: LoopedTransformer, optimizer: torch.optim.Optimizer, step: int
) -> dict[str, float]:
    """Take step 0, 1, ... of a recipe; it depends on the step number and the weights alone.

    Returns
    -------
    dict
        ``loss`` (nats), ``accuracy``, ``iterations``, ``learning_rate``, ``gradient_norm``.
    """
    stage, device = recipe.stage(step), next(model.parameters()).device
    batch = get_task(recipe.task).sample(
        recipe.generator("data", step),
        recipe.batch,
        length=stage.length,
        difficulty=stage.difficulty,
    )
    iterations = recipe.depth.draw(recipe.generator("depth", step))
    state = unroll(
        model,
        torch.from_numpy(batch.tokens).to(device),
        iterations=iterations,
        backprop_iterations=recipe.backprop_iterations,
        initial_state=batch_noise(
            model.cfg, batch.tokens.shape, recipe.generator("initial_state", step)
        ),
    )
    targets = torch.from_numpy(batch.targets)
    if recipe.loss_positions == "last":
        targets = last_target_only(targets)
    loss, accuracy = masked_loss(model.readout(state), targets.to(device))
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate_at(step)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    optimizer.step()
    return {
        "loss": float(loss.detach()),
        "accuracy": float(accuracy),
        "iterations": iterations,
        "learning_rate": recipe.learning_rate_at(step),
        "gradient_norm": float(norm),
    }


def last_target_only(targets: torch.Tensor) -> torch.Tensor:
    """Keep only the last target of each sequence, shape (batch, position)."""
    labelled = targets >= 0
    later = labelled.flip(1).cumsum(1).flip(1) - labelled.long()  # targets further right
    return torch.where(labelled & (later == 0), targets, -1)


def probe_health(recipe: Recipe, model: LoopedTransformer) -> dict[str, float]:
    """Measure the health of the loop on a fixed batch of the last stage, at default depth."""
    stage, device = recipe.curriculum[-1], next(model.parameters()).device
    rng = recipe.generator("probe")
    batch = get_task(recipe.task).sample(
        rng, PROBE_SEQUENCES, length=stage.length, difficulty=stage.difficulty
    )
    return asdict(
        health(
            model,
            torch.from_numpy(batch.tokens).to(device),
            torch.from_numpy(batch.targets).to(device),
            iterations=max(2, model.cfg.default_iterations),
            initial_state=batch_noise(model.cfg, batch.tokens.shape, rng),
        )
    )
