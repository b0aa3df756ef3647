"""Models that leave the loop by themselves: how long each prompt ran, found out before recording.

A run has as many iterations as its longest prompt, and its tables are written first. So such a
model is run once for the counts and once more for the states. This module knows no disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from looplens.errors import InputError
from looplens.models.protocol import LoopedModel, StartLike
from looplens.prompts import Prompt

COLUMN = "iterations_run"


@torch.no_grad()
def iterations_run(
    model: LoopedModel, prompts: Sequence[Prompt], starts: Sequence[StartLike], asked: int
) -> Int[np.ndarray, "restart prompt"]:
    """Return how many iterations each prompt runs from each start, alone."""
    counts = np.empty((len(starts), len(prompts)), dtype=np.int64)
    for place, prompt in enumerate(prompts):
        ids = torch.tensor([prompt.token_ids], device=model.device)
        for restart, start in enumerate(starts):
            counts[restart, place] = model.run_loop(ids, (start,), asked, {})
    return counts


def annotated(
    prompts: Sequence[Prompt],
    described: dict[str, Any],
    ran: Int[np.ndarray, "restart prompt"],
    asked: int,
) -> tuple[list[Prompt], dict[str, Any], dict[str, Any]]:
    """Say how long each prompt ran: in the prompt table, the model's source and the settings.

    Returns
    -------
    prompts : list of Prompt
        With the column ``iterations_run``, the longest of the restarts.
    described : dict
        The description of the model, its ``source`` saying what happened.
    settings : dict
        ``iterations_asked``, ``exited_early``, and ``iterations_run`` (restart, prompt).
    """
    if any(COLUMN in prompt.metadata for prompt in prompts):
        raise InputError(
            f"the prompts have a column {COLUMN!r} of their own; it is needed for a model that "
            "exits early. Rename it."
        )
    columns = ran.max(axis=0)
    labelled = [
        replace(prompt, metadata={**prompt.metadata, COLUMN: int(count)})
        for prompt, count in zip(prompts, columns, strict=True)
    ]
    low, high = int(ran.min()), int(ran.max())
    settings = {
        "iterations_asked": asked,
        "exited_early": low < asked,
        COLUMN: ran.tolist(),
    }
    if low < asked:
        span = str(high) if low == high else f"{low} to {high}"
        said = f"left the loop by itself after {span} of {asked} iterations"
        source = described.get("source")
        described = {**described, "source": f"{source}; {said}" if source else said}
    return labelled, described, settings
