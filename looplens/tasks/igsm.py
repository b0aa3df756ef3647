"""i-GSM: numbers defined from each other modulo 7, in any order, and a question.

``E#I := 4 . E#J := E#I + 2 * K#M . K#M := 5 . E#J ?`` has the target 0 at the question mark:
4 + 2 * 5 = 14. The problems are in ``igsm_problem``, their texts in ``igsm_text``; how a model
finds the answer is none of this module's business.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from looplens.errors import InputError, named
from looplens.tasks.base import NO_TARGET, Batch, Task, Tokens
from looplens.tasks.batch import spread_levels
from looplens.tasks.igsm_problem import NUMBERS, draw_problem
from looplens.tasks.igsm_text import SYMBOLS, WORDS

PAD = "<pad>"


class IGSM(Task):
    """Arithmetic modulo 7 along a graph of definitions, after i-GSM.

    Things come in four layers of four; a number counts the things of one kind in each thing of a
    kind of the layer above, so there are 48 numbers. A definition gives a number as a constant, or
    as one to three others, each perhaps with a factor, joined by plus and minus. Every question
    mark has a target: the value of the number that is asked for. ``difficulty`` is the number of
    definitions on the longest chain from that number down to a constant; the metadata column
    ``definitions`` counts all definitions that the answer depends on. Answers are not uniform:
    products with 0 make 0 more frequent the more steps there are.

    Parameters
    ----------
    style : {"symbols", "words"}
        How problems are written.
    questions : int
        How many numbers are asked for at the end of a text. Answers are not part of the text, so
        questions do not help each other; more than one is cheaper training.
    shuffled : bool
        Whether a number may be used before the text defines it.

    References
    ----------
    Saunshi et al., arXiv 2502.17416 (i-GSM in symbols: depth 4 of the hierarchy, one question,
    arithmetic modulo 7), after Ye et al., arXiv 2407.20311, where the problems are in words. The
    paper's sampler is not published in full: levels, factors and the words are this module's.
    """

    name = "igsm"
    title = "graphs of definitions modulo 7 (i-GSM)"
    source = "Saunshi et al., arXiv 2502.17416, i-GSM"
    pad = PAD
    length_unit = "definitions"
    difficulty_unit = "steps"
    default_length = 12
    difficulty_range = (1, 6)

    def __init__(
        self, *, style: str = "symbols", questions: int = 1, shuffled: bool = True
    ) -> None:
        self._writing = named(style, {"symbols": SYMBOLS, "words": WORDS}, "igsm style")
        if questions < 1:
            raise InputError(f"Task 'igsm' asks at least 1 question; got questions={questions}.")
        self._questions, self._shuffled = questions, shuffled
        self.words = (*self._writing.vocabulary, PAD)

    @property
    def form(self) -> str:
        """A sentence that says what a well-formed text looks like."""
        example = "E#I := 4 . E#J := E#I + 2 * K#M . K#M := 5 . E#J ?"
        if self._writing is WORDS:
            example = (
                "The number of each Studio 's Satchel equals 4 . "
                "How many Satchel does each Studio have ?"
            )
        return (
            "A text defines each number once, by a digit 0..6 or from other numbers of the text "
            f"without a circle, and then asks for numbers, such as '{example}'"
        )

    def sample(
        self,
        rng: np.random.Generator,
        batch: int,
        *,
        length: int | None = None,
        difficulty: int | tuple[int, int] | None = None,
    ) -> Batch:
        """Draw labelled problems; the arguments are those of :meth:`looplens.tasks.Task.sample`.

        Without ``difficulty`` a problem has up to 6 steps, or as many as it has definitions.

        Raises
        ------
        InputError
            When there are fewer definitions than steps, or more than 48.
        """
        size = self.default_length if length is None else length
        low, high = self._difficulty_bounds(difficulty)
        if difficulty is None:
            high = max(1, min(high, size))
        if size > len(NUMBERS) or 1 <= size < high:
            raise InputError(
                f"A problem of {size} definitions with {high} steps cannot be drawn: ask for "
                f"length={high}..{len(NUMBERS)}."
            )
        return super().sample(rng, batch, length=size, difficulty=(low, high))

    def draw(
        self, rng: np.random.Generator, batch: int, length: int, difficulty: tuple[int, int]
    ) -> Tokens:
        """Draw problems, shape (batch, longest text)."""
        low, high = difficulty
        rows = []
        for steps in spread_levels(rng, batch, low, high).tolist():
            problem = draw_problem(
                rng,
                definitions=length,
                steps=(low, steps),
                questions=self._questions,
                shuffled=self._shuffled,
            )
            ids = self._texts.ids
            rows.append([ids[word] for word in self._writing.write(problem)])
        return self._texts.stack(rows)

    def label(self, tokens: ArrayLike) -> Batch:
        """Solve problems exactly; see :class:`IGSM` for the definition."""
        ids = self._as_tokens(tokens)
        targets = np.full_like(ids, NO_TARGET)
        difficulty, definitions = np.full((2, *ids.shape), np.nan)
        mark = self._texts.ids["?"]
        bad = np.zeros(len(ids), dtype=bool)
        for row, line in enumerate(ids):
            try:
                problem = self._writing.read(self._texts.pieces(line))
                value, steps, needed = problem.solve()
            except ValueError:
                bad[row] = True
                continue
            for place, asked in zip(np.flatnonzero(line == mark), problem.questions, strict=True):
                targets[row, place] = value[asked]  # the id of a digit is its value
                difficulty[row, place] = steps[asked]
                definitions[row, place] = len(needed[asked])
        self._reject(ids, bad)
        metadata = {"difficulty": difficulty, "definitions": definitions}
        return Batch(tokens=ids, targets=targets, metadata=metadata)
