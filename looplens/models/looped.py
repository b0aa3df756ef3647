"""The looped transformer: prelude, a core that runs again and again over a state, coda.

One class serves every architecture that :class:`LoopedConfig` can describe. It reads top to
bottom; the loop itself is :meth:`LoopedTransformer.iterate`. It knows nothing of recording or
storage: hook points and the loop clock are all that it offers to those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from looplens.errors import InputError
from looplens.loops import LoopClock
from looplens.models.addressing import LoopCache, add_addressed_hooks, caching_hooks
from looplens.models.config import LoopedConfig
from looplens.models.initial_state import InitialState, as_given, make_initial_state
from looplens.models.inputs import check_iterations, check_tokens
from looplens.models.layers import Block, RMSNorm, rotary_table
from looplens.models.tokenizer import Tokenizer

State: TypeAlias = Float[Tensor, "batch pos d_model"]


class LoopedTransformer(HookedRootModule):
    """A looped transformer with hook points that know which pass they are in.

    Parameters
    ----------
    cfg : LoopedConfig
        Shape and arithmetic.
    tokenizer : Tokenizer, optional
        Needed only to pass text.
    name : str
        What the model is called in runs and reports.

    Attributes
    ----------
    clock : LoopClock
        The running pass; hooks read ``model.clock.iteration``.

    Examples
    --------
    >>> from looplens.models import LoopedConfig, LoopedTransformer
    >>> cfg = LoopedConfig(d_model=16, n_heads=2, d_mlp=32, d_vocab=10, n_ctx=32)
    >>> model = LoopedTransformer(cfg)
    >>> model(torch.tensor([[1, 2, 3]]), iterations=4).shape
    torch.Size([1, 3, 10])
    """

    def __init__(
        self, cfg: LoopedConfig, tokenizer: Tokenizer | None = None, name: str = "untitled"
    ) -> None:
        super().__init__()
        self.cfg = cfg
        self.tokenizer = tokenizer
        self.model_name = name
        self.clock = LoopClock()
        self.position_offset = 0  # of the first token, while generating from a cache

        self.embed = nn.Embedding(cfg.d_vocab, cfg.d_model)
        self.prelude = nn.ModuleList(Block(cfg) for _ in range(cfg.n_prelude))
        if cfg.injection == "linear":
            self.adapter = nn.Linear(2 * cfg.d_model, cfg.d_model, bias=False)
        self.core = nn.ModuleList(Block(cfg) for _ in range(cfg.n_core))
        self.coda = nn.ModuleList(Block(cfg) for _ in range(cfg.n_coda))
        self.ln_final = RMSNorm(cfg.d_model, cfg.norm_eps)
        if not cfg.tie_embeddings:
            self.unembed = nn.Linear(cfg.d_model, cfg.d_vocab, bias=False)
        cos, sin = rotary_table(cfg.n_ctx, cfg.d_head, cfg.rope_theta)
        self.register_buffer("rope_cos", cos, persistent=False)
        self.register_buffer("rope_sin", sin, persistent=False)

        self.hook_embed = HookPoint()  # [batch, pos, d_model], outside the loop
        self.hook_injected = HookPoint()  # [batch, pos, d_model], outside the loop
        self.hook_state = HookPoint()  # [batch, pos, d_model], after every pass
        self.hook_logits = HookPoint()  # [batch, pos, d_vocab], at every readout
        self.setup()
        self._initialise()

    def _initialise(self) -> None:
        """Draw weights with variance 2/(5 d), branch outputs smaller by the depth they add up over.

        Takase et al. 2023 as used by Huginn (arXiv:2502.05171, section 3.2).
        """
        std = (2 / (5 * self.cfg.d_model)) ** 0.5
        for name, weight in self.named_parameters():
            if weight.ndim < 2:
                continue
            is_branch_output = name.endswith(("o_proj.weight", "down_proj.weight"))
            depth = (2 * self.cfg.effective_depth) ** 0.5 if is_branch_output else 1.0
            nn.init.trunc_normal_(weight, std=std / depth, a=-3 * std, b=3 * std)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return self.embed.weight.dtype

    # ------------------------------------------------------------------ the parts of a forward

    def token_embedding(self, tokens: Int[Tensor, "batch pos"]) -> State:
        """Embed token ids, before the prelude."""
        return self.hook_embed(
            self.cfg.embedding_scale * self.embed(check_tokens(tokens, self.cfg))
        )

    def run_prelude(self, embedding: State) -> State:
        """Run the prelude: the result is what the loop is fed with."""
        x = embedding
        for block in self.prelude:
            x = block(x, *self._rope(x.shape[1]))
        return self.hook_injected(x)

    def embed_tokens(self, tokens: Int[Tensor, "batch pos"]) -> State:
        """Embed token ids and run the prelude."""
        return self.run_prelude(self.token_embedding(tokens))

    def initial_state(
        self,
        injected: State,
        spec: str | int | InitialState | Tensor | None = None,
        *,
        embedding: State | None = None,
        seed: int = 0,
    ) -> State:
        """Make the state that the loop starts from.

        Parameters
        ----------
        injected : Float[Tensor, "batch pos d_model"]
            Output of :meth:`embed_tokens`.
        spec : str, int, InitialState, Tensor or None
            ``None``: the model's own scheme. A seed, a scheme name (``noise``, ``zeros``,
            ``embedding``, ``prelude``, ``perturbed``, or ``"perturbed:0.3"``), or the state itself.
        embedding : Float[Tensor, "batch pos d_model"], optional
            Output of :meth:`token_embedding`; only needed where the start is the embedding and
            there is a prelude.
        seed : int
            Seed for schemes that draw, unless ``spec`` is one.

        Raises
        ------
        InputError
            If a tensor has the wrong shape, or the scheme is unknown.
        """
        if isinstance(spec, Tensor):
            return as_given(spec, injected)
        if embedding is None:
            if self.cfg.n_prelude and "embedding" in (spec, self.cfg.initial_state):
                raise InputError(
                    "this initial state is the token embedding: pass embedding=model."
                    "token_embedding(tokens)"
                )
            embedding = injected
        parsed = InitialState.parse(spec, self.cfg, seed=seed)
        return make_initial_state(
            parsed, self.cfg.initial_state, embedding=embedding, injected=injected
        )

    def step(self, state: State, injected: State) -> State:
        """Run the core once: ``s_{t+1} = R(s_t; e)``."""
        if self.cfg.injection == "linear":
            x = self.adapter(torch.cat((state, injected), dim=-1))
        elif self.cfg.injection == "add":
            x = state + injected
        else:
            x = state
        rope = self._rope(x.shape[1])
        for block in self.core:
            x = block(x, *rope)
        if self.cfg.loop_norm:
            x = self.ln_final(x)
        return self.hook_state(x)

    def iterate(self, state: State, injected: State, iterations: int) -> Iterator[State]:
        """Yield the state after each of so many passes, with the loop clock set."""
        for t in range(1, iterations + 1):
            with self.clock.at(t):
                state = self.step(state, injected)
            yield state

    def readout(self, state: State) -> Float[Tensor, "batch pos d_vocab"]:
        """Return what the model says from this state: coda, norms and head.

        Logits are float32.
        """
        x = self.ln_final(state) if self.cfg.coda_norm else state
        for block in self.coda:
            x = block(x, *self._rope(x.shape[1]))
        if self.cfg.final_norm:
            x = self.ln_final(x)
        head = self.embed.weight if self.cfg.tie_embeddings else self.unembed.weight
        return self.hook_logits(F.linear(x, head).float())

    # ------------------------------------------------------------------ the forward

    def forward(
        self,
        tokens: Int[Tensor, "batch pos"] | str | Sequence[int],
        iterations: int | None = None,
        initial_state: str | int | InitialState | Tensor | None = None,
        return_readouts: bool = False,
    ) -> Tensor:
        """Run the model.

        Parameters
        ----------
        tokens : Int[Tensor, "batch pos"], str or sequence of int
            Token ids, or text where the model has a tokenizer.
        iterations : int, optional
            Passes of the loop; by default ``cfg.default_iterations``.
        initial_state : optional
            See :meth:`initial_state`. Noise is drawn with seed 0 unless told otherwise, so two
            calls give the same result.
        return_readouts : bool
            Return the readout after every pass instead of the last.

        Returns
        -------
        Float[Tensor, "batch pos d_vocab"] or Float[Tensor, "iteration batch pos d_vocab"]
            Logits.

        Raises
        ------
        InputError
            If a token id is outside the vocabulary, the sequence is empty or longer than
            ``n_ctx``, or ``iterations`` is below 1.
        """
        count = self.check_iterations(iterations)
        ids = self.to_tokens(tokens)
        with self.clock.forward(count):
            embedding = self.token_embedding(ids)
            injected = self.run_prelude(embedding)
            state = self.initial_state(injected, initial_state, embedding=embedding)
            readouts = []
            for t, state in enumerate(self.iterate(state, injected, count), start=1):  # noqa: B020
                if return_readouts or t == count:
                    with self.clock.at(t):
                        readouts.append(self.readout(state))
        return torch.stack(readouts) if return_readouts else readouts[-1]

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

    def _rope(self, positions: int) -> tuple[Tensor, Tensor]:
        here = slice(self.position_offset, self.position_offset + positions)
        return self.rope_cos[here], self.rope_sin[here]

    # ------------------------------------------------------------------ hooks with loop coordinates

    @contextmanager
    def hooks(
        self,
        fwd_hooks: Sequence[tuple[str | Callable[[str], bool], Callable[..., Any]]] = (),
        bwd_hooks: Sequence[tuple[str | Callable[[str], bool], Callable[..., Any]]] = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
    ) -> Iterator[LoopedTransformer]:
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

        Returns
        -------
        logits : Tensor
            As :meth:`forward` returns them.
        cache : LoopCache
            ``cache["core.0.hook_resid_post@7"]`` is one pass,
            ``cache["core.0.hook_resid_post"]`` all of them, stacked along a first axis.
        """
        cache = LoopCache()
        with self.hooks(fwd_hooks=caching_hooks(self, cache, names_filter, device)):
            logits = self(*model_args, **model_kwargs)
        return logits, cache
