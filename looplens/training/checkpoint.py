"""Resumable training state on disk: weights, optimiser, step. One file, replaced atomically.

No generator state is kept, because every step has generators of its own (see ``recipe``). This
module does not know how a step is taken, and its files are not the models that users load.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from looplens.errors import InputError
from looplens.training.recipe import Recipe

CHECKPOINT = "training.pt"
LOG = "log.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a training has come: finished steps, and seconds spent over all its runs."""

    step: int = 0
    seconds: float = 0.0


def save_progress(
    directory: Path,
    recipe: Recipe,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    """Write the state of a training, replacing the one before only once it is complete."""
    directory.mkdir(parents=True, exist_ok=True)
    unfinished = directory / (CHECKPOINT + ".unfinished")
    torch.save(
        {
            "fingerprint": recipe.fingerprint(),
            "step": progress.step,
            "seconds": progress.seconds,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
        },
        unfinished,
    )
    os.replace(unfinished, directory / CHECKPOINT)


def load_progress(
    directory: Path, recipe: Recipe, model: nn.Module, optimizer: torch.optim.Optimizer
) -> Progress:
    """Restore the state of a training in place; a directory without one starts at step 0.

    Raises
    ------
    InputError
        When the checkpoint belongs to another recipe.
    """
    path = directory / CHECKPOINT
    if not path.exists():
        return Progress()
    stored = torch.load(path, map_location=next(model.parameters()).device, weights_only=True)
    if stored["fingerprint"] != recipe.fingerprint():
        raise InputError(
            f"{path} was written by another recipe than {recipe.name!r} is now (fingerprint "
            f"{stored['fingerprint']}, expected {recipe.fingerprint()}). Remove it, choose another "
            "checkpoint directory, or pass resume=False to train from the start."
        )
    model.load_state_dict(stored["model"])
    optimizer.load_state_dict(stored["optimizer"])
    return Progress(step=stored["step"], seconds=stored["seconds"])


class TrainingLog:
    """A JSON Lines log in the checkpoint directory that continues where a training resumes.

    Parameters
    ----------
    directory : Path
        The checkpoint directory.
    step : int
        Finished steps; lines of later steps, written after the last checkpoint, are dropped.
    """

    def __init__(self, directory: Path, step: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / LOG
        lines = self.path.read_text().splitlines() if step and self.path.exists() else []
        if lines and not _is_whole(lines[-1]):
            lines.pop()  # the process ended while it wrote
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        self.path.write_text("".join(f"{line}\n" for line in kept))

    def write(self, values: dict[str, Any]) -> None:
        """Append one line; ``values`` has a ``step``."""
        with self.path.open("a") as file:
            file.write(json.dumps(values) + "\n")


def _is_whole(line: str) -> bool:
    try:
        json.loads(line)
    except json.JSONDecodeError:
        return False
    return True
