"""Labelled sequences: what a task draws and what training and evaluation read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from looplens.errors import InputError
from looplens.tasks.texts import Tokens

NO_TARGET = -1
# Second words of seeds, far from those of training (``looplens.training.recipe.STREAMS``): equal
# seeds must not give prompts that a model was trained on.
PROMPTS, STREAM = 1001, 1002


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Sequences of equal length with their answers.

    Attributes
    ----------
    tokens : ndarray of int64, shape (batch, position)
        Indices into the task's ``vocabulary``; short rows end with pads.
    targets : ndarray of int64, shape (batch, position)
        The token to predict *at* that position, -1 where the task defines none.
    metadata : mapping of str to ndarray of float64, shape (batch, position)
        One number a token, NaN where there is no target. Every task has ``difficulty``.
    """

    tokens: Tokens
    targets: Tokens
    metadata: Mapping[str, NDArray[np.float64]]


def spread_levels(rng: np.random.Generator, batch: int, low: int, high: int) -> NDArray[np.int64]:
    """Draw difficulties low..high spread evenly over a batch, shape (batch,).

    A small batch of independent draws would often miss a difficulty altogether.
    """
    levels = np.arange(batch) + rng.integers(high - low + 1)
    return rng.permutation(low + levels % (high - low + 1))


def check_fits(least: int, most: int, what: str, unit: str) -> None:
    """Refuse a difficulty for which the length asked for is too short."""
    if least > most:
        raise InputError(f"{what} cannot have {least} {unit}; ask for length={least} or more.")


def is_held_out(code: int, salt: int, per_cent: int) -> bool:
    """Say whether a text belongs to the share that is held out: a hash of its code decides."""
    mixed = (code * 0x9E3779B97F4A7C15 + salt) & (2**64 - 1)
    mixed = ((mixed ^ (mixed >> 31)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    return (mixed >> 33) % 100 < per_cent
