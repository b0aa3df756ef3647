"""Foreign tokenizers, with the three names that recording uses."""

from __future__ import annotations

from typing import Any

from looplens.errors import InputError


class ForeignTokenizer:
    """A Hugging Face tokenizer with the names of :class:`looplens.models.Tokenizer`.

    Parameters
    ----------
    backend : PreTrainedTokenizerBase
        The tokenizer proper.
    """

    def __init__(self, backend: Any) -> None:
        self.backend = backend

    @property
    def d_vocab(self) -> int:
        """Size of the vocabulary."""
        return len(self.backend)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of ``text``, with the special tokens that the tokenizer adds."""
        ids = list(self.backend.encode(text))
        if not ids:
            raise InputError("the prompt is empty: expected at least one token")
        return ids

    def token_text(self, token_id: int) -> str:
        """Return the text of one token."""
        return self.backend.decode([int(token_id)])


def as_tokenizer(tokenizer: Any) -> Any:
    """Return a tokenizer with ``encode``, ``token_text`` and ``d_vocab``, or None.

    Raises
    ------
    InputError
        If it can neither encode nor decode.
    """
    if tokenizer is None or all(hasattr(tokenizer, n) for n in ("encode", "token_text", "d_vocab")):
        return tokenizer
    if all(hasattr(tokenizer, name) for name in ("encode", "decode", "__len__")):
        return ForeignTokenizer(tokenizer)
    raise InputError(
        f"{type(tokenizer).__name__} is no tokenizer: expected one with encode() and decode()"
    )
