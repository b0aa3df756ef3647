"""Group composition: read elements of a finite group and keep their product.

A text is elements in one-line notation, ``231 213 132``; the target at each element is the product
of all elements so far. Two elements of S3 and of larger groups do not commute, so order matters.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np
from numpy.typing import ArrayLike

from looplens.errors import InputError, named
from looplens.tasks.base import Batch, Task, Tokens

# Degree, and whether only the even permutations belong to the group.
GROUPS = {"S3": (3, False), "S4": (4, False), "A4": (4, True), "A5": (5, True), "S5": (5, False)}


class Group(Task):
    """Prefix products in a permutation group.

    ``231`` sends 1 to 2, 2 to 3 and 3 to 1. In a product the element on the left acts first:
    ``231 213`` multiplies to ``132``, because 1 goes to 2 and then to 1. ``difficulty`` is the
    number of elements in the product, so a sequence holds every difficulty from 1 to its length.
    Elements are independent and uniform, and so is every product.

    Parameters
    ----------
    of : str
        The group: S3, S4, A4, A5 or S5. A5 and S5 are not solvable.

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

    def __init__(self, *, of: str = "S3") -> None:
        degree, even = named(of, GROUPS, "group")
        self.of = of
        elements = [p for p in permutations(range(degree)) if not even or _is_even(p)]
        self.words = tuple("".join(str(place + 1) for place in p) for p in elements)
        table = np.array(elements)  # (element, place)
        number = {p: i for i, p in enumerate(elements)}
        # product[a, b] is a first and then b.
        self.product = np.array(
            [[number[tuple(b[a].tolist())] for b in table] for a in table], dtype=np.int64
        )

    @property
    def form(self) -> str:
        """A sentence that says what a well-formed text looks like."""
        return (
            f"A text is elements of {self.of} as rearranged digits, such as "
            f"'{self.words[-1]} {self.words[1]}'."
        )

    def sample(
        self,
        rng: np.random.Generator,
        batch: int,
        *,
        length: int | None = None,
        difficulty: int | tuple[int, int] | None = None,
    ) -> Batch:
        """Draw labelled sequences; without ``difficulty`` every element has a target.

        The arguments are those of :meth:`looplens.tasks.base.Task.sample`.
        """
        elements = self.default_length if length is None else length
        wanted = (1, max(elements, 1)) if difficulty is None else difficulty
        lowest = wanted if isinstance(wanted, int) else wanted[0]
        if lowest > elements >= 1:
            raise InputError(
                f"No position of a sequence of {elements} elements has difficulty {lowest}; ask "
                f"for length={lowest} or more."
            )
        return super().sample(rng, batch, length=elements, difficulty=wanted)

    def draw(
        self, rng: np.random.Generator, batch: int, length: int, difficulty: tuple[int, int]
    ) -> Tokens:
        """Draw sequences of shape (batch, length)."""
        return rng.integers(len(self.words), size=(batch, length))

    def label(self, tokens: ArrayLike) -> Batch:
        """Label sequences with their prefix products; see :class:`Group`."""
        ids = self._as_tokens(tokens)
        targets = ids.copy()
        for place in range(1, ids.shape[1]):
            targets[:, place] = self.product[targets[:, place - 1], ids[:, place]]
        level = np.arange(1.0, ids.shape[1] + 1)
        return Batch(
            tokens=ids,
            targets=targets,
            metadata={"difficulty": np.broadcast_to(level, ids.shape).copy()},
        )


def _is_even(permutation: tuple[int, ...]) -> bool:
    pairs = [
        first > second for i, first in enumerate(permutation) for second in permutation[i + 1 :]
    ]
    return sum(pairs) % 2 == 0
