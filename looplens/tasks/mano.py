"""Mano: prefix expressions modulo a prime, to be worked out in one go.

``<bos> <len_2> + 5 * 3 4 <ans>`` has the target 17 at ``<ans>``: 5 + 3 * 4.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from looplens.errors import InputError
from looplens.tasks.base import NO_TARGET, Batch, Task, Tokens
from looplens.tasks.batch import check_fits, spread_levels

LONGEST = 24
PAD, BOS, ANSWER = "<pad>", "<bos>", "<ans>"
SIGNS = ("+", "-", "*")


class Mano(Task):
    """Random expression trees of l operations in prefix notation, values modulo ``modulus``.

    ``difficulty`` is the number l of operations, spread evenly over a batch; ``length`` is the
    most that a sequence may have, and shorter ones are padded. The operations of a tree are split
    between its two branches uniformly at random; operations and numbers are uniform. Values are
    not: a product with 0 is 0, so 0 is more frequent than the others.

    Parameters
    ----------
    modulus : int
        All values are modulo this number.

    References
    ----------
    Zhu et al., "Scaling Latent Reasoning via Looped Language Models", arXiv 2510.25741
    (the Mano task; modulus 23, at most 10, 16 or 24 operations).
    """

    name = "mano"
    title = "prefix expressions modulo 23"
    source = "Zhu et al. (Ouro), arXiv 2510.25741 (Mano)"
    pad = PAD
    length_unit = "operations at most"
    difficulty_unit = "operations"
    default_length = 10
    difficulty_range = (1, 10)

    def __init__(self, *, modulus: int = 23) -> None:
        if modulus < 2:
            raise InputError(f"Task 'mano' needs a modulus of at least 2; got {modulus}.")
        self.modulus = modulus
        self.title = f"prefix expressions modulo {modulus}"
        lengths = (f"<len_{number}>" for number in range(1, LONGEST + 1))
        self.words = (*map(str, range(modulus)), *SIGNS, BOS, *lengths, ANSWER, PAD)
        self._length_1 = modulus + len(SIGNS) + 1  # the id of <len_1>

    @property
    def form(self) -> str:
        """A sentence that says what a well-formed text looks like."""
        return (
            f"A text is '<bos> <len_l>', a prefix expression of l operations (1..{LONGEST}) over "
            f"0..{self.modulus - 1}, and '<ans>', such as '<bos> <len_2> + 1 * 0 1 <ans>'."
        )

    def draw(
        self, rng: np.random.Generator, batch: int, length: int, difficulty: tuple[int, int]
    ) -> Tokens:
        """Draw expressions; the width of the batch is that of its longest row."""
        low, high = difficulty[0], min(difficulty[1], length)
        check_fits(low, high, f"An expression of at most {length} operations", "of them")
        bos, answer = self._texts.ids[BOS], self._texts.ids[ANSWER]
        return self._texts.stack(
            [
                [bos, self._length_1 + count - 1, *self._tree(rng, count), answer]
                for count in spread_levels(rng, batch, low, high).tolist()
            ]
        )

    def label(self, tokens: ArrayLike) -> Batch:
        """Label expressions; see :class:`Mano`."""
        ids = self._as_tokens(tokens)
        targets = np.full_like(ids, NO_TARGET)
        difficulty = np.full(ids.shape, np.nan)
        bad = np.zeros(len(ids), dtype=bool)
        for i, size in enumerate(self._texts.sizes(ids)):
            row = ids[i, :size].tolist()
            value = self._value(row)
            if value is None:
                bad[i] = True
                continue
            targets[i, size - 1] = value
            difficulty[i, size - 1] = (size - 4) // 2
        self._reject(ids, bad)
        return Batch(tokens=ids, targets=targets, metadata={"difficulty": difficulty})

    def _tree(self, rng: np.random.Generator, operations: int) -> list[int]:
        if operations == 0:
            return [int(rng.integers(self.modulus))]
        sign = self.modulus + int(rng.integers(len(SIGNS)))
        left = int(rng.integers(operations))
        return [sign, *self._tree(rng, left), *self._tree(rng, operations - 1 - left)]

    def _value(self, row: list[int]) -> int | None:
        """Work out one text; None where it is not well formed."""
        size = len(row)
        if size < 6 or size % 2 or row[0] != self._length_1 - 1:
            return None
        if row[1] != self._length_1 + (size - 4) // 2 - 1 or row[-1] != self._texts.ids[ANSWER]:
            return None
        stack: list[int] = []
        for token in reversed(row[2:-1]):  # from the right, operands are there before their sign
            if token < self.modulus:
                stack.append(token)
            elif token < self.modulus + len(SIGNS) and len(stack) >= 2:
                first, second = stack.pop(), stack.pop()
                results = (first + second, first - second, first * second)
                stack.append(results[token - self.modulus] % self.modulus)
            else:
                return None
        return stack[0] if len(stack) == 1 else None

    def _check_bounds(self, low: int, high: int) -> None:
        super()._check_bounds(low, high)
        if high > LONGEST:
            raise InputError(f"Task 'mano' has at most {LONGEST} operations; got {high}.")
