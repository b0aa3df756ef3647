"""Addition of several numbers, without intermediate steps: ``315+120+045+824=1304``.

The answer is written one digit a token and ends with a full stop, so that greedy decoding either
writes the exact sum or does not.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from looplens.errors import InputError
from looplens.tasks.base import Tokens
from looplens.tasks.batch import check_fits, spread_levels
from looplens.tasks.rows import RowTask

END = "."


class Addition(RowTask):
    """n-ary addition of zero-padded operands.

    The targets are those of next-token prediction from ``=`` on: the digits of the sum without
    leading zeros, then ``.``. ``difficulty`` is the number of operands, spread evenly over the
    sequences of a batch, and ``length`` is the most that a sequence may have; shorter ones are
    padded. A text may stop anywhere in the answer.

    Parameters
    ----------
    digits : int
        Digits of an operand.
    reverse : bool
        Write the answer with the last digit first, which needs no carry to be looked ahead.
    powers : bool
        Only 2, 4, 8, ... operands, as in the paper: ``addition:powers=true`` with ``length=32`` and
        difficulties (2, 32) is its mixture.

    References
    ----------
    Saunshi et al., "Reasoning with Latent Thoughts: On the Power of Looped Transformers",
    arXiv 2502.17416: ``315 + 120 + 045 + 824 =`` gives ``1304`` (there with spaces).
    """

    name = "addition"
    title = "addition of several numbers without intermediate steps"
    source = "Saunshi et al., arXiv 2502.17416 (n-ary addition)"
    characters = "0123456789+=._"
    pad = "_"
    length_unit = "operands at most"
    difficulty_unit = "operands"
    default_length = 8
    difficulty_range = (2, 8)

    def __init__(self, *, digits: int = 3, reverse: bool = False, powers: bool = False) -> None:
        if not 1 <= digits <= 9:
            raise InputError(f"Task 'addition' has operands of 1..9 digits; got {digits}.")
        self.digits, self.reverse, self.powers = digits, reverse, powers
        operand = rf"\d{{{digits}}}"
        self._pattern = re.compile(rf"({operand}(?:\+{operand})+)=(\d*)")

    @property
    def form(self) -> str:
        """A sentence that says what a well-formed text looks like."""
        order = "last digit first" if self.reverse else "first digit first"
        example = "+".join(f"{number:0{self.digits}d}" for number in (1, 2)) + "=3"
        return (
            f"A text is at least two operands of {self.digits} digits with '+' between them, '=', "
            f"and as much of the right answer, {order}, as is given, such as '{example}'."
        )

    def draw(
        self, rng: np.random.Generator, batch: int, length: int, difficulty: tuple[int, int]
    ) -> Tokens:
        """Draw sums; the width of the batch is that of its longest row."""
        low, high = difficulty[0], min(difficulty[1], length)
        check_fits(low, high, f"A sum of at most {length} operands", "of them")
        if self.powers:
            low, top = (max(low, 2) - 1).bit_length(), high.bit_length() - 1
            check_fits(2**low, high, f"A sum of at most {high} operands", "of them")
            numbers = 2 ** spread_levels(rng, batch, low, top)
        else:
            numbers = spread_levels(rng, batch, max(low, 2), high)
        operands = rng.integers(10**self.digits, size=(batch, high))
        return self._texts.stack(
            [
                self.encode(self._write(row[:number]))
                for row, number in zip(operands.tolist(), numbers.tolist(), strict=True)
            ]
        )

    def label_row(self, row: Tokens, targets: Tokens, difficulty: NDArray[np.float64]) -> bool:
        """Write the digits of the sum; see :meth:`RowTask.label_row`."""
        found = self._pattern.fullmatch(self.decode(row))
        operands = [int(word) for word in found[1].split("+")] if found else []
        answer = self._answer(operands)
        if not found or not answer.startswith(found[2]):
            return False
        first, given = len(found[1]), len(found[2])
        targets[first : first + given + 1] = self.encode(answer[: given + 1])
        difficulty[first : first + given + 1] = len(operands)
        return True

    def _answer(self, operands: list[int]) -> str:
        written = str(sum(operands))
        return (written[::-1] if self.reverse else written) + END

    def _write(self, operands: list[int]) -> str:
        question = "+".join(f"{number:0{self.digits}d}" for number in operands)
        return f"{question}={self._answer(operands).removesuffix(END)}"

    def _check_bounds(self, low: int, high: int) -> None:
        super()._check_bounds(low, high)
        if high < 2:
            raise InputError(f"Task 'addition' has at least 2 operands; got {high}.")
