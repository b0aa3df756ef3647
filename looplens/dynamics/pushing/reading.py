"""Logits at chosen positions of many states, where all of them at once would fill the memory."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from looplens.dynamics.maps.loop_step import LoopStep
from looplens.models.native import NativeLoop

_LOGITS = 2**25  # numbers in the logits of a batch: 128 MiB in float32


def logits_at(
    step: LoopStep,
    states: Float[Tensor, "row pos d_model"],
    positions: Int[Tensor, "row chosen"],
    iteration: int,
    iterations: int,
) -> Float[Tensor, "row chosen d_vocab"]:
    """Return the readout at some positions of every row, in double precision.

    In single precision small divergences drown in the rounding of the logarithms.

    Parameters
    ----------
    step : LoopStep
        Of the prompt, which layers behind the loop may look at again; the model has a readout.
    states : Float[Tensor, "row pos d_model"]
        States of whole prompts.
    positions : Int[Tensor, "row chosen"]
        Which positions.
    iteration, iterations : int
        Of which pass of how many they are.
    """
    looped = step.looped
    if isinstance(looped, NativeLoop) and looped.model.cfg.value_embeddings:
        looped.model.tokens = step.ids
    size = max(1, _LOGITS // (states.shape[1] * looped.d_vocab))
    found = []
    for part, chosen in zip(states.split(size), positions.split(size), strict=True):
        rows = torch.arange(len(part), device=part.device)[:, None]
        logits = looped.readout(part.to(looped.device), iteration, iterations)
        found.append(logits[rows, chosen].double())
    return torch.cat(found)
