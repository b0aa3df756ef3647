"""Mano: prefix expressions modulo a prime, to be worked out in one go.

``<bos> <len_2> + 5 * 3 4 <ans>`` has the target 17 at ``<ans>``: 5 + 3 * 4.
"""

from __future__ import annotations

from copy import copy

import numpy as np
from numpy.typing import NDArray

from looplens.errors import InputError, named
from looplens.tasks.base import Task, Tokens
from looplens.tasks.batch import check_fits, is_held_out, spread_levels
from looplens.tasks.rows import RowTask

LONGEST = 24
PAD, BOS, ANSWER = "<pad>", "<bos>", "<ans>"
SIGNS = ("+", "-", "*")
SPLITS = ("all", "seen", "unseen")
HELD_OUT = 20  # per cent of the expressions of two and more operations


class Mano(RowTask):
    """Random expression trees of l operations in prefix notation, values modulo ``modulus``.

    ``difficulty`` is the number l of operations, spread evenly over a batch; ``length`` is the
    most that a sequence may have, and shorter ones are padded. The operations of a tree are split
    between its two branches uniformly at random; operations and numbers are uniform. Values are
    not: a product with 0 is 0, so 0 is more frequent than the others.

    Parameters
    ----------
    modulus : int
        All values are modulo this number.
    split : {"all", "seen", "unseen"}
        Which expressions are drawn: ``seen`` leaves out a fifth of those of two and more
        operations, decided by the expression alone, and ``unseen`` draws nothing else. A small
        modulus has so few short expressions that training shows nearly all. Labels do not depend
        on it.

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

    def __init__(self, *, modulus: int = 23, split: str = "all") -> None:
        if modulus < 2:
            raise InputError(f"Task 'mano' needs a modulus of at least 2; got {modulus}.")
        self.modulus = modulus
        self._split = named(split, {name: name for name in SPLITS}, "mano split")
        self.difficulty_range = (2 if split == "unseen" else 1, self.default_length)
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
                [bos, self._length_1 + count - 1, *self._expression(rng, count), answer]
                for count in spread_levels(rng, batch, low, high).tolist()
            ]
        )

    def label_row(self, row: Tokens, targets: Tokens, difficulty: NDArray[np.float64]) -> bool:
        """Write the value of an expression at its end; see :meth:`RowTask.label_row`."""
        value = self._value(row.tolist())
        if value is None:
            return False
        targets[-1], difficulty[-1] = value, (len(row) - 4) // 2
        return True

    def held_out(self) -> Task | None:
        """Return the task of the unseen expressions, None where training may show any of them."""
        if self._split == "all":
            return self
        if self._split == "unseen":
            return None
        other = copy(self)
        other._split, other.difficulty_range = "unseen", (2, self.default_length)
        return other

    def _expression(self, rng: np.random.Generator, operations: int) -> list[int]:
        """Draw an expression of the split; one of a single operation is always seen."""
        while True:
            tokens = self._tree(rng, operations)
            code = sum(token * len(self.words) ** place for place, token in enumerate(tokens))
            unseen = operations > 1 and is_held_out(code, operations, HELD_OUT)
            if self._split == "all" or unseen == (self._split == "unseen"):
                return tokens

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
        if self._split == "unseen" and low < 2:
            raise InputError(f"Task {self.name!r} has expressions of 2 and more operations.")
        if high > LONGEST:
            raise InputError(f"Task 'mano' has at most {LONGEST} operations; got {high}.")
