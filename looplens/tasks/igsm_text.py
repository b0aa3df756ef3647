"""How a problem of i-GSM is written and read: in symbols, or in English words.

In symbols, ``E#I := 2 * J#P - H#J .`` defines the I's in each E, and ``E#I ?`` asks for them. In
words, the same sentences are ``The number of each Studio 's Backpack equals 2 times each Satchel
's Ruler minus each Gymnasium 's Satchel .`` and ``How many Backpack does each Studio have ?``. One
word is one token. What the sentences mean is the business of ``igsm_problem``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

from looplens.tasks.igsm_problem import LAYERS, MODULUS, NUMBERS, Definition, Problem, Term

DIGITS = tuple(map(str, range(MODULUS)))
THINGS = (
    *("Riverview", "Hilltop", "Central", "Westhaven"),
    *("Studio", "Library", "Laboratory", "Gymnasium"),
    *("Backpack", "Satchel", "Suitcase", "Basket"),
    *("Pencil", "Notebook", "Eraser", "Ruler"),
)
Words = tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Writing:
    """One way of writing problems.

    Attributes
    ----------
    opening, define : tuple of str
        The words before and after the number that a definition defines.
    plus, minus, times : str
        The words between terms, and between a factor and its number.
    numbers, questions : tuple of tuple of str
        How each of ``NUMBERS`` is written, and the question that asks for it.
    """

    opening: Words
    define: Words
    plus: str
    minus: str
    times: str
    numbers: tuple[Words, ...]
    questions: tuple[Words, ...]
    _number_of: dict[Words, int] = field(init=False, repr=False)
    _question_of: dict[Words, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_number_of", {w: i for i, w in enumerate(self.numbers)})
        object.__setattr__(self, "_question_of", {w: i for i, w in enumerate(self.questions)})

    @property
    def vocabulary(self) -> Words:
        """All words; the digits come first, so that the id of a digit is its value."""
        joints = (self.plus, self.minus, self.times, ".")
        written = chain(self.opening, self.define, joints, *self.numbers, *self.questions)
        return tuple(dict.fromkeys([*DIGITS, *written]))

    def write(self, problem: Problem) -> list[str]:
        """Return the words of a problem."""
        words: list[str] = []
        for entry in problem.definitions:
            words += [*self.opening, *self.numbers[entry.number], *self.define]
            words += [str(entry.constant)] if not entry.terms else []
            for place, (factor, number) in enumerate(entry.terms):
                words += [self.minus if factor < 0 else self.plus] if place else []
                words += [str(abs(factor)), self.times] if abs(factor) > 1 else []
                words += self.numbers[number]
            words.append(".")
        return [*words, *chain(*(self.questions[number] for number in problem.questions))]

    def read(self, words: Sequence[str]) -> Problem:
        """Return the problem that is written in words.

        Raises
        ------
        ValueError
            When they are not definitions and then questions.
        """
        sentences: list[list[str]] = [[]]
        for word in words:
            sentences[-1].append(word)
            if word in (".", "?"):
                sentences.append([])
        unfinished = sentences.pop()
        told = [entry for entry in sentences if entry[-1] == "."]
        asked = [tuple(entry) for entry in sentences[len(told) :]]
        if unfinished or not told or not asked or not set(asked) <= set(self._question_of):
            raise ValueError("a problem is definitions and then questions")
        return Problem(
            definitions=tuple(map(self._definition, told)),
            questions=tuple(self._question_of[entry] for entry in asked),
        )

    def _definition(self, words: list[str]) -> Definition:
        start, size = len(self.opening), len(self.numbers[0])
        end = start + size + len(self.define)
        number = self._number_of.get(tuple(words[start : start + size]), -1)
        around = (*words[:start], *words[start + size : end])
        if number < 0 or around != (*self.opening, *self.define):
            raise ValueError("a definition begins with a number")
        rest = words[end:-1]
        if len(rest) == 1 and rest[0] in DIGITS:
            return Definition(number=number, constant=int(rest[0]))
        terms: list[Term] = []
        while rest or not terms:
            sign = (
                {self.plus: 1, self.minus: -1}.get(rest.pop(0) if rest else "", 0) if terms else 1
            )
            factor = 1
            if rest[1:2] == [self.times] and rest[0] in DIGITS[1:]:
                factor, rest = int(rest[0]), rest[2:]
            used = self._number_of.get(tuple(rest[:size]), -1)
            if not sign or used < 0:
                raise ValueError("a value is a digit, or numbers joined by plus or minus")
            terms.append((sign * factor, used))
            rest = rest[size:]
        return Definition(number=number, terms=tuple(terms))


_NAMES = dict(zip(chain.from_iterable(LAYERS), THINGS, strict=True))

SYMBOLS = Writing(
    opening=(),
    define=(":=",),
    plus="+",
    minus="-",
    times="*",
    numbers=tuple((f"{a}#{b}",) for a, b in NUMBERS),
    questions=tuple((f"{a}#{b}", "?") for a, b in NUMBERS),
)
WORDS = Writing(
    opening=("The", "number", "of"),
    define=("equals",),
    plus="plus",
    minus="minus",
    times="times",
    numbers=tuple(("each", _NAMES[a], "'s", _NAMES[b]) for a, b in NUMBERS),
    questions=tuple(
        ("How", "many", _NAMES[b], "does", "each", _NAMES[a], "have", "?") for a, b in NUMBERS
    ),
)
