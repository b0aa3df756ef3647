"""Our own looped transformer as recording sees it, and the door for every other model.

The adapter only translates: the arithmetic, the hook points and the clock are the model's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from looplens.errors import InputError
from looplens.models.adaptive import AdaptiveTransformer
from looplens.models.initial_state import InitialState
from looplens.models.looped import LoopedTransformer
from looplens.models.protocol import (
    INJECTED,
    STATE,
    Listener,
    LoopedModel,
    Site,
    StartLike,
    core_hook_name,
)
from looplens.models.tokenizer import Tokenizer
from looplens.models.wrapping import wrap
from looplens.models.wrapping.presets import adaptive


def as_looped(model: Any) -> LoopedModel:
    """Return a model as recording sees it.

    Raises
    ------
    InputError
        If it is neither a :class:`LoopedTransformer` nor wrapped.
    """
    if isinstance(model, LoopedTransformer):
        return NativeLoop(model)
    if isinstance(model, AdaptiveTransformer):  # loops inside its layers, not around them
        return wrap(model, adaptive(model), name=model.model_name)
    if isinstance(model, LoopedModel):
        return model
    raise InputError(
        "expected a LoopedTransformer (see looplens.load_model) or a model wrapped with "
        f"looplens.wrap(module, loop=...), got {type(model).__name__}"
    )


class NativeLoop:
    """A :class:`LoopedTransformer` as a :class:`~looplens.models.protocol.LoopedModel`.

    Parameters
    ----------
    model : LoopedTransformer
        The model.
    """

    exits_early = False
    has_readout = True

    def __init__(self, model: LoopedTransformer) -> None:
        self.model = model
        self.n_layers: int = model.cfg.n_core
        self.d_model: int = model.cfg.d_model
        self.d_vocab: int = model.cfg.d_vocab
        self.n_ctx: int | None = model.cfg.n_ctx
        self.n_heads: int | None = model.cfg.n_heads
        self.n_kv_heads: int | None = model.cfg.n_kv_heads
        self.d_head: int | None = model.cfg.d_head
        self.injects: bool = model.cfg.injection != "none"
        self.has_gate: bool = model.cfg.exit_gate

    @property
    def model_name(self) -> str:
        """What the model is called in runs and reports."""
        return self.model.model_name

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer, where there is one."""
        return self.model.tokenizer

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return self.model.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.model.embed.weight.device

    @property
    def recordable(self) -> tuple[str, ...]:
        """Site families that every core layer has."""
        first = [name for name in self.model.hook_dict if name.startswith("core.0.")]
        return tuple(name.rpartition("hook_")[2] for name in first)

    def hook_name(self, site: str, layer: int) -> str:
        """Return the hook point of a site of a core layer."""
        return core_hook_name(site, layer)

    def hook_names(self) -> Sequence[str]:
        """Return every hook point of the model."""
        return list(self.model.hook_dict)

    def check_iterations(self, iterations: int | None) -> int:
        """Return the number of passes."""
        return self.model.check_iterations(iterations)

    def to_tokens(self, tokens: Any) -> Int[Tensor, "batch pos"]:
        """Turn text or ids into a batch of token ids."""
        return self.model.to_tokens(tokens)

    def parse_start(self, value: Any, *, seed: int = 0) -> InitialState:
        """Read what the caller says of the initial state."""
        return InitialState.parse(value, self.model.cfg, seed=seed)

    def describe(self) -> dict[str, Any]:
        """Return name, family and configuration."""
        cfg = self.model.cfg
        return {"name": self.model_name, "family": cfg.family, "config": cfg.to_dict()}

    def loop_settings(self, iterations: int) -> dict[str, Any]:
        """Return nothing: iteration and layer say it all."""
        return {}

    def padded(self, attention_mask: Tensor | None) -> AbstractContextManager[None]:
        """Say which positions are padding, for a ``with`` block."""
        return self.model.padded(attention_mask)

    def run_loop(
        self,
        ids: Int[Tensor, "batch pos"],
        starts: Sequence[StartLike | Tensor],
        iterations: int,
        listen: Mapping[Site, Listener],
    ) -> int:
        """Run a batch from every start side by side, with hooks that read the model's clock."""
        model = self.model
        hooks = [
            (self.hook_name(site.name, site.layer), self._on_the_clock(listener))
            for site, listener in listen.items()
            if site.layer is not None
        ]
        with model.hooks(fwd_hooks=hooks), model.clock.forward(iterations):
            embedding = model.token_embedding(ids)
            injected = model.run_prelude(embedding)
            start = torch.cat(
                [
                    model.initial_state(injected, cast(Any, spec), embedding=embedding)
                    for spec in starts
                ]
            )
            fed = injected.repeat(len(starts), 1, 1)
            if INJECTED in listen:
                listen[INJECTED](0, injected)
            if STATE in listen:
                listen[STATE](0, start)
            for t, state in enumerate(model.iterate(start, fed, iterations), start=1):
                if STATE in listen:
                    listen[STATE](t, state)
        return iterations

    def _on_the_clock(self, listener: Listener) -> Any:
        clock = self.model.clock

        def hear(value: Tensor, hook: Any) -> None:
            assert clock.iteration is not None  # core sites fire inside the loop only
            listener(clock.iteration, value)

        return hear

    def readout(
        self, state: Float[Tensor, "batch pos d_model"], iteration: int, iterations: int
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Return the model's own readout, with the clock set."""
        with self.model.clock.forward(iterations), self.model.clock.at(iteration):
            return self.model.readout(state)

    def gate(self, state: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos"] | None:
        """Return the exit logit of a state, where the model has an exit gate."""
        if not self.has_gate:
            return None
        return self.model.gate(state).float()
