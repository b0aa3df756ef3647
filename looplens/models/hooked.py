"""What a model with a loop offers beside its arithmetic: tokens, padding, hooks by loop coordinate.

:class:`LoopedTransformer` holds the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformer_lens import HookedRootModule

from looplens.errors import InputError
from looplens.loops import LoopClock
from looplens.models.addressing import LoopCache, add_addressed_hooks, caching_hooks
from looplens.models.inputs import check_iterations, check_mask, fit_rows
from looplens.models.tokenizer import Tokenizer


class HasDepth(Protocol):
    """A configuration that says how often a loop runs by default."""

    @property
    def default_iterations(self) -> int:
        """Passes of the loop when a call names none."""


class HookedLoop(HookedRootModule):
    """A module with hook points that know which pass of a loop they are in.

    Parameters
    ----------
    cfg : HasDepth
        Shape and arithmetic.
    tokenizer : Tokenizer or None
        Needed only to pass text.
    name : str
        What the model is called in runs and reports.
    """

    cfg: HasDepth
    embed: torch.nn.Embedding

    def __init__(self, cfg: HasDepth, tokenizer: Tokenizer | None, name: str) -> None:
        super().__init__()
        self.cfg = cfg
        self.tokenizer = tokenizer
        self.model_name = name
        self.clock = LoopClock()
        self.position_offset = 0  # of the first token, while generating from a cache
        self._real: Tensor | None = None  # [batch, pos], False at padding

    def to_tokens(
        self, tokens: Int[Tensor, "batch pos"] | str | Sequence[int]
    ) -> Int[Tensor, "batch pos"]:
        """Turn text, a list of ids or a tensor into a batch of token ids on the model's device."""
        if isinstance(tokens, str):
            if self.tokenizer is None:
                raise InputError("this model has no tokenizer: pass token ids instead of text")
            tokens = self.tokenizer.encode(tokens)
        ids = torch.as_tensor(tokens, device=self.embed.weight.device)
        return ids[None] if ids.ndim == 1 else ids

    def check_iterations(self, iterations: int | None) -> int:
        """Return the number of passes, or raise InputError if it is below 1."""
        return check_iterations(self.cfg.default_iterations if iterations is None else iterations)

    # ------------------------------------------------------------------ padding

    @contextmanager
    def padded(self, attention_mask: Bool[Tensor, "batch pos"] | None) -> Iterator[None]:
        """Say which positions of a batch are padding, on either side, for a ``with`` block.

        Real tokens then get the numbers that they get without the padding: nothing attends to
        padding, and positions, rotary and noise both, count real tokens only.

        Parameters
        ----------
        attention_mask : Bool[Tensor, "batch pos"] or None
            True (or 1) at real tokens; ``None`` changes nothing.

        Raises
        ------
        InputError
            If real tokens are not contiguous, a row has none, or the model is generating from a
            cache.
        """
        previous = self._real
        if attention_mask is not None:
            if self.position_offset:
                raise InputError("padding cannot be combined with a key/value cache")
            self._real = check_mask(attention_mask).to(self.embed.weight.device)
        try:
            yield
        finally:
            self._real = previous

    def padded_positions(self, rows: int, pos: int) -> Int[Tensor, "batch pos"] | None:
        """Return the places of tokens, real ones counted from 0; ``None`` where all are real."""
        real = self.real_tokens(rows, pos)
        return None if real is None else (real.cumsum(-1) - 1).clamp(min=0)

    def real_tokens(self, rows: int, pos: int) -> Bool[Tensor, "batch pos"] | None:
        """Return which tokens are not padding; ``None`` where all are real."""
        if self._real is None:
            return None
        return fit_rows(self._real, rows, pos, "attention_mask")

    # ------------------------------------------------------------------ hooks with loop coordinates

    @contextmanager
    def hooks(
        self,
        fwd_hooks: Sequence[tuple[str | Callable[[str], bool], Callable[..., Any]]] = (),
        bwd_hooks: Sequence[tuple[str | Callable[[str], bool], Callable[..., Any]]] = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
    ) -> Iterator[HookedLoop]:
        """Add hooks for the duration of a ``with`` block, as in TransformerLens.

        Names may be site addresses: ``core.0.hook_resid_post@7``, ``core.*.hook_resid_post@4:``.
        An address that matches no site, or none of the passes that ran, raises SiteError.
        """
        with (
            add_addressed_hooks(self, fwd_hooks, bwd_hooks) as (forward, backward),
            super().hooks(forward, backward, reset_hooks_end, clear_contexts),
        ):
            yield self

    def run_with_cache(
        self,
        *model_args: Any,
        names_filter: str | Sequence[str] | Callable[[str], bool] | None = None,
        device: str | torch.device | None = None,
        remove_batch_dim: bool = False,
        pos_slice: Any = None,
        **model_kwargs: Any,
    ) -> tuple[Tensor, LoopCache]:
        """Run the model and keep the activations of every pass.

        Parameters
        ----------
        *model_args, **model_kwargs
            As for :meth:`forward`.
        names_filter : str, sequence of str or callable, optional
            Site addresses; by default every site in every pass.
        device : optional
            Where the cache is kept.
        remove_batch_dim : bool
            Drop the batch axis of a single sequence.
        pos_slice : int, tuple, list or slice, optional
            Keep these positions only; an int drops their axis, ``(start, stop)`` is a slice.

        Returns
        -------
        logits : Tensor
            As :meth:`forward` returns them.
        cache : LoopCache
            ``cache["resid_post", 0][7]`` is pass 7 of core layer 0, as is
            ``cache["core.0.hook_resid_post@7"]``; without a number, all passes that were kept.
        """
        cache = LoopCache()
        with self.hooks(fwd_hooks=caching_hooks(self, cache, names_filter, device, pos_slice)):
            logits = self(*model_args, **model_kwargs)
        return logits, cache.remove_batch_dim() if remove_batch_dim else cache
