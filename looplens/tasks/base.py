"""What a synthetic task is: seeded sequences with an exact answer wherever one is defined.

A task draws token sequences, labels any well-formed sequence exactly, and turns sequences into
prompts that are ready to record. One character is one token, so that every position of a text can
be read. A task deliberately knows nothing of models, of training or of recording.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from looplens.errors import InputError
from looplens.prompts import Prompt

Tokens = NDArray[np.int64]

NO_TARGET = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Sequences of equal length with their answers.

    Attributes
    ----------
    tokens : ndarray of int64, shape (batch, position)
        Indices into the task's ``characters``.
    targets : ndarray of int64, shape (batch, position)
        The token to predict *at* that position, -1 where the task defines none.
    metadata : mapping of str to ndarray of float64, shape (batch, position)
        One number a token, NaN where there is no target. Every task has ``difficulty``.
    """

    tokens: Tokens
    targets: Tokens
    metadata: Mapping[str, NDArray[np.float64]]


class Task(ABC):
    """A family of character sequences with exact targets.

    Subclasses set the class attributes and write :meth:`draw` and :meth:`label`.

    Attributes
    ----------
    name : str
        The name in :data:`looplens.tasks.TASKS`.
    title : str
        One readable line.
    characters : str
        The alphabet; the token id of a character is its place in this string.
    length_unit, difficulty_unit : str
        What ``length`` and ``difficulty`` count.
    default_length : int
        The length that is drawn when none is asked for.
    difficulty_range : tuple of int
        The lowest and the highest difficulty at the default length.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    characters: ClassVar[str]
    length_unit: ClassVar[str]
    difficulty_unit: ClassVar[str]
    default_length: ClassVar[int]
    difficulty_range: ClassVar[tuple[int, int]]

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
            Indices into ``characters``.

        Raises
        ------
        InputError
            When a sequence does not have the form of the task.
        """

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

    def encode(self, text: str) -> Tokens:
        """Return the token ids of a text, shape (position,).

        Raises
        ------
        InputError
            When the text is empty or holds a character outside ``characters``.
        """
        unknown = sorted(set(text) - set(self.characters))
        if unknown or not text:
            seen = f"it holds {', '.join(map(repr, unknown))}" if unknown else "it is empty"
            raise InputError(
                f"A text of task {self.name!r} is made of the characters {self.characters!r}, "
                f"but {seen}. {self.form}"
            )
        return np.array([self._ids[character] for character in text], dtype=np.int64)

    def decode(self, tokens: ArrayLike) -> str:
        """Return the text of token ids, shape (position,)."""
        return "".join(self.characters[int(token)] for token in np.asarray(tokens))

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
        return self._to_prompts(self.label(self.encode(text)[None]), metadata)[0]

    def prompts(
        self,
        n: int,
        seed: int = 0,
        *,
        length: int | None = None,
        difficulty: int | tuple[int, int] | None = None,
    ) -> list[Prompt]:
        """Draw prompts that are ready to record; the arguments are those of :meth:`sample`."""
        batch = self.sample(np.random.default_rng(seed), n, length=length, difficulty=difficulty)
        return self._to_prompts(batch, {"seed": seed})

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

    @property
    @abstractmethod
    def form(self) -> str:
        """A sentence that says what a well-formed text looks like."""

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {character: i for i, character in enumerate(self.characters)}

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
            raise InputError(
                f"Expected integer tokens of shape (batch, position); got {array.dtype} "
                f"{array.shape}."
            )
        if array.min() < 0 or array.max() >= len(self.characters):
            raise InputError(
                f"Task {self.name!r} has token ids 0..{len(self.characters) - 1}; saw "
                f"{array.min()}..{array.max()}."
            )
        return array.astype(np.int64)

    def _reject(self, tokens: Tokens, bad_rows: NDArray[np.bool_]) -> None:
        if bad_rows.any():
            text = self.decode(tokens[int(np.argmax(bad_rows))])
            raise InputError(f"{text!r} is not a text of task {self.name!r}. {self.form}")

    def _to_prompts(self, batch: Batch, metadata: Mapping[str, Any]) -> list[Prompt]:
        return [
            Prompt(
                token_ids=tuple(map(int, row)),
                text=self.decode(row),
                token_texts=tuple(self.decode(row)),
                targets=tuple(map(int, batch.targets[i])),
                token_metadata={
                    name: tuple(map(float, values[i])) for name, values in batch.metadata.items()
                },
                metadata={"task": self.name, **metadata},
            )
            for i, row in enumerate(batch.tokens)
        ]
