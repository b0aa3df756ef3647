"""Pointer chasing: a map is given as pairs of letters, and its arrows are to be followed.

``acbdcbda?2a`` says a to c, b to d, c to b, d to a, and asks where 2 steps from a lead: to b.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from looplens.errors import InputError
from looplens.tasks.base import Tokens
from looplens.tasks.batch import spread_levels
from looplens.tasks.rows import RowTask

LETTERS = "abcdefghijklmnopqrs"  # 2 * MOST_STEPS + 1
MOST_STEPS = 9
ASK = len(LETTERS) + MOST_STEPS  # the id of '?'


class Pointers(RowTask):
    """Follow the arrows of a single cycle over ``length`` letters for some steps.

    The arrows are listed in random order, then comes ``?``, the number of steps and the start.
    ``difficulty`` is the number of steps, spread evenly over a batch. A cycle has more than twice
    as many letters: of fewer, going back against the arrows would be as short or shorter, and in a
    cycle of 10 letters a single step back answers for 9. The target is at the start letter.

    Parameters
    ----------
    questions : int
        Questions about one map, each with its own start; the steps are those of the sequence.
    chain : bool
        Write the letters on the way after the start, each the target of the one before: explicit
        intermediate steps. Rows of fewer steps are padded. With one question only.

    References
    ----------
    Pointer chasing in context, as in the theory of loops and steps written out: Saunshi et al.,
    arXiv 2502.17416; Zhu et al., arXiv 2510.25741 (graph reachability).
    """

    name = "pointers"
    title = "pointer chasing along a cycle given in the text"
    source = "Saunshi et al., arXiv 2502.17416; Zhu et al. (Ouro), arXiv 2510.25741"
    characters = LETTERS + "123456789?_"
    pad = "_"
    length_unit = "letters"
    difficulty_unit = "steps"
    default_length = len(LETTERS)
    difficulty_range = (1, MOST_STEPS)

    def __init__(self, *, questions: int = 1, chain: bool = False) -> None:
        if questions < 1 or (chain and questions > 1):
            raise InputError(
                "Task 'pointers' asks at least 1 question, and exactly 1 with chain=true; got "
                f"questions={questions}, chain={str(chain).lower()}."
            )
        self.questions, self.chain = questions, chain

    @property
    def form(self) -> str:
        """A sentence that says what a well-formed text looks like."""
        more = ", and the letters on the way" if self.chain else ""
        return (
            f"A text is pairs of letters of {LETTERS!r}, one for each letter that occurs, and "
            f"questions of '?', a digit 1..{MOST_STEPS} and a letter{more}, such as "
            f"'acbdcbda?2a{'c' if self.chain else ''}'."
        )

    def draw(
        self, rng: np.random.Generator, batch: int, length: int, difficulty: tuple[int, int]
    ) -> Tokens:
        """Draw one cycle and its questions for each row."""
        low, high = difficulty[0], min(difficulty[1], (length - 1) // 2)
        if not 3 <= length <= len(LETTERS) or low > high:
            raise InputError(
                f"Task 'pointers' has 3..{len(LETTERS)} letters, at least 2 * steps + 1; got "
                f"length={length}, difficulty from {low}."
            )
        rows = np.arange(batch)[:, None]
        cycle = rng.random((batch, len(LETTERS))).argsort(axis=1)[:, :length]
        pairs = np.stack([cycle, np.roll(cycle, -1, axis=1)], axis=2)  # (batch, letter, 2)
        pairs = pairs[rows, rng.random((batch, length)).argsort(axis=1)].reshape(batch, -1)
        steps = spread_levels(rng, batch, low, high)
        # Different starts where there are enough letters.
        turns = -(-self.questions // length)
        starts = np.tile(rng.random((batch, length)).argsort(axis=1), turns)[:, : self.questions]
        asked = np.empty((batch, self.questions, 3), dtype=np.int64)
        asked[..., 0] = ASK
        asked[..., 1] = len(LETTERS) + steps[:, None] - 1
        asked[..., 2] = cycle[rows, starts]
        tokens = np.concatenate([pairs, asked.reshape(batch, -1)], axis=1)
        if not self.chain:
            return tokens
        ways = (starts + np.arange(1, high)) % length  # (batch, step), with one start a row
        return self._texts.stack(
            [[*tokens[i], *cycle[i, ways[i, : steps[i] - 1]]] for i in range(batch)]
        )

    def label_row(self, row: Tokens, targets: Tokens, difficulty: NDArray[np.float64]) -> bool:
        """Write the places that questions lead to; see :meth:`RowTask.label_row`."""
        asked = np.flatnonzero(row == ASK)
        if not len(asked) or asked[0] % 2 or (self.chain and len(asked) > 1):
            return False
        letters = row[: asked[0]].tolist()
        goes = dict(zip(letters[0::2], letters[1::2], strict=True))
        if 2 * len(goes) != len(letters) or max(letters, default=ASK) >= len(LETTERS):
            return False
        for first, end in zip(asked, [*asked[1:], len(row)], strict=True):
            size = end - first
            steps = int(row[first + 1]) - len(LETTERS) + 1 if size > 2 else 0
            if not 1 <= steps <= MOST_STEPS or (size > 3 and not self.chain) or size > 2 + steps:
                return False
            place = int(row[first + 2])
            for taken in range(steps):
                at = first + 2 + taken  # with a chain, where this step is written
                if place not in goes or (self.chain and at < end and row[at] != place):
                    return False
                place = goes[place]
                if self.chain and at < end:
                    targets[at], difficulty[at] = place, steps
            if not self.chain:
                targets[first + 2], difficulty[first + 2] = place, steps
        return True

    def _check_bounds(self, low: int, high: int) -> None:
        super()._check_bounds(low, high)
        if high > MOST_STEPS:
            raise InputError(f"Task 'pointers' has at most {MOST_STEPS} steps; got {high}.")
