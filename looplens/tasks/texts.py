"""Texts of a task and their token ids: one token a character, or one token a word.

A text of words has one space between two words. The pad of a task fills rows of one batch up to
equal length at the right; it is never part of a text. Nothing here knows what a text means.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from looplens.errors import InputError

Tokens = NDArray[np.int64]


class TaskTexts:
    """The vocabulary of a task as a codec.

    Parameters
    ----------
    name, form : str
        The task and what its texts look like, for messages.
    vocabulary : sequence of str
        The tokens; an id is a place in it.
    words : bool
        Whether tokens are words with spaces between them, instead of characters.
    pad : str, optional
        The token that fills rows up.
    """

    def __init__(
        self, *, name: str, form: str, vocabulary: Sequence[str], words: bool, pad: str | None
    ) -> None:
        self.name, self.form, self.vocabulary = name, form, tuple(vocabulary)
        self.words, self.pad = words, pad

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of each token."""
        return {token: i for i, token in enumerate(self.vocabulary)}

    def encode(self, text: str) -> Tokens:
        """Return the token ids of a text, shape (position,).

        Raises
        ------
        InputError
            When the text is empty or holds what is no token.
        """
        pieces = text.split() if self.words else list(text)
        unknown = sorted({piece for piece in pieces if piece not in self.ids or piece == self.pad})
        if unknown or not pieces:
            seen = f"it holds {', '.join(map(repr, unknown))}" if unknown else "it is empty"
            known = [token for token in self.vocabulary if token != self.pad]
            shown = (
                f"words with spaces between them ({_listed(known)})"
                if self.words
                else f"the characters {''.join(known)!r}"
            )
            raise InputError(
                f"A text of task {self.name!r} is made of {shown}, but {seen}. {self.form}"
            )
        return np.array([self.ids[piece] for piece in pieces], dtype=np.int64)

    def pieces(self, tokens: ArrayLike) -> tuple[str, ...]:
        """Return the text of each token id, without the pads at the end."""
        found = [self.vocabulary[int(token)] for token in np.asarray(tokens)]
        while found and found[-1] == self.pad:
            found.pop()
        return tuple(found)

    def decode(self, tokens: ArrayLike) -> str:
        """Return the text of token ids, shape (position,)."""
        return (" " if self.words else "").join(self.pieces(tokens))

    def stack(self, rows: Sequence[Sequence[int] | NDArray[np.int64]]) -> Tokens:
        """Lay rows of ids under each other, filled up with pads at the right."""
        longest = max(len(row) for row in rows)
        fill = 0 if self.pad is None else self.ids[self.pad]
        tokens = np.full((len(rows), longest), fill, dtype=np.int64)
        for i, row in enumerate(rows):
            tokens[i, : len(row)] = row
        return tokens

    def sizes(self, tokens: Tokens) -> NDArray[np.int64]:
        """Return how many tokens of each row come before its pads, shape (batch,).

        A pad that other tokens follow counts as a token: it is for the task to refuse it.
        """
        if self.pad is None:
            return np.full(len(tokens), tokens.shape[1], dtype=np.int64)
        real = tokens != self.ids[self.pad]
        return np.where(real.any(axis=1), tokens.shape[1] - real[:, ::-1].argmax(axis=1), 0)


def _listed(tokens: Sequence[str], most: int = 40) -> str:
    shown = " ".join(tokens[:most])
    return shown if len(tokens) <= most else f"{shown} ... {len(tokens)} in all"
