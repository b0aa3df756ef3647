"""Made-up names: as many distinct words as a task needs, the same ones every time."""

from __future__ import annotations

from looplens.errors import InputError

_CONSONANTS = "bdfgklmnprstvz"
_VOWELS = "aeiou"
SYLLABLES = tuple(c + v for v in _VOWELS for c in _CONSONANTS)  # 70, neighbours differ
MOST_NAMES = len(SYLLABLES) ** 2


def made_up(count: int, ending: str = "") -> tuple[str, ...]:
    """Return the first ``count`` names of two syllables and an ending, such as ``Bada``, ``Dafa``.

    Raises
    ------
    InputError
        When more are asked for than there are.
    """
    if not 1 <= count <= MOST_NAMES:
        raise InputError(f"There are 1 to {MOST_NAMES} made-up names of a kind; got {count}.")
    size = len(SYLLABLES)
    names = []
    for i in range(count):
        first, lap = i % size, i // size
        names.append((SYLLABLES[first] + SYLLABLES[(first + 1 + lap) % size]).capitalize() + ending)
    return tuple(names)
