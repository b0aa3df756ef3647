"""p-hop induction: follow the chain "what came after the last time I saw this letter" p times.

A text is one digit, the number of hops p, and then letters: ``3abcadbca``. Every letter from which
p hops exist has a target, or the last one only, as in the paper. How a model finds the answer is
none of this module's business.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from looplens.errors import InputError
from looplens.tasks.base import NO_TARGET, Batch, Task, Tokens
from looplens.tasks.batch import spread_levels
from looplens.tasks.phop_chain import draw_chain, least_letters

LETTERS = "abcd"
MARKS = "123456789ABCDEFGHIJKLMNOPQRSTUVW"  # the hops 1..32 in one character each


class PHop(Task):
    """p-hop induction with a target at every position where p hops exist.

    With letters ``v_1 .. v_n``, ``find_1(v, i) = max({0} u {j <= i : v_(j-1) = v_i})``,
    ``find_p(v, i) = find_1(v, find_(p-1)(v, i))``, and the target at letter ``i`` is the letter
    ``v_find_p(v, i)``; it is undefined when ``find_p`` is 0. ``difficulty`` is the number of hops
    p. Letters are independent and uniform, hops are spread evenly over the sequences of a batch.

    Parameters
    ----------
    last : bool
        Only the last letter has a target, and texts are drawn so that p hops exist, see
        :func:`looplens.tasks.phop_chain.draw_chain`. This is the problem of the paper, there with
        256 letters and p of 16 or 32: ``phop:last=true,hops=32``.
    hops : int
        The most hops, up to 32. Hops from 10 on are written A, B, .. W.

    References
    ----------
    Saunshi et al., "Reasoning with Latent Thoughts: On the Power of Looped Transformers",
    arXiv 2502.17416, the p-hop induction problem.
    """

    name = "phop"
    title = "p-hop induction over four letters"
    source = "Saunshi et al., arXiv 2502.17416 (p-hop induction)"
    length_unit = "letters"
    difficulty_unit = "hops"
    default_length = 48

    def __init__(self, *, last: bool = False, hops: int = 8) -> None:
        if not 1 <= hops <= len(MARKS):
            raise InputError(f"Task 'phop' has 1 to {len(MARKS)} hops; got hops={hops}.")
        self._last, self._hops = last, hops
        self.characters = MARKS[:hops] + LETTERS
        self.difficulty_range = (1, hops)
        if last:
            self.default_length = max(48, 8 * hops)  # 256 for 32 hops, as in the paper

    @property
    def form(self) -> str:
        """A sentence that says what a well-formed text looks like."""
        return (
            f"A text is one digit 1..{MARKS[self._hops - 1]} (the hops) and then letters of "
            f"{LETTERS!r}, such as '1abcadbca'."
        )

    def sample(
        self,
        rng: np.random.Generator,
        batch: int,
        *,
        length: int | None = None,
        difficulty: int | tuple[int, int] | None = None,
    ) -> Batch:
        """Draw labelled sequences; the arguments are those of :meth:`looplens.tasks.Task.sample`.

        Raises
        ------
        InputError
            When ``last`` is set and the letters are too few for the hops.
        """
        letters = self.default_length if length is None else length
        high = self._difficulty_bounds(difficulty)[1]
        if self._last and 1 <= letters < least_letters(high):
            raise InputError(
                f"{high} hops from the last letter need {least_letters(high)} letters; got "
                f"length={letters}."
            )
        return super().sample(rng, batch, length=length, difficulty=difficulty)

    def draw(
        self, rng: np.random.Generator, batch: int, length: int, difficulty: tuple[int, int]
    ) -> Tokens:
        """Draw sequences of shape (batch, 1 + length)."""
        low, high = difficulty
        hops = spread_levels(rng, batch, low, high)
        if self._last:
            letters = self._hops + np.stack([draw_chain(rng, length, int(p)) for p in hops])
        else:
            letters = rng.integers(self._hops, len(self.characters), size=(batch, length))
        return np.concatenate([hops[:, None] - 1, letters], axis=1)

    def label(self, tokens: ArrayLike) -> Batch:
        """Label sequences of one length exactly; see :class:`PHop` for the definition."""
        ids = self._as_tokens(tokens)
        letters = ids[:, 1:] - self._hops
        self._reject(ids, (ids[:, 0] >= self._hops) | (letters < 0).any(axis=1))
        if letters.shape[1] == 0:
            self._reject(ids, np.ones(len(ids), dtype=bool))
        hops = ids[:, 0] + 1
        place = find_hop(letters, hops)  # (batch, letter), -1 where undefined
        answers = np.take_along_axis(ids[:, 1:], np.maximum(place, 0), axis=1)
        targets = np.full_like(ids, NO_TARGET)
        targets[:, 1:] = np.where(place >= 0, answers, NO_TARGET)
        if self._last:
            targets[:, :-1] = NO_TARGET
        difficulty = np.where(targets == NO_TARGET, np.nan, hops[:, None].astype(np.float64))
        return Batch(tokens=ids, targets=targets, metadata={"difficulty": difficulty})

    def _check_bounds(self, low: int, high: int) -> None:
        super()._check_bounds(low, high)
        if high > self._hops:
            raise InputError(f"Task 'phop' has at most {self._hops} hops; got {high}.")


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
