r"""A transformer whose layers loop by themselves, halt by a router and read memory banks.

For layer ``i`` with input ``h_0``, in step ``n = 0..N-1``::

    x~      = h_n + gate_local * P_local r_local + gate_global * P_global r_global
    u       = x~ + s_n attention(norm_1 x~);   h_{n+1} = u + s_n mlp(norm_2 u)
    lam_n   = sigmoid(w . [h_{n+1}; n / max(1, N-1)] + b)
    p_n     = lam_n prod_{j<n} (1 - lam_j);    p_{N-1} = what is left
    output  = sum_n p_n h_{n+1}

with ``r = softmax(LN_q(LN_m(h_n)) . LN_k(K) / sqrt(d)) V`` and ``s_n = softplus(a_n)``. Norms of
the backbone are RMSNorms, those of the memory layer norms.

This is a reconstruction: no weights are published, and no public file combines router, gate and
both banks. It has no shared core, so states are counted by layer and step, and it is looked at with
:meth:`AdaptiveTransformer.trace`.

References
----------
.. [1] Frey et al., arXiv:2603.08391 (adaptive loops per layer with gated memory).
.. [2] Banino et al., "PonderNet: Learning to Ponder", arXiv:2107.05407, section 2 (the halting
   distribution).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from looplens.models.adaptive_config import AdaptiveConfig
from looplens.models.attention import Attention
from looplens.models.hook_point import HookPoint
from looplens.models.hooked import HookedLoop
from looplens.models.inputs import check_tokens
from looplens.models.memory_banks import MemoryBanks, MemoryGate
from looplens.models.mlp import make_mlp
from looplens.models.norms import RMSNorm
from looplens.models.rope import RotaryTable, Rotation
from looplens.models.tokenizer import Tokenizer


class AdaptiveLayer(nn.Module):
    """One layer that runs up to ``max_steps`` times over its own output.

    Parameters
    ----------
    cfg : AdaptiveConfig
        Shape and arithmetic.
    number : int
        Which layer this is.
    """

    def __init__(self, cfg: AdaptiveConfig, number: int) -> None:
        super().__init__()
        self.cfg, self.number = cfg, number
        parts = cfg.layer()
        self.norm_1 = RMSNorm(cfg.d_model, cfg.norm_eps)
        self.attn = Attention(parts)
        self.norm_2 = RMSNorm(cfg.d_model, cfg.norm_eps)
        self.mlp = make_mlp(parts)
        self.loop_scales = nn.Parameter(torch.full((cfg.max_steps,), cfg.scale_start))
        self.banks = [bank for bank in ("local", "global") if getattr(cfg, f"{bank}_slots")]
        if self.banks:
            self.mem_norm = nn.LayerNorm(cfg.d_model)
            self.mem_gates = nn.ModuleDict({bank: MemoryGate(cfg) for bank in self.banks})
        if cfg.halting == "router":
            self.halt_router = nn.Linear(cfg.d_model + 1, 1)
        else:
            self.halt_tau = nn.Parameter(torch.zeros(()))  # softplus of it is the scale of change
        self.hook_resid_pre = HookPoint()  # [batch, pos, d_model], in every step, as are the next
        self.hook_attn_out = HookPoint()
        self.hook_mlp_out = HookPoint()
        self.hook_state = HookPoint()  # h_{n+1}
        self.hook_halting = HookPoint()  # [batch, pos], p_n
        self.hook_resid_post = HookPoint()  # [batch, pos, d_model], the weighted sum, once

    def step(
        self,
        h: Float[Tensor, "batch pos d_model"],
        n: int,
        memory: MemoryBanks,
        rotation: Rotation,
        real: Bool[Tensor, "batch pos"] | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """Run the layer once, as step ``n`` (counted from 0); ``real`` is False at padding."""
        h = self.hook_resid_pre(h)
        x = h
        if self.banks:
            query = self.mem_norm(h)
            for bank in self.banks:
                x = x + self.mem_gates[bank](h, memory.read(query, bank, self.number))
        scale = F.softplus(self.loop_scales[n])
        u = x + self.hook_attn_out(scale * self.attn(self.norm_1(x), rotation, real=real))
        return self.hook_state(u + self.hook_mlp_out(scale * self.mlp(self.norm_2(u))))

    def halting(self, before: Tensor, after: Tensor, n: int) -> Float[Tensor, "batch pos"]:
        """Return the probability of halting after step ``n``, given that it was reached."""
        if self.cfg.halting == "change":
            change = (after - before).norm(dim=-1) / before.norm(dim=-1).clamp(min=1e-8)
            return torch.exp(-change / F.softplus(self.halt_tau))
        done = n / max(1, self.cfg.max_steps - 1)
        fraction = torch.full_like(after[..., :1], done)
        return torch.sigmoid(self.halt_router(torch.cat((after, fraction), dim=-1)))[..., 0]


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaptiveTrace:
    """What one forward of an adaptive model went through.

    Attributes
    ----------
    token_ids : Int[Tensor, "batch pos"]
        What was run.
    states : Float[Tensor, "layer step+1 batch pos d_model"]
        Input of each layer, then its state after every step.
    halting : Float[Tensor, "layer step batch pos"]
        Probability of halting after each step; sums to 1 over steps.
    outputs : Float[Tensor, "layer batch pos d_model"]
        What each layer hands on, its states weighted by ``halting``.
    logits : Float[Tensor, "batch pos d_vocab"]
        The answer.
    """

    token_ids: Int[Tensor, "batch pos"]
    states: Float[Tensor, "layer step_and_initial batch pos d_model"]
    halting: Float[Tensor, "layer step batch pos"]
    outputs: Float[Tensor, "layer batch pos d_model"]
    logits: Float[Tensor, "batch pos d_vocab"]

    @property
    def expected_steps(self) -> Float[Tensor, "layer batch pos"]:
        """Mean number of steps under the halting distribution."""
        steps = torch.arange(1, self.halting.shape[1] + 1, device=self.halting.device)
        return torch.einsum("lnbp,n->lbp", self.halting, steps.to(self.halting))

    @property
    def ponder_cost(self) -> float:
        """Expected steps beyond the first, as a share of those allowed: 0 to 1."""
        most = self.halting.shape[1]
        return float((self.expected_steps.mean() - 1) / max(1, most - 1))


class AdaptiveTransformer(HookedLoop):
    """A transformer of adaptive layers, with hook points that know which step they are in.

    Parameters
    ----------
    cfg : AdaptiveConfig
        Shape and arithmetic.
    tokenizer : Tokenizer, optional
        Needed only to pass text.
    name : str
        What the model is called.

    Examples
    --------
    >>> from looplens.models import AdaptiveConfig, AdaptiveTransformer
    >>> cfg = AdaptiveConfig(d_model=16, n_heads=2, d_mlp=32, d_vocab=10, n_ctx=32, n_layers=2)
    >>> AdaptiveTransformer(cfg).trace([1, 2, 3]).halting.shape
    torch.Size([2, 3, 1, 3])
    """

    cfg: AdaptiveConfig

    def __init__(
        self, cfg: AdaptiveConfig, tokenizer: Tokenizer | None = None, name: str = "untitled"
    ) -> None:
        super().__init__(cfg, tokenizer, name)
        self.rotary = RotaryTable.of(cfg.layer())
        self.embed = nn.Embedding(cfg.d_vocab, cfg.d_model)
        self.memory = MemoryBanks(cfg)
        self.layers = nn.ModuleList(AdaptiveLayer(cfg, i) for i in range(cfg.n_layers))
        self.ln_final = RMSNorm(cfg.d_model, cfg.norm_eps)
        if not cfg.tie_embeddings:
            self.unembed = nn.Linear(cfg.d_model, cfg.d_vocab, bias=False)
        self.hook_embed = HookPoint()  # [batch, pos, d_model]
        self.hook_logits = HookPoint()  # [batch, pos, d_vocab]
        self.setup()

    def run_layer(
        self, layer: AdaptiveLayer, x: Float[Tensor, "batch pos d_model"], *, stop_early: bool
    ) -> Float[Tensor, "batch pos d_model"]:
        """Run one layer until it halts.

        Parameters
        ----------
        layer : AdaptiveLayer
            One of ``model.layers``.
        x : Float[Tensor, "batch pos d_model"]
            Its input.
        stop_early : bool
            Leave once no token of the batch has ``halt_threshold`` of its mass left; the last state
            takes the rest. A token's result can then depend on its company in the batch.
        """
        rows, pos, _ = x.shape
        real = self.real_tokens(rows, pos)
        here: slice | Tensor | None = self.padded_positions(rows, pos)
        if here is None:
            here = slice(self.position_offset, self.position_offset + pos)
        rotation = self.rotary.at(here, x.device)
        most = self.cfg.max_steps
        left = x.new_ones(rows, pos)
        output, h = torch.zeros_like(x), x
        for n in range(most):
            with self.clock.at(n + 1):
                after = layer.step(h, n, self.memory, rotation, real)
                p = left * layer.halting(h, after, n)
                rest = left - p
                if n == most - 1 or (stop_early and rest.max() < self.cfg.halt_threshold):
                    p, rest = left, torch.zeros_like(left)
                p = layer.hook_halting(p)
            output = output + p[..., None] * after
            left, h = rest, after
            if n < most - 1 and stop_early and not left.any():
                break
        return layer.hook_resid_post(output)

    def forward(
        self, tokens: Int[Tensor, "batch pos"] | str | Sequence[int], *, stop_early: bool = False
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Run the model; ``stop_early`` as in :meth:`run_layer`.

        Raises
        ------
        InputError
            If a token id is outside the vocabulary, or the sequence is empty or longer than
            ``n_ctx``.
        """
        ids = check_tokens(self.to_tokens(tokens), self.cfg.layer())
        with self.clock.forward(self.cfg.max_steps):
            x = self.hook_embed(self.embed(ids))
            for layer in self.layers:
                assert isinstance(layer, AdaptiveLayer)
                x = self.run_layer(layer, x, stop_early=stop_early)
        head = self.embed.weight if self.cfg.tie_embeddings else self.unembed.weight
        return self.hook_logits(F.linear(self.ln_final(x), head).float())

    @torch.no_grad()
    def trace(self, tokens: Int[Tensor, "batch pos"] | str | Sequence[int]) -> AdaptiveTrace:
        """Run every layer for all its steps and keep every state.

        Raises
        ------
        InputError
            As for :meth:`forward`.
        """
        kept: dict[str, list[Tensor]] = {}

        def keep(value: Tensor, hook: HookPoint) -> None:
            kept.setdefault(str(hook.name), []).append(value)

        sites = ("hook_resid_pre", "hook_state", "hook_halting", "hook_resid_post")
        with self.hooks(fwd_hooks=[(f"layers.*.{site}", keep) for site in sites]):
            logits = self(tokens)

        def of(site: str) -> list[Tensor]:
            return [torch.stack(kept[f"layers.{i}.{site}"]) for i in range(self.cfg.n_layers)]

        first = [values[:1] for values in of("hook_resid_pre")]
        return AdaptiveTrace(
            token_ids=self.to_tokens(tokens),
            states=torch.stack(
                [torch.cat(pair) for pair in zip(first, of("hook_state"), strict=True)]
            ),
            halting=torch.stack(of("hook_halting")),
            outputs=torch.stack(of("hook_resid_post"))[:, 0],
            logits=logits,
        )
