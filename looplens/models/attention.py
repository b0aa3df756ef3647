"""Causal self-attention with a hook point on every activation that people ask for.

Attention knows nothing of the loop: it is told neither in which pass it runs nor whether it is
inside the loop. A key/value cache, while one is attached, finds that out for itself.
"""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from looplens.models.config import LoopedConfig
from looplens.models.hook_point import HookPoint
from looplens.models.norms import RMSNorm, at_least_float32, unweighted_rms_norm
from looplens.models.rope import Rotation


class KeyValueCache(Protocol):
    """Keys and values of earlier positions, as attention asks for them."""

    def extend(self, attention: Attention, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Take the new positions' keys and values, return those of all positions so far.

        All are [batch, kv_head, pos, d_head], keys rotated.
        """


class HeldTokens(Protocol):
    """The other tokens of a prompt, held still while one token of it is run by itself."""

    def attend(self, attention: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend to the tokens before this one, and to itself.

        All are [batch, head, 1, d_head], rotated; returns what the heads read, of the shape of q.
        """


class Attention(nn.Module):
    """Causal self-attention with rotary positions and grouped key/value heads.

    The fused kernel runs unless somebody listens to ``hook_attn_scores`` or ``hook_pattern``: only
    then is the softmax written out, since the fused kernel never holds the map.

    Parameters
    ----------
    cfg : LoopedConfig
        Shape and arithmetic.
    value_gate : bool
        Whether token value embeddings are added in this layer, through a learned gate.
    """

    def __init__(self, cfg: LoopedConfig, *, value_gate: bool = False) -> None:
        super().__init__()
        self.cfg = cfg
        self.cache: KeyValueCache | None = None  # set while generating token by token
        self.held: HeldTokens | None = None  # set while one token runs among others that rest
        heads, kv_heads, d_head = cfg.n_heads, cfg.n_kv_heads, cfg.d_head
        self.q_proj = nn.Linear(cfg.d_model, heads * d_head, bias=cfg.qkv_bias)
        self.k_proj = nn.Linear(cfg.d_model, kv_heads * d_head, bias=cfg.qkv_bias)
        self.v_proj = nn.Linear(cfg.d_model, kv_heads * d_head, bias=cfg.qkv_bias)
        self.o_proj = nn.Linear(heads * d_head, cfg.d_model, bias=False)
        if cfg.qk_bias:
            self.q_bias = nn.Parameter(torch.zeros(heads, d_head))
            self.k_bias = nn.Parameter(torch.zeros(kv_heads, d_head))
        if cfg.qk_norm in ("head", "projection"):
            whole = cfg.qk_norm == "projection"
            widths = (heads * d_head, kv_heads * d_head) if whole else (d_head, d_head)
            self.q_norm, self.k_norm = (
                RMSNorm(width, cfg.norm_eps, cast_last=cfg.norm_cast_last) for width in widths
            )
        if value_gate:
            self.value_gate = nn.Linear(cfg.value_gate_width, kv_heads, bias=False)
        self.hook_q = HookPoint()  # [batch, pos, head, d_head], before the rotation
        self.hook_k = HookPoint()  # [batch, pos, kv_head, d_head], before the rotation
        self.hook_v = HookPoint()  # [batch, pos, kv_head, d_head]
        self.hook_attn_scores = HookPoint()  # [batch, head, query, key]
        self.hook_pattern = HookPoint()  # [batch, head, query, key]
        self.hook_z = HookPoint()  # [batch, pos, head, d_head]

    def forward(
        self,
        x: Float[Tensor, "batch pos d_model"],
        rotation: Rotation,
        *,
        values: Float[Tensor, "batch pos kv_width"] | None = None,
        real: Bool[Tensor, "batch pos"] | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """Attend.

        Parameters
        ----------
        x : Float[Tensor, "batch pos d_model"]
            Input, normalised where the layer does so.
        rotation : Rotation
            Of these positions, from a :class:`~looplens.models.rope.RotaryTable`.
        values : Float[Tensor, "batch pos kv_width"], optional
            Value embeddings of the tokens, for a layer with a value gate.
        real : Bool[Tensor, "batch pos"], optional
            False at padding, which nothing attends to; by default every position is real.
        """
        cfg = self.cfg
        q, k, v = self._project(x)
        if values is not None:
            gate = 2 * torch.sigmoid(self.value_gate(x[..., : cfg.value_gate_width]))
            v = v + gate[..., None] * values.view_as(v)
        q, k, v = self.hook_q(q), self.hook_k(k), self.hook_v(v)
        q, k = rotation(q), rotation(k)
        if cfg.qk_norm == "rotated":
            q, k = unweighted_rms_norm(q), unweighted_rms_norm(k)
        q, k, v = (y.transpose(1, 2) for y in (q, k, v))  # [batch, head, pos, d_head]
        if self.cache is not None:
            k, v = self.cache.extend(self, k, v)
        if self.held is not None:
            z = self.held.attend(self, q, k, v)
        elif self.hook_pattern.is_heard or self.hook_attn_scores.is_heard:
            z = self._explicit(q, k, v, real)
        else:
            z = self._fused(q, k, v, real)
        z = self.hook_z(z.transpose(1, 2))  # [batch, pos, head, d_head]
        return self.o_proj(z.flatten(-2))

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        cfg, (batch, pos, _) = self.cfg, x.shape
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        if cfg.qk_norm == "projection":
            q, k = self.q_norm(q), self.k_norm(k)
        q = q.view(batch, pos, cfg.n_heads, cfg.d_head)
        k = k.view(batch, pos, cfg.n_kv_heads, cfg.d_head)
        v = v.view(batch, pos, cfg.n_kv_heads, cfg.d_head)
        if cfg.qk_norm == "head":
            q, k = self.q_norm(q), self.k_norm(k)
        if cfg.qk_bias:
            q, k = q + self.q_bias, k + self.k_bias
        return q, k, v

    def _fused(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor | None) -> Tensor:
        grouped = self.cfg.n_kv_heads != self.cfg.n_heads
        queries, keys = q.shape[2], k.shape[2]
        if queries == keys and real is None:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
        hidden = _hidden(queries, keys, q.device, real)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=~hidden, enable_gqa=grouped)

    def _explicit(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor | None) -> Tensor:
        group = self.cfg.n_heads // self.cfg.n_kv_heads
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        scores = q @ k.transpose(-2, -1) / self.cfg.d_head**0.5  # [batch, head, query, key]
        hidden = _hidden(q.shape[2], k.shape[2], q.device, real)
        scores = self.hook_attn_scores(scores.masked_fill(hidden, float("-inf")))
        pattern = self.hook_pattern(at_least_float32(scores).softmax(-1).to(v.dtype))
        return pattern @ v


def _hidden(queries: int, keys: int, device: torch.device, real: Tensor | None) -> Tensor:
    """Mark what a query must not see: later keys (the last query stands at the last key), padding.

    Every query sees itself, padding too, so that no row of the softmax is empty.
    """
    future = torch.ones(queries, keys, dtype=torch.bool, device=device).triu(1 + keys - queries)
    if real is None:
        return future
    padding = ~real[:, None, None, :] & ~torch.eye(keys, dtype=torch.bool, device=device)
    return future | padding
