"""Text to token ids and back, through a Hugging Face ``tokenizer.json``.

A thin wrapper: it adds the error for characters and words outside the vocabulary that a tokenizer
would otherwise map to an unknown token or drop. It knows nothing of models.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import tokenizers
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split, WhitespaceSplit

from looplens.errors import InputError

_FILE = "tokenizer.json"
_CONFIG_FILE = "tokenizer_config.json"


class Tokenizer:
    """Encode and decode text.

    Parameters
    ----------
    backend : tokenizers.Tokenizer
        The tokenizer proper.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self.backend = backend

    @property
    def d_vocab(self) -> int:
        """Size of the vocabulary."""
        return self.backend.get_vocab_size()

    @property
    def _is_word_level(self) -> bool:
        whole = isinstance(self.backend.model, WordLevel)
        return whole and isinstance(self.backend.pre_tokenizer, WhitespaceSplit)

    @property
    def _is_char_level(self) -> bool:
        return all(len(token) == 1 for token in self.backend.get_vocab())

    def _refuse(self, text: str, outside: Sequence[str]) -> None:
        if outside:
            self._refuse_piece(f"character {outside[0]!r} at place {text.index(outside[0])}")

    def _refuse_piece(self, piece: str) -> None:
        vocabulary = self.backend.get_vocab()
        known = sorted(vocabulary, key=vocabulary.__getitem__)
        listed = " ".join(known) if len(known) <= 64 else f"{len(known)} tokens"
        raise InputError(f"{piece} of the prompt is outside the vocabulary. Known: {listed}")

    def encode(self, text: str) -> list[int]:
        """Return the token ids of ``text``.

        Raises
        ------
        InputError
            If ``text`` is empty, or holds a character or word that no token covers; the message
            names it and its place.
        """
        if not text or (self._is_word_level and not text.strip()):
            kind = "word" if self._is_word_level else "character"
            raise InputError(f"the prompt is empty: expected at least one {kind}")
        if self._is_word_level:
            for number, word in enumerate(text.split()):
                if self.backend.token_to_id(word) is None:
                    self._refuse_piece(f"word {word!r} at place {number}")
        elif self._is_char_level:
            self._refuse(text, [c for c in text if self.backend.token_to_id(c) is None])
        encoding = self.backend.encode(text)
        covered = {i for start, stop in encoding.offsets for i in range(start, stop)}
        lost = [c for i, c in enumerate(text) if i not in covered and not c.isspace()]
        self._refuse(text, lost)
        return list(encoding.ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids."""
        return self.backend.decode([int(i) for i in ids])

    def token_text(self, token_id: int) -> str:
        """Return the text of one token.

        Raises
        ------
        InputError
            If the id is outside the vocabulary.
        """
        token = self.backend.id_to_token(int(token_id))
        if token is None:
            raise InputError(
                f"token id {token_id} is outside the vocabulary (0..{self.d_vocab - 1})"
            )
        return token

    def save(self, directory: Path) -> None:
        """Write ``tokenizer.json`` and ``tokenizer_config.json``."""
        self.backend.save(str(directory / _FILE))
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
        }
        (directory / _CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")

    @classmethod
    def load(cls, directory: Path) -> Tokenizer | None:
        """Read ``tokenizer.json`` from a checkpoint directory; ``None`` where there is none."""
        path = directory / _FILE
        return cls(tokenizers.Tokenizer.from_file(str(path))) if path.exists() else None


def char_tokenizer(characters: str) -> Tokenizer:
    """Make a tokenizer with one token for each character, ids in the order given.

    Raises
    ------
    InputError
        If a character occurs twice.
    """
    if len(set(characters)) != len(characters) or not characters:
        raise InputError(f"expected distinct characters, got {characters!r}")
    backend = tokenizers.Tokenizer(
        WordLevel({c: i for i, c in enumerate(characters)}, unk_token="")
    )
    backend.pre_tokenizer = Split(tokenizers.Regex("."), behavior="isolated")
    backend.decoder = tokenizers.decoders.Fuse()
    return Tokenizer(backend)


def word_tokenizer(words: Sequence[str]) -> Tokenizer:
    """Make a tokenizer with one token for each word, ids in the order given.

    Texts are split at white space and written with one space between words.

    Raises
    ------
    InputError
        If there is no word, a word occurs twice, or one is empty or holds white space.
    """
    bad = [word for word in words if word.split() != [word]]
    if bad or len(set(words)) != len(words) or not words:
        seen = f"{bad[0]!r}" if bad else f"{list(words)!r}"
        raise InputError(f"expected distinct words without white space, got {seen}")
    backend = tokenizers.Tokenizer(WordLevel({w: i for i, w in enumerate(words)}, unk_token=""))
    backend.pre_tokenizer = WhitespaceSplit()
    return Tokenizer(backend)
