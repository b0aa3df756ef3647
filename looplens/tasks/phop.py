"""p-hop induction: follow the chain "what came after the last time I saw this letter" p times.

A text is one digit, the number of hops p, and then letters: ``3abcadbca``. Every letter from which
p hops exist has a target. How a model finds the answer is none of this module's business.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from looplens.errors import InputError
from looplens.tasks.base import NO_TARGET, Batch, Task, Tokens

LETTERS = "abcd"
MAX_HOPS = 8


class PHop(Task):
    """p-hop induction with a target at every position where p hops exist.

    With letters ``v_1 .. v_n``, ``find_1(v, i) = max({0} u {j <= i : v_(j-1) = v_i})``,
    ``find_p(v, i) = find_1(v, find_(p-1)(v, i))``, and the target at letter ``i`` is the letter
    ``v_find_p(v, i)``; it is undefined when ``find_p`` is 0. ``difficulty`` is the number of hops
    p. Letters are independent and uniform, hops are spread evenly over the sequences of a batch.

    References
    ----------
    Saunshi et al., "Reasoning with Latent Thoughts: On the Power of Looped Transformers",
    arXiv 2502.17416, the p-hop induction problem (there with the answer of the last position only).
    """

    name: ClassVar[str] = "phop"
    title: ClassVar[str] = "p-hop induction over four letters"
    characters: ClassVar[str] = "12345678" + LETTERS
    length_unit: ClassVar[str] = "letters"
    difficulty_unit: ClassVar[str] = "hops"
    default_length: ClassVar[int] = 48
    difficulty_range: ClassVar[tuple[int, int]] = (1, MAX_HOPS)

    @property
    def form(self) -> str:
        """A sentence that says what a well-formed text looks like."""
        return (
            f"A text is one digit 1..{MAX_HOPS} (the hops) and then letters of {LETTERS!r}, "
            "such as '2abcadbca'."
        )

    def draw(
        self, rng: np.random.Generator, batch: int, length: int, difficulty: tuple[int, int]
    ) -> Tokens:
        """Draw sequences of shape (batch, 1 + length)."""
        low, high = difficulty
        # Evenly spread hops: a small batch would otherwise often miss a difficulty altogether.
        levels = np.arange(batch) + rng.integers(high - low + 1)
        hops = rng.permutation(low + levels % (high - low + 1))
        letters = rng.integers(MAX_HOPS, len(self.characters), size=(batch, length))
        return np.concatenate([hops[:, None] - 1, letters], axis=1)

    def label(self, tokens: ArrayLike) -> Batch:
        """Label sequences of one length exactly; see :class:`PHop` for the definition."""
        ids = self._as_tokens(tokens)
        letters = ids[:, 1:] - MAX_HOPS
        self._reject(ids, (ids[:, 0] >= MAX_HOPS) | (letters < 0).any(axis=1))
        if letters.shape[1] == 0:
            self._reject(ids, np.ones(len(ids), dtype=bool))
        hops = ids[:, 0] + 1
        place = find_hop(letters, hops)  # (batch, letter), -1 where undefined
        answers = np.take_along_axis(ids[:, 1:], np.maximum(place, 0), axis=1)
        targets = np.full_like(ids, NO_TARGET)
        targets[:, 1:] = np.where(place >= 0, answers, NO_TARGET)
        difficulty = np.where(targets == NO_TARGET, np.nan, hops[:, None].astype(np.float64))
        return Batch(tokens=ids, targets=targets, metadata={"difficulty": difficulty})

    def _check_bounds(self, low: int, high: int) -> None:
        super()._check_bounds(low, high)
        if high > MAX_HOPS:
            raise InputError(f"Task 'phop' has at most {MAX_HOPS} hops; got {high}.")


def find_hop(letters: NDArray[np.int64], hops: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the 0-based place that ``hops`` hops lead to from every letter, -1 for none.

    Parameters
    ----------
    letters : ndarray of int64, shape (batch, letter)
        Values 0..3.
    hops : ndarray of int64, shape (batch,)
        The number of hops of each sequence, at least 1.
    """
    batch, length = letters.shape
    place = np.arange(length)
    seen = letters[..., None] == np.arange(len(LETTERS))  # (batch, letter, alphabet)
    latest = np.maximum.accumulate(np.where(seen, place[:, None], -2), axis=1)
    before = np.full_like(latest, -2)
    before[:, 1:] = latest[:, :-1]  # the last occurrence strictly before each place
    one_hop = np.take_along_axis(before, letters[..., None], axis=2)[..., 0] + 1
    result = np.broadcast_to(place, (batch, length)).copy()
    for hop in range(int(hops.max())):
        further = np.take_along_axis(one_hop, np.maximum(result, 0), axis=1)
        result = np.where((hops > hop)[:, None] & (result >= 0), further, result)
    return result
