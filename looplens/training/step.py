"""One training step: build the model of a recipe, draw a batch, unroll, update.

A step depends on its number and on the weights alone, so it can be taken again at any time. When
steps are taken, logged and saved is the business of ``loop``.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, TypeAlias

import numpy as np
import torch

from looplens.models import (
    AdaptiveConfig,
    AdaptiveTransformer,
    LoopedTransformer,
    Tokenizer,
    char_tokenizer,
    word_tokenizer,
)
from looplens.tasks import Batch, get_task
from looplens.training.adaptive import adaptive_usage
from looplens.training.objective import training_loss
from looplens.training.recipe import Recipe
from looplens.training.truncated import batch_noise, health

PROBE_SEQUENCES = 64

Model: TypeAlias = LoopedTransformer | AdaptiveTransformer


def build_model(recipe: Recipe) -> Model:
    """Build the untrained model of a recipe, with weights decided by its seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        tokenizer = task_tokenizer(recipe.task)
        if isinstance(recipe.model, AdaptiveConfig):
            return AdaptiveTransformer(recipe.model, tokenizer, name=recipe.name)
        return LoopedTransformer(recipe.model, tokenizer, name=recipe.name)


def task_tokenizer(task: str) -> Tokenizer:
    """Make the tokenizer of a task: one token a character or a word, as its texts are written."""
    made = get_task(task)
    return char_tokenizer(made.characters) if made.characters else word_tokenizer(made.words)


def make_optimizer(model: Model, recipe: Recipe) -> torch.optim.AdamW:
    """Make AdamW; norm weights and biases are not decayed. A loss on the gate trains that alone."""
    trained = model.exit_gate if recipe.loss.kind == "gate" else model
    parameters = list(trained.parameters())
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        betas=recipe.betas,
    )


def take_step(
    recipe: Recipe, model: Model, optimizer: torch.optim.Optimizer, step: int
) -> dict[str, float]:
    """Take step 0, 1, ... of a recipe; it depends on the step number and the weights alone.

    Returns
    -------
    dict
        ``loss`` (nats), ``accuracy``, ``iterations``, ``learning_rate``, ``gradient_norm``.
    """
    device, at = next(model.parameters()).device, recipe.first_step + step
    batch = recipe.training_batch(step)
    iterations = recipe.depth.draw(recipe.generator("depth", at))
    targets = targets_of_step(recipe, batch, iterations)
    loss, accuracy = training_loss(
        recipe,
        model,
        torch.from_numpy(batch.tokens).to(device),
        targets.to(device),
        iterations=iterations,
        initial_state=batch_noise(
            model.cfg, batch.tokens.shape, recipe.generator("initial_state", at)
        ),
    )
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


def targets_of_step(recipe: Recipe, batch: Batch, iterations: int) -> torch.Tensor:
    """Return the targets of a batch, (batch, position), or at every iteration where they move."""
    task = get_task(recipe.task)
    targets = torch.from_numpy(batch.targets)
    if task.answers_move:
        each = [task.targets_at(batch, count) for count in range(1, iterations + 1)]
        targets = torch.from_numpy(np.stack(each))
    return last_target_only(targets) if recipe.loss_positions == "last" else targets


def last_target_only(targets: torch.Tensor) -> torch.Tensor:
    """Keep only the last target of each sequence, shape (..., batch, position)."""
    labelled = targets >= 0
    later = labelled.flip(-1).cumsum(-1).flip(-1) - labelled.long()  # targets further right
    return torch.where(labelled & (later == 0), targets, -1)


def probe_health(recipe: Recipe, model: Model) -> dict[str, Any]:
    """Measure the health of the loop on a fixed batch of the last stage, at default depth.

    Of an adaptive model: how much its layers loop and read their memory.
    """
    stage, device = recipe.curriculum[-1], next(model.parameters()).device
    rng, task = recipe.generator("probe"), get_task(recipe.task)
    iterations = model.cfg.default_iterations
    batch = task.sample(rng, PROBE_SEQUENCES, length=stage.length, difficulty=stage.difficulty)
    if isinstance(model, AdaptiveTransformer):
        answers = torch.from_numpy(batch.targets).to(device)
        return adaptive_usage(model, torch.from_numpy(batch.tokens).to(device), answers).as_dict()
    return asdict(
        health(
            model,
            torch.from_numpy(batch.tokens).to(device),
            torch.from_numpy(task.targets_at(batch, iterations)).to(device),
            iterations=iterations,
            initial_state=batch_noise(model.cfg, batch.tokens.shape, rng),
            real=torch.from_numpy(task.is_text(batch.tokens)).to(device),
        )
    )
