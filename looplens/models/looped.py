"""The looped transformer: prelude, a core that runs again and again over a state, coda.

One class serves every architecture that :class:`LoopedConfig` can describe. It reads top to
bottom; the loop itself is :meth:`LoopedTransformer.iterate`. It knows nothing of recording or
storage: hook points and the loop clock are all that it offers to those.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from looplens.errors import InputError
from looplens.models.config import LoopedConfig
from looplens.models.hook_point import HookPoint
from looplens.models.hooked import HookedLoop
from looplens.models.initial_state import InitialState, as_given, make_initial_state
from looplens.models.initialisation import draw_weights
from looplens.models.injection import DiagonalInjection
from looplens.models.inputs import check_tokens, fit_rows
from looplens.models.layers import Block
from looplens.models.norms import RMSNorm
from looplens.models.rope import RotaryTable
from looplens.models.tokenizer import Tokenizer

State: TypeAlias = Float[Tensor, "batch pos d_model"]


class LoopedTransformer(HookedLoop):
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
    position_offset : int
        Position of the first token given, while generating from a cache.
    tokens : Int[Tensor, "batch pos"] or None
        What :meth:`token_embedding` was last given, where value embeddings need it: every layer
        that runs afterwards belongs to these tokens (or to copies of them along the batch).

    Examples
    --------
    >>> from looplens.models import LoopedConfig, LoopedTransformer
    >>> cfg = LoopedConfig(d_model=16, n_heads=2, d_mlp=32, d_vocab=10, n_ctx=32)
    >>> model = LoopedTransformer(cfg)
    >>> model(torch.tensor([[1, 2, 3]]), iterations=4).shape
    torch.Size([1, 3, 10])
    """

    cfg: LoopedConfig

    def __init__(
        self, cfg: LoopedConfig, tokenizer: Tokenizer | None = None, name: str = "untitled"
    ) -> None:
        super().__init__(cfg, tokenizer, name)
        self.tokens: Tensor | None = None
        self.rotary = RotaryTable.of(cfg)

        def blocks(count: int, first: int) -> nn.ModuleList:
            gated = (layer in cfg.value_embeddings for layer in range(first, first + count))
            return nn.ModuleList(Block(cfg, value_gate=gate) for gate in gated)

        def norm() -> RMSNorm:
            return RMSNorm(cfg.d_model, cfg.norm_eps, cast_last=cfg.norm_cast_last)

        self.embed = nn.Embedding(cfg.d_vocab, cfg.d_model)
        self.prelude = blocks(cfg.n_prelude, 0)
        if cfg.prelude_norm:
            self.ln_prelude = norm()
        if cfg.injection == "linear":
            self.adapter: nn.Module = nn.Linear(2 * cfg.d_model, cfg.d_model, bias=False)
        elif cfg.injection == "diagonal":
            self.adapter = DiagonalInjection(cfg.d_model)
        self.core = blocks(cfg.n_core, cfg.n_prelude)
        if cfg.readout_map:
            self.readout_map = nn.Linear(cfg.d_model, cfg.d_model, bias=False)
        self.coda = blocks(cfg.n_coda, cfg.n_prelude + cfg.n_core)
        self.ln_final = norm()
        if not cfg.tie_embeddings:
            self.unembed = nn.Linear(cfg.d_model, cfg.d_vocab, bias=False)
        if cfg.value_embeddings:
            width = cfg.n_kv_heads * cfg.d_head
            self.value_embeddings = nn.ModuleDict(
                {str(layer): nn.Embedding(cfg.d_vocab, width) for layer in cfg.value_embeddings}
            )
        if cfg.exit_gate:
            self.exit_gate = nn.Linear(cfg.d_model, 1)

        self.hook_embed = HookPoint()  # [batch, pos, d_model], outside the loop
        self.hook_injected = HookPoint()  # [batch, pos, d_model], outside the loop
        self.hook_state = HookPoint()  # [batch, pos, d_model], after every pass
        self.hook_logits = HookPoint()  # [batch, pos, d_vocab], at every readout
        self.setup()
        draw_weights(self, cfg)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return self.embed.weight.dtype

    # ------------------------------------------------------------------ the parts of a forward

    def token_embedding(self, tokens: Int[Tensor, "batch pos"]) -> State:
        """Embed token ids, before the prelude."""
        tokens = check_tokens(tokens, self.cfg)
        self.tokens = tokens if self.cfg.value_embeddings else None
        return self.hook_embed(self.cfg.embedding_scale * self.embed(tokens))

    def run_prelude(self, embedding: State) -> State:
        """Run the prelude: the result is what the loop is fed with."""
        x = self._run(self.prelude, embedding, first=0)
        return self.hook_injected(self.ln_prelude(x) if self.cfg.prelude_norm else x)

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
            embedding_is_gone = self.cfg.n_prelude or self.cfg.prelude_norm
            if embedding_is_gone and "embedding" in (spec, self.cfg.initial_state):
                raise InputError(
                    "this initial state is the token embedding: pass embedding=model."
                    "token_embedding(tokens)"
                )
            embedding = injected
        parsed = InitialState.parse(spec, self.cfg, seed=seed)
        return make_initial_state(
            parsed,
            self.cfg.initial_state,
            embedding=embedding,
            injected=injected,
            positions=self.padded_positions(*injected.shape[:2]),
        )

    def step(self, state: State, injected: State) -> State:
        """Run the core once: ``s_{t+1} = R(s_t; e)``.

        Where the first pass does not inject (``cfg.first_injection``), the loop clock tells which
        pass this is; without a clock it is taken for a later one.
        """
        return self.close(
            self._run(self.core, self.inject(state, injected), first=self.cfg.n_prelude)
        )

    def inject(self, state: State, injected: State) -> State:
        """Return what the first layer of the core reads; see :meth:`step`."""
        kind = self.cfg.injection
        if kind == "none" or (not self.cfg.first_injection and self.clock.iteration == 1):
            return state
        if kind == "add":
            return state + injected
        if kind == "linear":
            return self.adapter(torch.cat((state, injected), dim=-1))
        return self.adapter(state, injected)

    def close(self, x: State) -> State:
        """Return the state from what the last layer of the core leaves."""
        return self.hook_state(self.ln_final(x) if self.cfg.loop_norm else x)

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
        cfg = self.cfg
        x = self.readout_map(state) if cfg.readout_map else state
        x = self.ln_final(x) if cfg.coda_norm else x
        x = self._run(self.coda, x, first=cfg.n_prelude + cfg.n_core)
        x = self.ln_final(x) if cfg.final_norm else x
        return self.hook_logits(self.logits_of(x))

    def logits_of(self, x: State) -> Float[Tensor, "batch pos d_vocab"]:
        """Return what the head makes of a normalised residual stream, in float32."""
        head = self.embed.weight if self.cfg.tie_embeddings else self.unembed.weight
        logits, cap = F.linear(x, head).float(), self.cfg.logit_softcap
        return cap * torch.tanh(logits / cap) if cap else logits

    def gate(self, state: State) -> Float[Tensor, "batch pos"]:
        """Return the raw exit-gate logits of a state (before the sigmoid), in float32.

        Raises
        ------
        InputError
            If the model has no exit gate.
        """
        if not self.cfg.exit_gate:
            raise InputError(f"{self.model_name} has no exit gate (cfg.exit_gate is False)")
        return self.exit_gate(state).squeeze(-1).float()

    def _run(self, blocks: nn.ModuleList, x: State, *, first: int) -> State:
        """Run some layers, ``first`` being the number of the first, counted through the model."""
        rows, pos, _ = x.shape
        real = self.real_tokens(rows, pos)
        here: slice | Tensor | None = self.padded_positions(rows, pos)
        if here is None:
            here = slice(self.position_offset, self.position_offset + pos)
        rotation = self.rotary.at(here, x.device)
        for number, block in enumerate(blocks, start=first):
            values = None
            if number in self.cfg.value_embeddings:
                values = self._token_values(number, rows, pos)
            x = block(x, rotation, values=values, real=real)
        return x

    def _token_values(self, layer: int, rows: int, pos: int) -> Tensor:
        if self.tokens is None:
            raise InputError(
                "this model's layers look at the token ids: call model.token_embedding(tokens) "
                "before running them"
            )
        tokens = fit_rows(self.tokens, rows, pos, "the tokens last embedded")
        return self.value_embeddings[str(layer)](tokens)

    # ------------------------------------------------------------------ the forward

    def forward(
        self,
        tokens: Int[Tensor, "batch pos"] | str | Sequence[int],
        iterations: int | None = None,
        initial_state: str | int | InitialState | Tensor | None = None,
        return_readouts: bool = False,
        attention_mask: Bool[Tensor, "batch pos"] | None = None,
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
        attention_mask : Bool[Tensor, "batch pos"], optional
            See :meth:`padded`.

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
        with self.clock.forward(count), self.padded(attention_mask):
            embedding = self.token_embedding(ids)
            injected = self.run_prelude(embedding)
            state = self.initial_state(injected, initial_state, embedding=embedding)
            readouts = []
            for t, state in enumerate(self.iterate(state, injected, count), start=1):  # noqa: B020
                if return_readouts or t == count:
                    with self.clock.at(t):
                        readouts.append(self.readout(state))
        return torch.stack(readouts) if return_readouts else readouts[-1]
