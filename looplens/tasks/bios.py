"""bioS: short biographies of made-up people, to count how many bits a model can store.

A text is ``bio``, a name of three words and eight values, always in the same order. Every token has
the next one as its target: the values follow from the name, and the names themselves have to be
learned too. What a model stored is counted by :meth:`Bios.stored_bits` from its losses.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from looplens.errors import InputError, named
from looplens.tasks.base import NO_TARGET, Batch, Task, Tokens
from looplens.tasks.names import made_up

START = "bio"
NAME_PARTS = 3
MONTHS = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)
# How many first, middle and last names there are, and then how many values of: pronoun, month, day,
# year, city, university, major, employer. The paper's numbers give 47.6 bits of values a person.
SPACES = {
    "small": (20, 20, 50, 2, 12, 28, 20, 20, 20, 10, 20),
    "paper": (400, 400, 1000, 2, 12, 28, 200, 200, 300, 100, 263),
}
FIRST_YEAR = 1800


class Bios(Task):
    """Biographies with a pronoun and five attributes: birthday, city, university, major, employer.

    ``bio Bada Dafami Faguson she Oct 2 1812 Fagaville Gakauni Kalalogy Lamaco`` tells of one
    person; people are drawn uniformly, and the values of each were drawn uniformly, once and for
    all, by ``world``. The target of each token but the last is the token after it. A text may end
    early.
    ``difficulty`` is 1 everywhere; the metadata column ``place`` is 1, 2, 3 where a part of the
    name is predicted and 4 to 11 at the values.

    Parameters
    ----------
    people : int
        How many people there are.
    space : {"small", "paper"}
        How many names and values to choose from, see ``SPACES``: 30.0 or 47.6 bits of values.
    world : int
        Seed of the names and values.

    References
    ----------
    Allen-Zhu & Li, "Physics of Language Models: Part 3.3, Knowledge Capacity Scaling Laws",
    arXiv 2404.05405 (bioS), as used by Zhu et al., arXiv 2510.25741 (five attributes). The
    sentences around the values are left out here, and names and values are made-up words.
    """

    name = "bios"
    title = "biographies that count stored bits (bioS)"
    source = "Allen-Zhu & Li, arXiv 2404.05405, bioS; Zhu et al., arXiv 2510.25741"
    length_unit = "biographies"
    difficulty_unit = "facts"
    default_length = 1
    difficulty_range = (1, 1)

    def __init__(self, *, people: int = 1000, space: str = "small", world: int = 0) -> None:
        self.sizes = named(space, SPACES, "bios space")
        self.name_space = math.prod(self.sizes[:NAME_PARTS])
        if not 1 <= people <= self.name_space:
            raise InputError(
                f"Task 'bios' has 1 to {self.name_space} people in the space {space!r}; "
                f"got {people}."
            )
        self.people = people
        kinds = _kinds(self.sizes)
        self.words = (START, *(word for kind in kinds for word in kind))
        self._starts = np.cumsum([1, *self.sizes])[:-1]  # the first id of each kind of word
        rng = np.random.default_rng(world)
        self._codes = np.sort(rng.choice(self.name_space, size=people, replace=False))
        parts = np.unravel_index(self._codes, self.sizes[:NAME_PARTS])
        values = [rng.integers(size, size=people) for size in self.sizes[NAME_PARTS:]]
        words = np.stack([*parts, *values], axis=1) + self._starts
        # All texts, (people, position)
        self.biographies: Tokens = np.pad(words, ((0, 0), (1, 0))).astype(np.int64)

    @property
    def form(self) -> str:
        """A sentence that says what a well-formed text looks like."""
        return (
            "A text is biographies of people that there are, the last one perhaps cut short, such "
            f"as '{' '.join(self.words[word] for word in self.biographies[0])}'."
        )

    @property
    def value_bits(self) -> float:
        """Bits of the values of one person: the base-2 logarithm of how many there could be."""
        return float(np.log2(self.sizes[NAME_PARTS:]).sum())

    @property
    def most_bits(self) -> float:
        """Bits of everything that there is to know."""
        return self.stored_bits(math.log(self.people), 0.0)

    def stored_bits(self, name_nats: float, value_nats: float) -> float:
        """Return how many bits a model with these losses has stored.

        ``people * (log2(N0 / e^name_nats) + log2(S0 / e^value_nats))`` with the name space ``N0``
        and the value space ``S0``; a part that is worse than guessing counts nothing.

        Parameters
        ----------
        name_nats, value_nats : float
            Loss summed over the parts of the name and over the values, mean over people, in nats.
            No model of all the names gets below ``log(people)`` at the first.

        References
        ----------
        Allen-Zhu & Li, arXiv 2404.05405, the bit complexity of bioS.
        """
        names = math.log2(self.name_space) - name_nats / math.log(2)
        values = self.value_bits - value_nats / math.log(2)
        return self.people * (max(names, 0.0) + max(values, 0.0))

    def held_out(self) -> Task | None:
        """Return None: every biography is there to be learned."""
        return None

    def draw(
        self, rng: np.random.Generator, batch: int, length: int, difficulty: tuple[int, int]
    ) -> Tokens:
        """Draw biographies, shape (batch, 12 * length)."""
        return self.biographies[rng.integers(self.people, size=(batch, length))].reshape(batch, -1)

    def label(self, tokens: ArrayLike) -> Batch:
        """Label biographies exactly; see :class:`Bios` for the definition."""
        ids = self._as_tokens(tokens)
        targets = np.full_like(ids, NO_TARGET)
        bad = np.zeros(len(ids), dtype=bool)
        size = self.biographies.shape[1]
        for start in range(0, ids.shape[1], size):
            part = ids[:, start : start + size]
            told = part.shape[1]
            bad |= (part[:, 0] != 0) | ~self._are_names(part[:, 1 : 1 + NAME_PARTS]).all(axis=1)
            targets[:, start : start + told - 1] = part[:, 1:]
            if told > NAME_PARTS:
                person = self._find(part[:, 1 : 1 + NAME_PARTS])
                known = self.biographies[np.maximum(person, 0)]
                bad |= (person < 0) | (part != known[:, :told]).any(axis=1)
                targets[:, start : start + told] = np.pad(
                    known[:, 1:], ((0, 0), (0, 1)), constant_values=NO_TARGET
                )[:, :told]
        self._reject(ids, bad)
        place = np.broadcast_to(1.0 + np.arange(ids.shape[1]) % size, ids.shape)
        nowhere = targets == NO_TARGET
        return Batch(
            tokens=ids,
            targets=targets,
            metadata={
                "difficulty": np.where(nowhere, np.nan, 1.0),
                "place": np.where(nowhere, np.nan, place),
            },
        )

    def _are_names(self, parts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say whether words are first, middle and last names, in this order."""
        kinds = parts.shape[1]
        index = parts - self._starts[:kinds]
        return (index >= 0) & (index < np.array(self.sizes[:kinds]))

    def _find(self, parts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the person of each name, -1 where there is none of that name."""
        index = np.where(self._are_names(parts), parts - self._starts[:NAME_PARTS], 0)
        code = np.ravel_multi_index(tuple(index.T), self.sizes[:NAME_PARTS])
        place = np.minimum(np.searchsorted(self._codes, code), self.people - 1)
        return np.where(self._codes[place] == code, place, -1)


def _kinds(sizes: tuple[int, ...]) -> list[tuple[str, ...]]:
    """Return the words of each kind, all distinct."""
    first, middle, last, pronoun, month, day, year, city, university, major, employer = sizes
    return [
        made_up(first),
        made_up(middle, "mi"),
        made_up(last, "son"),
        ("she", "he")[:pronoun],
        MONTHS[:month],
        tuple(str(1 + i) for i in range(day)),
        tuple(str(FIRST_YEAR + i) for i in range(year)),
        made_up(city, "ville"),
        made_up(university, "uni"),
        made_up(major, "logy"),
        made_up(employer, "co"),
    ]
