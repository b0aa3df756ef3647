"""Running arithmetic modulo 7: read ``3+4*2+6`` from left to right and keep the value.

A text is a start digit followed by operations, each a sign and a digit. Every operation has a
target at its digit: the value so far. There is no operator precedence. How a model arrives at the
value is none of this module's business.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from looplens.tasks.base import NO_TARGET, Batch, Tokens
from looplens.tasks.running import RunningTask

MODULUS = 7
PLUS, TIMES = MODULUS, MODULUS + 1


class Affine(RunningTask):
    """Running affine arithmetic modulo 7, strictly from left to right.

    ``3+4*2+6`` has the targets 0 at ``4`` (3+4), 0 at ``2`` (0*2) and 6 at ``6`` (0+6).
    ``difficulty`` is the number of operations up to that position, so a sequence holds every
    difficulty from 1 to its length. Sampled multipliers are 1..6: a factor 0 would forget
    everything before it and make a late position easy.
    """

    name = "affine"
    title = "running arithmetic modulo 7"
    characters = "0123456+*"
    length_unit = "operations"
    difficulty_unit = "operations"
    default_length = 10
    difficulty_range = (1, 10)

    @property
    def form(self) -> str:
        """A sentence that says what a well-formed text looks like."""
        return (
            "A text is a digit 0..6 and then at least one operation, each '+' or '*' and a "
            "digit 0..6, such as '3+4*2+6'."
        )

    def draw(
        self, rng: np.random.Generator, batch: int, length: int, difficulty: tuple[int, int]
    ) -> Tokens:
        """Draw sequences of shape (batch, 1 + 2 * length)."""
        tokens = np.empty((batch, 1 + 2 * length), dtype=np.int64)
        tokens[:, 0] = rng.integers(MODULUS, size=batch)
        times = rng.integers(2, size=(batch, length)).astype(bool)
        tokens[:, 1::2] = np.where(times, TIMES, PLUS)
        addends = rng.integers(MODULUS, size=(batch, length))
        factors = rng.integers(1, MODULUS, size=(batch, length))
        tokens[:, 2::2] = np.where(times, factors, addends)
        return tokens

    def label(self, tokens: ArrayLike) -> Batch:
        """Label sequences of one length exactly; see :class:`Affine` for the definition."""
        ids = self._as_tokens(tokens)
        digits, signs = ids[:, 0::2], ids[:, 1::2]
        well_formed = (digits < MODULUS).all(axis=1) & (signs >= MODULUS).all(axis=1)
        complete = ids.shape[1] % 2 == 1 and ids.shape[1] >= 3
        self._reject(ids, ~(well_formed & complete))
        targets = np.full_like(ids, NO_TARGET)
        difficulty = np.full(ids.shape, np.nan)
        value = digits[:, 0]
        for operation in range(1, digits.shape[1]):
            digit = digits[:, operation]
            plus = signs[:, operation - 1] == PLUS
            value = np.where(plus, value + digit, value * digit) % MODULUS
            targets[:, 2 * operation] = value
            difficulty[:, 2 * operation] = operation
        return Batch(tokens=ids, targets=targets, metadata={"difficulty": difficulty})
