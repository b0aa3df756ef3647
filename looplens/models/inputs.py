"""Checks on what a forward is given, with messages that say what was expected and seen."""

from __future__ import annotations

import operator
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from looplens.errors import InputError
from looplens.models.config import LoopedConfig


def whole_number(value: Any, name: str, *, least: int) -> int:
    """Return an integer argument as a plain ``int``; numpy's integers are welcome.

    Raises
    ------
    InputError
        If it is not an integer, or below ``least``.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least:
        raise InputError(f"{name} must be an integer of at least {least}, got {value!r}")
    return number


def check_iterations(iterations: int) -> int:
    """Return the number of passes.

    Raises
    ------
    InputError
        If it is not an integer of at least 1.
    """
    return whole_number(iterations, "iterations", least=1)


def check_device(device: str | torch.device) -> torch.device:
    """Return a device that a model can be put on.

    Raises
    ------
    InputError
        If there is no such device on this machine.
    """
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(
            f"the device {str(device)!r} cannot be used here: {reason}. Try 'cpu'."
        ) from None
    return found


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


def check_mask(mask: Tensor) -> Bool[Tensor, "batch pos"]:
    """Return which positions are real.

    Raises
    ------
    InputError
        If the mask is not two-dimensional, a row is empty, or its real tokens are not contiguous.
    """
    real = mask.bool()
    if real.ndim != 2:
        raise InputError(f"attention_mask must have shape (batch, pos), got {tuple(mask.shape)}")
    starts = real.int().diff(prepend=real.new_zeros(len(real), 1).int(), dim=-1).eq(1).sum(-1)
    wrong = (starts != 1).nonzero().flatten().tolist()
    if wrong:
        raise InputError(
            f"row {wrong[0]} of attention_mask must mark one contiguous stretch of real tokens, "
            f"got {int(starts[wrong[0]])}"
        )
    return real


def fit_rows(value: Tensor, rows: int, pos: int, what: str) -> Tensor:
    """Repeat what belongs to a batch until it fits copies of that batch laid end to end.

    Raises
    ------
    InputError
        If the activations are not copies of that batch.
    """
    if value.shape[1] != pos or rows % len(value):
        raise InputError(
            f"{what} have shape {tuple(value.shape)}, which does not fit activations of "
            f"{rows} rows and {pos} positions"
        )
    return value if len(value) == rows else value.repeat(rows // len(value), 1)
