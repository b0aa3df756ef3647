"""What is known of the shape of a module that is not ours, from its configuration or weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from looplens.errors import InputError


@dataclass(slots=True)
class Sizes:
    """Sizes of a module; ``None`` where they are not known.

    Parameters
    ----------
    d_vocab : int
        Size of the vocabulary.
    d_model, n_ctx, n_heads, n_kv_heads, d_head : int, optional
        Width of the state, longest sequence, shape of attention.
    family : str
        The model type of a Hugging Face configuration, else the name of the class.
    config : dict
        The module's own configuration, as far as JSON holds it.
    """

    d_vocab: int
    d_model: int | None = None
    n_ctx: int | None = None
    n_heads: int | None = None
    n_kv_heads: int | None = None
    d_head: int | None = None
    family: str = "unknown"
    config: dict[str, Any] | None = None

    @classmethod
    def of(
        cls, module: nn.Module, *, d_vocab: int | None, d_model: int | None, n_ctx: int | None
    ) -> Sizes:
        """Read the sizes of a module.

        Raises
        ------
        InputError
            If the size of the vocabulary is neither given nor found.
        """
        config = config_of(module)

        def first(*names: str) -> int | None:
            values = (getattr(config, name, None) for name in names)
            return next((v for v in values if isinstance(v, int)), None)

        embeddings = (m for m in module.modules() if isinstance(m, nn.Embedding))
        vocabulary = d_vocab or first("vocab_size", "d_vocab", "padded_vocab_size")
        if vocabulary is None:
            embedding = next(embeddings, None)
            if embedding is None:
                raise InputError(
                    f"the vocabulary of {type(module).__name__} is not known: it has no "
                    "configuration with vocab_size and no nn.Embedding. Pass d_vocab=."
                )
            vocabulary = embedding.num_embeddings
        heads = first("num_attention_heads", "n_heads")
        width = first("hidden_size", "d_model", "n_embd")
        head = first("head_dim", "d_head")
        if head is None and heads and width:
            head = width // heads
        return cls(
            d_vocab=vocabulary,
            d_model=d_model or width,  # until a state has been seen
            n_ctx=n_ctx or first("max_position_embeddings", "n_ctx", "block_size"),
            n_heads=heads,
            n_kv_heads=first("num_key_value_heads", "n_key_value_heads", "n_kv_heads") or heads,
            d_head=head,
            family=str(getattr(config, "model_type", None) or type(module).__name__),
            config=_as_json(config),
        )

    def check_tokens(self, ids: Tensor) -> None:
        """Refuse token ids that the module cannot embed.

        Raises
        ------
        InputError
            With what is wrong.
        """
        if ids.ndim != 2 or not ids.numel():
            raise InputError(
                f"expected token ids of shape (batch, pos), none of them empty; got shape "
                f"{tuple(ids.shape)}"
            )
        if ids.is_floating_point() or ids.dtype == torch.bool:
            raise InputError(f"token ids must be integers, got {ids.dtype}")
        if self.n_ctx is not None and ids.shape[1] > self.n_ctx:
            raise InputError(
                f"the sequence has {ids.shape[1]} tokens, more than n_ctx={self.n_ctx}"
            )
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= self.d_vocab:
            raise InputError(
                f"token id {low if low < 0 else high} is outside the vocabulary "
                f"(0..{self.d_vocab - 1})"
            )


def config_of(module: nn.Module) -> Any:
    """Return the configuration that a module carries, or None; a bridge's is that of its model."""
    original = getattr(module, "original_model", None)
    for owner in (original, module):
        for name in ("config", "cfg"):
            found = getattr(owner, name, None)
            if found is not None:
                return found
    return None


def _as_json(config: Any) -> dict[str, Any]:
    if hasattr(config, "to_dict"):
        values = config.to_dict()
    else:
        values = vars(config) if hasattr(config, "__dict__") else {}
    return json.loads(json.dumps(values, default=str))
