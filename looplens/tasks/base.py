"""What a synthetic task is: seeded sequences with an exact answer wherever one is defined.

A task draws token sequences, labels any well-formed sequence exactly, and turns sequences into
prompts that are ready to record. One token is one character or one word, so that every position of
a text can be read. A task deliberately knows nothing of models, of training or of recording.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from itertools import count

import numpy as np
from numpy.typing import ArrayLike, NDArray

from looplens.errors import InputError
from looplens.prompts import Prompt
from looplens.tasks.batch import NO_TARGET, PROMPTS, STREAM, Batch, Tokens
from looplens.tasks.prompting import prompts_of
from looplens.tasks.texts import TaskTexts


class Task(ABC):
    """A family of token sequences with exact targets.

    Subclasses set the attributes, either ``characters`` or ``words`` among them, and write
    :meth:`draw` and :meth:`label`. Keyword arguments of a constructor are options of the task.

    Attributes
    ----------
    name : str
        The name in :data:`looplens.tasks.TASKS`.
    title, source : str
        One readable line, and where the task comes from.
    characters : str
        The alphabet of a task with one token a character; the id of a token is its place in it.
    words : tuple of str
        The vocabulary of a task with one token a word; its texts have spaces between words.
    pad : str or None
        The token that fills short rows of a batch up at the right; not part of any text.
    answers_move : bool
        Whether answers depend on the number of iterations, see :meth:`targets_at`.
    length_unit, difficulty_unit : str
        What ``length`` and ``difficulty`` count.
    default_length : int
        The length that is drawn when none is asked for.
    difficulty_range : tuple of int
        The lowest and the highest difficulty at the default length.
    """

    name: str
    title: str
    source: str = "looplens"
    characters: str = ""
    words: tuple[str, ...] = ()
    pad: str | None = None
    answers_move: bool = False
    length_unit: str
    difficulty_unit: str
    default_length: int
    difficulty_range: tuple[int, int]

    @abstractmethod
    def draw(
        self, rng: np.random.Generator, batch: int, length: int, difficulty: tuple[int, int]
    ) -> Tokens:
        """Draw well-formed sequences, shape (batch, position). Called by :meth:`sample`."""

    @abstractmethod
    def label(self, tokens: ArrayLike) -> Batch:
        """Label well-formed sequences of one length exactly.

        Parameters
        ----------
        tokens : array_like of int, shape (batch, position)
            Indices into ``vocabulary``; rows may end with pads where the task has one.

        Raises
        ------
        InputError
            When a sequence does not have the form of the task.
        """

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """All tokens; the id of a token is its place here."""
        return tuple(self.characters) or self.words

    def sample(
        self,
        rng: np.random.Generator,
        batch: int,
        *,
        length: int | None = None,
        difficulty: int | tuple[int, int] | None = None,
    ) -> Batch:
        """Draw labelled sequences.

        Parameters
        ----------
        rng : numpy.random.Generator
            The only source of randomness: equal generators give equal batches.
        batch : int
            Number of sequences.
        length : int, optional
            Size of each sequence in ``length_unit``; ``default_length`` when not given.
        difficulty : int or (int, int), optional
            The difficulty, or an inclusive range of it, that every target has. Positions of
            another difficulty carry no target. ``difficulty_range`` when not given.

        Raises
        ------
        InputError
            When the length or the difficulty is out of range.
        """
        length = self.default_length if length is None else length
        if batch < 1 or length < 1:
            raise InputError(
                f"Task {self.name!r} draws at least 1 sequence of at least 1 {self.length_unit}; "
                f"got batch={batch}, length={length}."
            )
        low, high = self._difficulty_bounds(difficulty)
        labelled = self.label(self.draw(rng, batch, length, (low, high)))
        level = labelled.metadata["difficulty"]
        keep = (level >= low) & (level <= high)  # NaN compares false
        return Batch(
            tokens=labelled.tokens,
            targets=np.where(keep, labelled.targets, NO_TARGET),
            metadata={k: np.where(keep, v, np.nan) for k, v in labelled.metadata.items()},
        )

    def stream(
        self,
        seed: int,
        batch: int,
        *,
        length: int | None = None,
        difficulty: int | tuple[int, int] | None = None,
    ) -> Iterator[Batch]:
        """Draw batches without end, batch i from ``seed`` and i alone.

        The other arguments are those of :meth:`sample`.
        """
        for number in count():
            rng = np.random.default_rng([seed, STREAM, number])
            yield self.sample(rng, batch, length=length, difficulty=difficulty)

    def held_out(self) -> Task | None:
        """Return the task of the texts that training on this one never shows, None for none.

        By default the task itself: it draws from so many texts that new ones are seldom repeated.
        """
        return self

    def targets_at(self, batch: Batch, iteration: int) -> Tokens:
        """Return the targets of a batch after so many iterations, shape (batch, position).

        They are ``batch.targets``, but for a task with ``answers_move``; the positions that have
        a target are the same at every iteration.
        """
        return batch.targets

    def encode(self, text: str) -> Tokens:
        """Return the token ids of a text, shape (position,).

        Raises
        ------
        InputError
            When the text is empty or holds what is not in the ``vocabulary``.
        """
        return self._texts.encode(text)

    def decode(self, tokens: ArrayLike) -> str:
        """Return the text of token ids, shape (position,), without the pads at its end."""
        return self._texts.decode(tokens)

    def is_text(self, tokens: ArrayLike) -> NDArray[np.bool_]:
        """Say which tokens belong to a text, shape (batch, position): those before the pads."""
        ids = self._as_tokens(tokens)
        return np.arange(ids.shape[1]) < self._texts.sizes(ids)[:, None]

    def prompt(self, text: str, **metadata: str | float | int) -> Prompt:
        """Turn one text into a prompt with its exact targets.

        Parameters
        ----------
        text : str
            A well-formed text of the task.
        **metadata
            Columns to store with the prompt.

        Raises
        ------
        InputError
            When the text does not have the form of the task.
        """
        batch = self.label(self.encode(text)[None])
        return prompts_of(self._texts, batch, {"task": self.name, **metadata})[0]

    def prompts(
        self,
        n: int,
        seed: int = 0,
        *,
        length: int | None = None,
        difficulty: int | tuple[int, int] | None = None,
    ) -> list[Prompt]:
        """Draw prompts that are ready to record; the arguments are those of :meth:`sample`.

        They are none of the batches that a recipe of the same ``seed`` trains on.
        """
        rng = np.random.default_rng([seed, PROMPTS])
        batch = self.sample(rng, n, length=length, difficulty=difficulty)
        return prompts_of(self._texts, batch, {"task": self.name, "seed": seed})

    def check(self, tokens: ArrayLike, predictions: ArrayLike) -> NDArray[np.float64]:
        """Mark predictions.

        Parameters
        ----------
        tokens : array_like of int, shape (batch, position)
            Well-formed sequences.
        predictions : array_like of int, shape (batch, position)
            The token predicted at each position.

        Returns
        -------
        ndarray of float64, shape (batch, position)
            1 right, 0 wrong, NaN where the task defines no target.

        Raises
        ------
        InputError
            When the shapes differ or a sequence does not have the form of the task.
        """
        labelled, predicted = self.label(tokens), np.asarray(predictions)
        if predicted.shape != labelled.targets.shape:
            raise InputError(
                f"Expected one prediction a token, shape {labelled.targets.shape}; "
                f"got {predicted.shape}."
            )
        right = (predicted == labelled.targets).astype(np.float64)
        return np.where(labelled.targets == NO_TARGET, np.nan, right)

    def exact(self, tokens: ArrayLike, predictions: ArrayLike) -> NDArray[np.bool_]:
        """Say which sequences are right at every target, shape (batch,): greedy decoding is exact.

        The arguments are those of :meth:`check`.
        """
        return np.asarray((self.check(tokens, predictions) != 0).all(axis=1))

    @property
    @abstractmethod
    def form(self) -> str:
        """A sentence that says what a well-formed text looks like."""

    @cached_property
    def _texts(self) -> TaskTexts:
        return TaskTexts(
            name=self.name,
            form=self.form,
            vocabulary=self.vocabulary,
            words=not self.characters,
            pad=self.pad,
        )

    def _difficulty_bounds(self, difficulty: int | tuple[int, int] | None) -> tuple[int, int]:
        if difficulty is None:
            return self.difficulty_range
        low, high = (difficulty, difficulty) if isinstance(difficulty, int) else difficulty
        self._check_bounds(low, high)
        return low, high

    def _check_bounds(self, low: int, high: int) -> None:
        if not 1 <= low <= high:
            raise InputError(
                f"Difficulty of task {self.name!r} counts {self.difficulty_unit} from 1 up and a "
                f"range is (lowest, highest); got ({low}, {high})."
            )

    def _as_tokens(self, tokens: ArrayLike) -> Tokens:
        array = np.asarray(tokens)
        if array.ndim != 2 or array.size == 0 or array.dtype.kind not in "iu":
            seen = f"{array.dtype} {array.shape}"
            raise InputError(f"Expected integer tokens of shape (batch, position); got {seen}.")
        if array.min() < 0 or array.max() >= len(self.vocabulary):
            raise InputError(
                f"Task {self.name!r} has token ids 0..{len(self.vocabulary) - 1}; saw "
                f"{array.min()}..{array.max()}."
            )
        return array.astype(np.int64)

    def _reject(self, tokens: Tokens, bad_rows: NDArray[np.bool_]) -> None:
        if bad_rows.any():
            text = self.decode(tokens[int(np.argmax(bad_rows))])
            raise InputError(f"{text!r} is not a text of task {self.name!r}. {self.form}")
