"""Group composition: read elements of a finite group and keep their product.

A text is elements in one-line notation, ``231 213 132``; the target at each element is the product
of all elements so far. Two elements of S3 and of larger groups do not commute, so order matters.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np
from numpy.typing import ArrayLike

from looplens.errors import named
from looplens.tasks.base import NO_TARGET, Batch, Tokens
from looplens.tasks.running import RunningTask

# Degree, and whether only the even permutations belong to the group.
GROUPS = {"S3": (3, False), "S4": (4, False), "A4": (4, True), "A5": (5, True), "S5": (5, False)}


class Group(RunningTask):
    """Prefix products in a permutation group.

    ``231`` sends 1 to 2, 2 to 3 and 3 to 1. In a product the element on the left acts first:
    ``231 213`` multiplies to ``132``, because 1 goes to 2 and then to 1. ``difficulty`` is the
    number of elements in the product, so a sequence holds every difficulty from 1 to its length.
    Elements are independent and uniform, and so is every product.

    Parameters
    ----------
    of : str
        The group: S3, S4, A4, A5 or S5. A5 and S5 are not solvable.
    chain : bool
        Write the products after ``=``, each the target of the token before: explicit intermediate
        steps. The text ends with the last product but one.

    References
    ----------
    Saunshi et al., arXiv 2502.17416 (group composition: ceil(log2 n) loops are enough);
    Zhang et al., arXiv 2607.20594 (running products at every position).
    """

    name = "group"
    title = "running products in a permutation group"
    source = "Saunshi et al., arXiv 2502.17416; Zhang et al., arXiv 2607.20594"
    length_unit = "elements"
    difficulty_unit = "elements multiplied"
    default_length = 16
    difficulty_range = (1, 16)

    def __init__(self, *, of: str = "S3", chain: bool = False) -> None:
        degree, even = named(of, GROUPS, "group")
        self.of, self.chain = of, chain
        elements = [p for p in permutations(range(degree)) if not even or _is_even(p)]
        self.words = tuple("".join(str(place + 1) for place in p) for p in elements)
        self.equals = len(self.words)  # the id of "="
        self.words += ("=",) if chain else ()
        table = np.array(elements)  # (element, place)
        number = {p: i for i, p in enumerate(elements)}
        # product[a, b] is a first and then b.
        self.product = np.array(
            [[number[tuple(b[a].tolist())] for b in table] for a in table], dtype=np.int64
        )

    @property
    def form(self) -> str:
        """A sentence that says what a well-formed text looks like."""
        last, second = self.words[self.equals - 1], self.words[1]
        more = f" = {last}', ending with '=' and all products but the last" if self.chain else "'"
        return (
            f"A text is elements of {self.of} as rearranged digits, such as '{last} {second}{more}."
        )

    def draw(
        self, rng: np.random.Generator, batch: int, length: int, difficulty: tuple[int, int]
    ) -> Tokens:
        """Draw sequences of shape (batch, length), twice as long with written products."""
        elements = rng.integers(self.equals, size=(batch, length))
        if not self.chain:
            return elements
        equals = np.full((batch, 1), self.equals)
        return np.concatenate([elements, equals, self._products(elements)[:, :-1]], axis=1)

    def label(self, tokens: ArrayLike) -> Batch:
        """Label sequences with their prefix products; see :class:`Group`."""
        ids = self._as_tokens(tokens)
        count = ids.shape[1] // 2 if self.chain else ids.shape[1]
        elements, written = ids[:, :count], ids[:, count:]
        if self.chain and ids.shape[1] != 2 * max(count, 1):
            self._reject(ids, np.ones(len(ids), dtype=bool))
        self._reject(ids, (elements == self.equals).any(axis=1))
        products = self._products(elements)
        level = np.broadcast_to(np.arange(1.0, count + 1), elements.shape)
        if self.chain:
            right = (written[:, 1:] == products[:, :-1]).all(axis=1)
            self._reject(ids, (written[:, 0] != self.equals) | ~right)
            products = np.concatenate([np.full_like(elements, NO_TARGET), products], axis=1)
            level = np.concatenate([np.full(elements.shape, np.nan), level], axis=1)
        return Batch(tokens=ids, targets=products, metadata={"difficulty": level.copy()})

    def _products(self, elements: Tokens) -> Tokens:
        products = elements.copy()
        for place in range(1, elements.shape[1]):
            products[:, place] = self.product[products[:, place - 1], elements[:, place]]
        return products


def _is_even(permutation: tuple[int, ...]) -> bool:
    pairs = [
        first > second for i, first in enumerate(permutation) for second in permutation[i + 1 :]
    ]
    return sum(pairs) % 2 == 0
