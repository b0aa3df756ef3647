"""The prompt: a row of token ids with the texts, targets and labels that belong to it.

Everything that produces prompts (task generators, a prompt file, a string typed by a user) hands
over this one class, and everything that stores or shows them reads it. It knows nothing of
tokenizers or models: the ids and their texts are given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real

from looplens.errors import InputError

_LARGEST_ID = 2**31 - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """One prompt, tokenized.

    Sequences are kept as tuples, so lists and arrays may be given as well.

    Parameters
    ----------
    token_ids : tuple of int
        The ids that the model is fed, at least one.
    text : str
        The prompt as a person reads it.
    token_texts : tuple of str
        The text of each token, as many as ``token_ids``.
    targets : tuple of int, optional
        At position i, the id that the model should predict *at* position i (so for next-token
        prediction the id of token i + 1). -1 where a position has no target.
    token_metadata : mapping of str to tuple of float
        Named numbers, one a token, NaN where undefined; for example ``difficulty`` or ``hops``.
    metadata : mapping of str to str, int or float
        Named values of the whole prompt; for example ``task``.

    Raises
    ------
    InputError
        If there is no token, a length differs from that of ``token_ids``, an id is negative, or a
        text cannot be written as UTF-8.
    """

    token_ids: tuple[int, ...]
    text: str
    token_texts: tuple[str, ...]
    targets: tuple[int, ...] | None = None
    token_metadata: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    metadata: Mapping[str, str | float | int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Iterating a tensor or an array gives its own scalars: `int` makes plain numbers of them.
        object.__setattr__(self, "token_ids", tuple(int(token) for token in self.token_ids))
        object.__setattr__(self, "token_texts", tuple(self.token_texts))
        if self.targets is not None:
            object.__setattr__(self, "targets", tuple(int(target) for target in self.targets))
        columns = {name: tuple(map(float, row)) for name, row in self.token_metadata.items()}
        object.__setattr__(self, "token_metadata", columns)
        object.__setattr__(self, "metadata", dict(self.metadata))
        self._check()

    def _check(self) -> None:
        length = len(self.token_ids)
        if length == 0:
            raise InputError(
                f"A prompt needs at least one token, but the prompt {self.text!r} has none. "
                "Leave empty prompts out, or give the token that the model starts from."
            )
        if not all(0 <= token <= _LARGEST_ID for token in self.token_ids):
            seen = next(t for t in self.token_ids if not 0 <= t <= _LARGEST_ID)
            raise InputError(
                f"token_ids must lie between 0 and {_LARGEST_ID}, but {self.text!r} has the id "
                f"{seen}."
            )
        rows: dict[str, tuple] = {"token_texts": self.token_texts}
        if self.targets is not None:
            rows["targets"] = self.targets
        rows |= {f"token_metadata[{name!r}]": row for name, row in self.token_metadata.items()}
        for name, row in rows.items():
            if len(row) != length:
                raise InputError(
                    f"The prompt {self.text!r} has {length} token ids but {len(row)} entries in "
                    f"{name}. Give one entry a token."
                )
        if self.targets is not None and not all(-1 <= t <= _LARGEST_ID for t in self.targets):
            seen = next(t for t in self.targets if not -1 <= t <= _LARGEST_ID)
            raise InputError(
                f"targets must be token ids, or -1 where a position has none, but {self.text!r} "
                f"has the target {seen}."
            )
        self._check_texts()
        for name, value in self.metadata.items():
            if not isinstance(value, (str, Real)):
                raise InputError(
                    f"metadata[{name!r}] of the prompt {self.text!r} must be a string or a number, "
                    f"but is a {type(value).__name__}."
                )

    def _check_texts(self) -> None:
        for text in (self.text, *self.token_texts):
            if not isinstance(text, str):
                raise InputError(
                    f"text and token_texts must be strings, but a {type(text).__name__} was given: "
                    f"{text!r}."
                )
        try:
            (self.text + "".join(self.token_texts)).encode()
        except UnicodeEncodeError as error:
            raise InputError(
                "text and token_texts must be writable as UTF-8, but half of a surrogate pair was "
                f"found ({error}). Replace what cannot be shown, for example by U+FFFD."
            ) from error

    def __len__(self) -> int:
        return len(self.token_ids)
