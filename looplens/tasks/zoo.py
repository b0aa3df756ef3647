"""Lookups stand still, clocks turn, counters count: tokens with known regimes.

The right answer of a clock or a counter depends on how many iterations have run, so a model that
has learned this task has states with known regimes inside an ordinary looped transformer.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from looplens.errors import InputError
from looplens.tasks.base import Batch, Task, Tokens

LOOKUP, CLOCK, COUNTER = 1, 2, 3
READ_AT = 16


class Zoo(Task):
    """Lookups, clocks and counters side by side.

    After r iterations the answer at ``F3`` is a fixed number, at ``O3`` it is (3 + r) mod
    ``period``, and at ``S`` it is min(r, ``cap``). ``difficulty`` is the kind of the token: 1
    lookup, 2 clock, 3 counter. ``targets`` of batches and prompts hold for 16 iterations;
    :meth:`targets_at` gives those of any other number.

    Parameters
    ----------
    period : int
        Period of the clocks, 2 to 12.
    cap : int
        Where counters stop, at least 1.
    """

    name = "zoo"
    title = "lookups, clocks and counters: tokens with known regimes"
    source = "looplens: ground truth for regimes"
    length_unit = "tokens"
    difficulty_unit = "kinds of token (1 lookup, 2 clock, 3 counter)"
    default_length = 16
    difficulty_range = (1, 3)
    answers_move = True

    def __init__(self, *, period: int = 6, cap: int = 24) -> None:
        if not 2 <= period <= 12 or cap < 1:
            raise InputError(
                f"Task 'zoo' needs a period of 2..12 and a cap of at least 1; got {period}, {cap}."
            )
        self.period, self.cap = period, cap
        answers = tuple(str(number) for number in range(max(cap + 1, period)))
        self.words = (
            *answers,
            *(f"F{value}" for value in range(period)),
            *(f"O{value}" for value in range(period)),
            "S",
        )
        self._first = len(answers)  # the id of F0

    @property
    def form(self) -> str:
        """A sentence that says what a well-formed text looks like."""
        last = self.period - 1
        return f"A text is words F0..F{last}, O0..O{last} and S, such as 'F3 O2 S O5'."

    def draw(
        self, rng: np.random.Generator, batch: int, length: int, difficulty: tuple[int, int]
    ) -> Tokens:
        """Draw tokens of the wanted kinds, shape (batch, length)."""
        low, high = difficulty
        kinds = rng.integers(low, high + 1, size=(batch, length))
        values = rng.integers(self.period, size=(batch, length))
        values = np.where(kinds == COUNTER, 0, values)
        return self._first + (kinds - 1) * self.period + values

    def label(self, tokens: ArrayLike) -> Batch:
        """Label sequences with the answers after 16 iterations; see :class:`Zoo`."""
        ids = self._as_tokens(tokens)
        self._reject(ids, np.asarray((ids < self._first).any(axis=1)))
        kind = (ids - self._first) // self.period + 1
        return Batch(
            tokens=ids,
            targets=self._answers(ids, READ_AT),
            metadata={"difficulty": kind.astype(np.float64)},
        )

    def targets_at(self, batch: Batch, iteration: int) -> Tokens:
        """Return the answers after so many iterations, shape (batch, position)."""
        return np.where(batch.targets < 0, batch.targets, self._answers(batch.tokens, iteration))

    def lookup(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return what F tokens stand for, ``period - 1 - value``.

        Parameters
        ----------
        values : ndarray of int64
            The numbers behind the F, from 0 to ``period - 1``; any shape.
        """
        return self.period - 1 - values

    def _answers(self, ids: Tokens, iteration: int) -> Tokens:
        kind, value = np.divmod(ids - self._first, self.period)
        turned = (value + iteration) % self.period
        answers = np.where(kind + 1 == CLOCK, turned, min(iteration, self.cap))
        return np.where(kind + 1 == LOOKUP, self.lookup(value), answers)

    def _check_bounds(self, low: int, high: int) -> None:
        super()._check_bounds(low, high)
        if high > COUNTER:
            raise InputError(f"Task 'zoo' has the difficulties (kinds) 1..3; got {high}.")
