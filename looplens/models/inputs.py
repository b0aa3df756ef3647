"""Checks on what a forward is given, with messages that say what was expected and seen."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from looplens.errors import InputError
from looplens.models.config import LoopedConfig


def check_iterations(iterations: int) -> int:
    """Return the number of passes.

    Raises
    ------
    InputError
        If it is not an integer of at least 1.
    """
    if not isinstance(iterations, int) or isinstance(iterations, bool) or iterations < 1:
        raise InputError(f"iterations must be an integer of at least 1, got {iterations!r}")
    return iterations


def check_tokens(tokens: Int[Tensor, "batch pos"], cfg: LoopedConfig) -> Int[Tensor, "batch pos"]:
    """Return token ids that the model can embed.

    Raises
    ------
    InputError
        If the tensor is empty, not two-dimensional, not of integers, longer than ``n_ctx``, or
        holds an id outside the vocabulary.
    """
    if tokens.ndim != 2 or not tokens.numel():
        raise InputError(
            f"expected token ids of shape (batch, pos), none of them empty; got shape "
            f"{tuple(tokens.shape)}"
        )
    if tokens.is_floating_point() or tokens.dtype == torch.bool:
        raise InputError(f"token ids must be integers, got {tokens.dtype}")
    if tokens.shape[1] > cfg.n_ctx:
        raise InputError(f"the sequence has {tokens.shape[1]} tokens, more than n_ctx={cfg.n_ctx}")
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= cfg.d_vocab:
        raise InputError(
            f"token id {low if low < 0 else high} is outside the vocabulary (0..{cfg.d_vocab - 1})"
        )
    return tokens
