"""Problems of i-GSM: a graph of numbers that are defined from each other, modulo 7.

A number counts the things of one kind in each thing of the kind above it, as "the I's in each E".
Definitions are drawn, ordered and solved here; how a problem is written is in ``igsm_text``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

MODULUS = 7
LAYERS = ("ABCD", "EFGH", "IJKL", "MNOP")
# (holder, held) for each pair of neighbouring layers: 3 * 4 * 4 = 48 numbers to define.
NUMBERS = tuple((a, b) for above, below in pairwise(LAYERS) for a in above for b in below)
MOST_TERMS = 3

Term = tuple[int, int]
"""A factor 1..6 (negative where it is subtracted) and a place in ``NUMBERS``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Definition:
    """One number, defined as a constant or as a sum of multiples of other numbers.

    Attributes
    ----------
    number : int
        What is defined: a place in ``NUMBERS``.
    constant : int
        Its value where there are no terms.
    terms : tuple of Term
        What its value is summed from.
    """

    number: int
    constant: int = 0
    terms: tuple[Term, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Definitions in the order of the text, and the numbers that are asked for.

    Attributes
    ----------
    definitions : tuple of Definition
        In any order: a number may be used before it is defined.
    questions : tuple of int
        Places in ``NUMBERS``.
    """

    definitions: tuple[Definition, ...]
    questions: tuple[int, ...]

    def solve(self) -> tuple[dict[int, int], dict[int, int], dict[int, set[int]]]:
        """Return the value, the steps and the needed numbers of each defined number.

        The steps of a number are the definitions on the longest chain from it down to a constant,
        itself included; the needed numbers are all those that its value depends on, and itself.

        Raises
        ------
        ValueError
            When a number is defined twice, used without a definition, or depends on itself.
        """
        definitions = {entry.number: entry for entry in self.definitions}
        if len(definitions) < len(self.definitions):
            raise ValueError("a number is defined twice")
        value: dict[int, int] = {}
        steps: dict[int, int] = {}
        needed: dict[int, set[int]] = {}
        waiting = list(self.definitions)
        while waiting:
            later = []
            for entry in waiting:
                used = [number for _, number in entry.terms]
                if not all(number in value for number in used):
                    later.append(entry)
                    continue
                total = entry.constant + sum(
                    factor * value[number] for factor, number in entry.terms
                )
                value[entry.number] = total % MODULUS
                steps[entry.number] = 1 + max((steps[number] for number in used), default=0)
                needed[entry.number] = {entry.number}.union(*(needed[number] for number in used))
            if len(later) == len(waiting):
                raise ValueError("a number is used without a definition, or depends on itself")
            waiting = later
        if not all(number in value for number in self.questions):
            raise ValueError("a number is asked for without a definition")
        return value, steps, needed


def draw_problem(
    rng: np.random.Generator,
    *,
    definitions: int,
    steps: tuple[int, int],
    questions: int = 1,
    shuffled: bool = True,
) -> Problem:
    """Draw a problem.

    Every definition is given a level from 1 to the most steps. Level 1 are constants; a definition
    of a higher level uses one number of the level below, and up to two more from any lower level,
    so that its level is its number of steps.

    Parameters
    ----------
    rng : numpy.random.Generator
        The source of randomness.
    definitions : int
        How many numbers are defined: from ``steps[1]`` to 48.
    steps : (int, int)
        The least and the most steps of the numbers that are asked for. One of them has the most.
    questions : int
        How many numbers are asked for; fewer where not so many have enough steps.
    shuffled : bool
        Lay the definitions in random order; otherwise every number is defined before it is used.

    References
    ----------
    After Ye et al., arXiv 2407.20311, and Saunshi et al., arXiv 2502.17416, whose samplers are not
    published in full; the levels are ours.
    """
    low, high = steps
    levels = np.sort(np.r_[1 : high + 1, rng.integers(1, high + 1, size=definitions - high)])
    numbers = rng.choice(len(NUMBERS), size=definitions, replace=False)
    entries = []
    for place, level in enumerate(levels):
        if level == 1:
            entry = Definition(number=int(numbers[place]), constant=int(rng.integers(MODULUS)))
        else:
            below = numbers[levels == level - 1]
            lower = rng.permutation(numbers[levels < level])
            first = int(rng.choice(below))
            count = int(rng.integers(1, MOST_TERMS + 1))
            others = [int(number) for number in lower if number != first][: count - 1]
            used = [int(number) for number in rng.permutation([first, *others])]
            entry = Definition(number=int(numbers[place]), terms=_with_factors(rng, used))
        entries.append(entry)
    if shuffled:
        entries = [entries[place] for place in rng.permutation(definitions)]
    hardest = rng.permutation(numbers[levels == high])
    enough = rng.permutation(numbers[(levels >= low) & (numbers != hardest[0])])
    asked = rng.permutation(np.r_[hardest[:1], enough[: questions - 1]])
    return Problem(definitions=tuple(entries), questions=tuple(map(int, asked)))


def _with_factors(rng: np.random.Generator, numbers: Sequence[int]) -> tuple[Term, ...]:
    """Give each number a factor: mostly 1, else 2..6; all but the first may be subtracted."""
    terms = []
    for place, number in enumerate(numbers):
        factor = int(rng.integers(2, MODULUS)) if rng.random() < 0.25 else 1
        minus = place > 0 and rng.random() < 0.5
        terms.append((-factor if minus else factor, int(number)))
    return tuple(terms)
