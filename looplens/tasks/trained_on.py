"""Prompts of the kind that a model was trained on, as its card describes them.

This module reads the card's values; it does not know where cards lie.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from looplens.errors import InputError
from looplens.prompts import Prompt
from looplens.tasks.registry import get_task


def prompts_trained_on(card: Mapping[str, Any], n: int, seed: int = 0) -> list[Prompt]:
    """Draw prompts with the length and difficulty of the last stage of a model's training.

    Parameters
    ----------
    card : mapping
        The content of a model's ``card.json``, see :func:`looplens.models.model_card`.
    n : int
        How many prompts.
    seed : int
        Seed of the draw.

    Raises
    ------
    InputError
        If the card names no task.
    """
    if "task" not in card:
        raise InputError(
            "this model does not say which task it was trained on: pass prompts of your own, or "
            "the name of a task"
        )
    last = card["recipe"]["curriculum"][-1]
    low, high = last["difficulty"]
    return get_task(card["task"]).prompts(
        n, seed=seed, length=last["length"], difficulty=(low, high)
    )
