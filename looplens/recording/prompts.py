"""Prompts in, whatever form they come in: text, token ids, or labelled :class:`Prompt` objects.

Everything is checked here, before anything is written. This module knows the vocabulary of the
model and nothing of the loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from looplens.errors import InputError
from looplens.models import LoopedTransformer
from looplens.models.native import as_looped
from looplens.models.protocol import LoopedModel
from looplens.prompts import Prompt

PromptLike = str | Sequence[int] | Tensor | Prompt


def as_prompts(
    prompts: PromptLike | Iterable[PromptLike], model: LoopedTransformer | LoopedModel
) -> list[Prompt]:
    """Turn what the caller has into checked prompts.

    Parameters
    ----------
    prompts : str, Prompt, Int[Tensor, "pos"], Int[Tensor, "batch pos"], or an iterable of these
        Text is encoded by the model's tokenizer. A flat list of integers is one prompt.
    model : LoopedTransformer or LoopedModel
        Gives vocabulary, tokenizer and longest sequence.

    Raises
    ------
    InputError
        If there is no prompt, a prompt is empty or too long, or a character or token id is outside
        the vocabulary; the message names the prompt by its index.
    """
    looped = as_looped(model)
    listed: list[Any]
    if isinstance(prompts, str | Prompt) or getattr(prompts, "ndim", None) == 1:
        listed = [prompts]
    elif isinstance(prompts, Iterable):
        listed = list(prompts)
    else:
        raise InputError(
            f"expected texts, token ids or Prompts to record, got {type(prompts).__name__}"
        )
    if listed and all(isinstance(item, int | np.integer) for item in listed):
        listed = [listed]
    if not listed:
        raise InputError("there are no prompts: expected at least one text or list of token ids")
    checked = []
    for index, item in enumerate(listed):
        try:
            checked.append(_as_prompt(item, looped))
        except InputError as error:
            raise InputError(f"prompt {index}: {error}") from None
    return checked


def _as_prompt(item: PromptLike, model: LoopedModel) -> Prompt:
    if isinstance(item, Prompt):
        prompt = item
    else:
        ids = _ids(model.to_tokens(item)[0] if isinstance(item, str) else item)
        if not ids:
            raise InputError("the prompt is empty: expected at least one token")
        _check_vocabulary(ids, model)
        texts = tuple(_token_text(token, model) for token in ids)
        text = item if isinstance(item, str) else "".join(texts)
        prompt = Prompt(token_ids=tuple(ids), text=text, token_texts=texts)
    _check_vocabulary(prompt.token_ids, model)
    if model.n_ctx is not None and len(prompt.token_ids) > model.n_ctx:
        raise InputError(
            f"the prompt has {len(prompt.token_ids)} tokens, more than n_ctx={model.n_ctx}"
        )
    if prompt.targets is not None:
        _check_vocabulary([t for t in prompt.targets if t != -1], model)
    return prompt


def _ids(item: Any) -> list[int]:
    if getattr(item, "ndim", 1) != 1:
        raise InputError(f"expected one row of token ids, got shape {tuple(item.shape)}")
    values = item.tolist() if hasattr(item, "tolist") else item
    if not isinstance(values, Iterable) or isinstance(values, bytes):
        raise InputError(f"expected a text or token ids, got {type(item).__name__}")
    ids = list(values)
    wrong = [i for i in ids if isinstance(i, bool) or not isinstance(i, int | np.integer)]
    if wrong:
        raise InputError(f"token ids must be integers, got {wrong[0]!r}")
    return [int(i) for i in ids]


def _token_text(token: int, model: LoopedModel) -> str:
    return model.tokenizer.token_text(token) if model.tokenizer else f"[{token}]"


def _check_vocabulary(ids: Sequence[int], model: LoopedModel) -> None:
    outside = [i for i in ids if not 0 <= i < model.d_vocab]
    if outside:
        raise InputError(
            f"token id {outside[0]} is outside the vocabulary (0..{model.d_vocab - 1})"
        )
