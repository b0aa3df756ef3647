"""Questions of several hops over a made-up knowledge base, as "the teacher of a friend of Ann".

A text is a question of one or more relations and a person, ``teacher of friend of Bada ?``: the
target at the question mark is the teacher of Bada's friend. The facts are the questions of one
hop. They are never part of a longer question's text: a model has to store and to combine them.
"""

from __future__ import annotations

from copy import copy

import numpy as np
from numpy.typing import NDArray

from looplens.errors import InputError, named
from looplens.tasks.base import Task, Tokens
from looplens.tasks.batch import is_held_out, spread_levels
from looplens.tasks.names import made_up
from looplens.tasks.rows import RowTask

PAD = "<pad>"
RELATIONS = (
    *("teacher", "friend", "boss", "doctor", "neighbour", "partner", "tenant", "rival"),
    *("coach", "lawyer", "cousin", "client", "driver", "tailor", "dentist", "mentor"),
    *("editor", "landlord", "agent", "guest"),
)
MOST_DRAWS = 10_000
SPLITS = ("seen", "unseen", "all")


class MultiHop(RowTask):
    """Multi-hop questions over people in layers; relations lead from one layer to the one above.

    Every person of a layer but the last has, for each relation, one person of the layer above,
    drawn once and for all by ``world``. ``difficulty`` is the number of hops. A question of more
    than one hop is *unseen* with probability ``held_out`` per cent, decided by the question alone:
    ``split=seen`` never draws such a question and ``split=unseen`` draws nothing else, so a model
    trained on the one and tested on the other has every fact but not the combination. Facts (one
    hop) are always seen. Hops are spread evenly over the sequences of a batch.

    Parameters
    ----------
    people, layers, relations : int
        The people of one layer, the layers, and the relations, at most 20.
    split : {"seen", "unseen", "all"}
        Which questions are drawn. Labels do not depend on it.
    held_out : int
        Per cent of the questions of two and more hops that are unseen.
    world : int
        Seed of the knowledge base.

    References
    ----------
    Zhu et al., "Scaling Latent Reasoning via Looped Language Models", arXiv 2510.25741, multi-hop
    QA (there 5 layers of 100 people, 20 relations and questions of 3 hops; the words are ours).
    """

    name = "multihop"
    title = "multi-hop questions over a knowledge base"
    source = "Zhu et al., arXiv 2510.25741, multi-hop QA"
    pad = PAD
    length_unit = "questions"
    difficulty_unit = "hops"
    default_length = 1

    def __init__(
        self,
        *,
        people: int = 20,
        layers: int = 4,
        relations: int = 4,
        split: str = "seen",
        held_out: int = 20,
        world: int = 0,
    ) -> None:
        self._split = named(split, {name: name for name in SPLITS}, "multihop split")
        if people < 2 or layers < 2 or not 1 <= relations <= len(RELATIONS):
            raise InputError(
                "Task 'multihop' needs at least 2 people in a layer, 2 layers and 1 to "
                f"{len(RELATIONS)} relations; got {people}, {layers} and {relations}."
            )
        if not 0 <= held_out <= 100:
            raise InputError(f"Task 'multihop' holds out 0 to 100 per cent; got {held_out}.")
        self._people, self._relations, self._held_out = people, relations, held_out
        self.difficulty_range = (2 if split == "unseen" else 1, layers - 1)
        names = made_up(people * layers)
        self.words = (*names, *RELATIONS[:relations], "of", "?", PAD)
        self._first_relation = len(names)
        rng = np.random.default_rng(world)
        # follows[relation, person]: the person it leads to, one layer up; -1 from the last.
        place = rng.integers(people, size=(relations, layers - 1, people))
        next_layer = people * np.arange(1, layers)[:, None]
        follows = (place + next_layer).reshape(relations, -1)
        self.follows = np.pad(follows, ((0, 0), (0, people)), constant_values=-1)
        self._layers = layers

    @property
    def form(self) -> str:
        """A sentence that says what a well-formed text looks like."""
        return (
            "A text is questions: relations, each with 'of' after it, a person with at least as "
            "many layers above, and '?', such as "
            f"'{RELATIONS[0]} of {RELATIONS[self._relations - 1]} of {self.words[0]} ?'."
        )

    def held_out(self) -> Task | None:
        """Return the task of the unseen questions, None where training may show any question."""
        if self._split != "seen" or not self._held_out or self._layers < 3:
            return None
        other = copy(self)
        other._split, other.difficulty_range = "unseen", (2, self._layers - 1)
        return other

    def draw(
        self, rng: np.random.Generator, batch: int, length: int, difficulty: tuple[int, int]
    ) -> Tokens:
        """Draw questions, shape (batch, longest text)."""
        low, high = difficulty
        rows = []
        for hops in spread_levels(rng, batch, low, high).tolist():
            texts = [self._draw_question(rng, hops) for _ in range(length)]
            rows.append(np.concatenate(texts))
        return self._texts.stack(rows)

    def label_row(self, row: Tokens, targets: Tokens, difficulty: NDArray[np.float64]) -> bool:
        """Write the answer of each question at its mark; see :meth:`RowTask.label_row`."""
        start = 0
        for end in np.flatnonzero(row == self._texts.ids["?"]).tolist():
            question = row[start:end]
            targets[end], difficulty[end] = self._answer(question), len(question) // 2
            if targets[end] < 0:
                return False
            start = end + 1
        return start == len(row) > 0

    def is_unseen(self, relations: NDArray[np.int64], person: int) -> bool:
        """Say whether a question is held out; a hash of the question decides.

        Parameters
        ----------
        relations : ndarray of int64, shape (hop,)
            Numbers of the relations, in the order they are followed; a single one is never unseen.
        person : int
            The number of the person at the start.
        """
        if len(relations) < 2:
            return False
        code = person
        for relation in relations.tolist():
            code = code * len(RELATIONS) + relation
        return is_held_out(code, len(relations), self._held_out)

    def _draw_question(self, rng: np.random.Generator, hops: int) -> NDArray[np.int64]:
        for _ in range(MOST_DRAWS):
            person = int(rng.integers(self._people * (self._layers - hops)))
            relations = rng.integers(self._relations, size=hops)
            unseen = self.is_unseen(relations, person)
            if self._split == "all" or unseen == (self._split == "unseen"):
                break
        else:
            raise InputError(
                f"Task {self.name!r} has no {self._split} question of {hops} hops: change held_out "
                "or the size of the knowledge base."
            )
        question = np.full(2 * hops + 2, self._texts.ids["of"], dtype=np.int64)
        question[0 : 2 * hops : 2] = self._first_relation + relations[::-1]
        question[-2:] = person, self._texts.ids["?"]
        return question

    def _answer(self, question: NDArray[np.int64]) -> int:
        """Return the person a question asks for, -1 where it is not well formed."""
        relations = question[0:-1:2] - self._first_relation
        joined = bool((question[1::2] == self._texts.ids["of"]).all()) and len(question) % 2 == 1
        known = bool(((relations >= 0) & (relations < self._relations)).all())
        if not (joined and known and len(question) >= 3):
            return -1
        person = int(question[-1])
        for relation in relations[::-1]:
            if not 0 <= person < self._first_relation:
                return -1
            person = int(self.follows[relation, person])
        return person

    def _check_bounds(self, low: int, high: int) -> None:
        super()._check_bounds(low, high)
        least, most = self.difficulty_range
        if low < least or high > most:
            raise InputError(
                f"Task {self.name!r} has questions of {least} to {most} hops; got ({low}, {high})."
            )
