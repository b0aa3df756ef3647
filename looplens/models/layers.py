"""The parts of a looped transformer's layer: norm, rotary positions, attention, MLP, block.

Each part is written out with a hook point on every activation that people ask for, under the
names of TransformerLens. The parts know nothing of the loop: a block is told neither in which pass
it runs nor whether it is inside the loop.
"""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from transformer_lens.hook_points import HookPoint

from looplens.models.config import LoopedConfig, RopeStyle


class RMSNorm(nn.Module):
    """Root-mean-square norm; the mean is taken in float32, then cast back, then scaled."""

    def __init__(self, d_model: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """Normalise the last axis."""
        y = x.float()
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * y.to(x.dtype)


def rotary_table(
    n_ctx: int, d_head: int, theta: float
) -> tuple[Float[Tensor, "n_ctx half"], Float[Tensor, "n_ctx half"]]:
    """Return cosines and sines of the rotary angles ``p * theta ** (-2 i / d_head)``."""
    frequency = theta ** (-torch.arange(0, d_head, 2, dtype=torch.float64) / d_head)
    angle = torch.arange(n_ctx, dtype=torch.float64)[:, None] * frequency
    return angle.cos().float(), angle.sin().float()


def rotate(
    x: Float[Tensor, "batch pos head d_head"],
    cos: Float[Tensor, "pos half"],
    sin: Float[Tensor, "pos half"],
    style: RopeStyle,
) -> Float[Tensor, "batch pos head d_head"]:
    """Rotate pairs of components: ``(i, i + d_head/2)`` or the adjacent ``(2i, 2i + 1)``."""
    y = x.float()
    cos, sin = cos[:, None], sin[:, None]  # [pos, 1, half]
    if style == "half_split":
        a, b = y.chunk(2, dim=-1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)
    a, b = y[..., 0::2], y[..., 1::2]
    return torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2).to(x.dtype)


class KeyValueCache(Protocol):
    """Keys and values of earlier positions, as attention asks for them."""

    def extend(self, attention: Attention, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Take the new positions' keys and values, return those of all positions so far.

        All are [batch, kv_head, pos, d_head], keys rotated.
        """


class Attention(nn.Module):
    """Causal self-attention with rotary positions and grouped key/value heads.

    The fused kernel runs unless somebody listens to ``hook_attn_scores`` or ``hook_pattern``: only
    then is the softmax written out, since the fused kernel never holds the map.
    """

    def __init__(self, cfg: LoopedConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.cache: KeyValueCache | None = None  # set while generating token by token
        heads, kv_heads, d_head = cfg.n_heads, cfg.n_kv_heads, cfg.d_head
        self.q_proj = nn.Linear(cfg.d_model, heads * d_head, bias=False)
        self.k_proj = nn.Linear(cfg.d_model, kv_heads * d_head, bias=False)
        self.v_proj = nn.Linear(cfg.d_model, kv_heads * d_head, bias=False)
        self.o_proj = nn.Linear(heads * d_head, cfg.d_model, bias=False)
        if cfg.qk_bias:
            self.q_bias = nn.Parameter(torch.zeros(heads, d_head))
            self.k_bias = nn.Parameter(torch.zeros(kv_heads, d_head))
        self.hook_q = HookPoint()  # [batch, pos, head, d_head], before the rotation
        self.hook_k = HookPoint()  # [batch, pos, kv_head, d_head], before the rotation
        self.hook_v = HookPoint()  # [batch, pos, kv_head, d_head]
        self.hook_attn_scores = HookPoint()  # [batch, head, query, key]
        self.hook_pattern = HookPoint()  # [batch, head, query, key]
        self.hook_z = HookPoint()  # [batch, pos, head, d_head]

    def forward(
        self,
        x: Float[Tensor, "batch pos d_model"],
        cos: Float[Tensor, "pos half"],
        sin: Float[Tensor, "pos half"],
    ) -> Float[Tensor, "batch pos d_model"]:
        """Attend; ``cos`` and ``sin`` are the rotary table of these positions."""
        cfg = self.cfg
        batch, pos, _ = x.shape
        q = self.q_proj(x).view(batch, pos, cfg.n_heads, cfg.d_head)
        k = self.k_proj(x).view(batch, pos, cfg.n_kv_heads, cfg.d_head)
        v = self.v_proj(x).view(batch, pos, cfg.n_kv_heads, cfg.d_head)
        if cfg.qk_bias:
            q, k = q + self.q_bias, k + self.k_bias
        q, k, v = self.hook_q(q), self.hook_k(k), self.hook_v(v)
        q = rotate(q, cos, sin, cfg.rope_style).transpose(1, 2)  # [batch, head, pos, d_head]
        k = rotate(k, cos, sin, cfg.rope_style).transpose(1, 2)
        v = v.transpose(1, 2)
        if self.cache is not None:
            k, v = self.cache.extend(self, k, v)
        if _is_heard(self.hook_pattern) or _is_heard(self.hook_attn_scores):
            z = self._explicit(q, k, v)
        else:
            z = self._fused(q, k, v)
        z = self.hook_z(z.transpose(1, 2))  # [batch, pos, head, d_head]
        return self.o_proj(z.flatten(-2))

    def _fused(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        grouped = self.cfg.n_kv_heads != self.cfg.n_heads
        queries, keys = q.shape[2], k.shape[2]
        if queries == keys:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=~_future(queries, keys, q.device), enable_gqa=grouped
        )

    def _explicit(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        group = self.cfg.n_heads // self.cfg.n_kv_heads
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        scores = q @ k.transpose(-2, -1) / self.cfg.d_head**0.5  # [batch, head, query, key]
        future = _future(q.shape[2], k.shape[2], q.device)
        scores = self.hook_attn_scores(scores.masked_fill(future, float("-inf")))
        pattern = self.hook_pattern(scores.float().softmax(-1).to(v.dtype))
        return pattern @ v


class GatedMLP(nn.Module):
    """``W_down(silu(W_gate x) * (W_up x))``."""

    def __init__(self, d_model: int, d_mlp: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(d_model, d_mlp, bias=False)
        self.up_proj = nn.Linear(d_model, d_mlp, bias=False)
        self.down_proj = nn.Linear(d_mlp, d_model, bias=False)
        self.hook_pre = HookPoint()  # [batch, pos, d_mlp], before the SiLU
        self.hook_post = HookPoint()  # [batch, pos, d_mlp], what W_down reads

    def forward(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """Apply to the last axis."""
        gate = self.hook_pre(self.gate_proj(x))
        return self.down_proj(self.hook_post(F.silu(gate) * self.up_proj(x)))


class Block(nn.Module):
    """One transformer layer, with its norms where ``cfg.norm`` says.

    ``hook_attn_out`` and ``hook_mlp_out`` hold what is added to the residual stream;
    ``hook_resid_mid`` and ``hook_resid_post`` the stream itself, after the norm where that sits
    outside the residual.
    """

    def __init__(self, cfg: LoopedConfig) -> None:
        super().__init__()
        self.placement = cfg.norm
        self.attn = Attention(cfg)
        self.mlp = GatedMLP(cfg.d_model, cfg.d_mlp)
        self.norm_1 = RMSNorm(cfg.d_model, cfg.norm_eps)
        self.norm_3 = RMSNorm(cfg.d_model, cfg.norm_eps)
        if cfg.norm != "pre":
            self.norm_2 = RMSNorm(cfg.d_model, cfg.norm_eps)
            self.norm_4 = RMSNorm(cfg.d_model, cfg.norm_eps)
        self.hook_resid_pre = HookPoint()  # [batch, pos, d_model], as are the four below
        self.hook_attn_out = HookPoint()
        self.hook_resid_mid = HookPoint()
        self.hook_mlp_out = HookPoint()
        self.hook_resid_post = HookPoint()

    def forward(
        self,
        x: Float[Tensor, "batch pos d_model"],
        cos: Float[Tensor, "pos half"],
        sin: Float[Tensor, "pos half"],
    ) -> Float[Tensor, "batch pos d_model"]:
        """Run the layer."""
        x = self.hook_resid_pre(x)
        attn_out = self.attn(self.norm_1(x), cos, sin)
        if self.placement == "sandwich":
            attn_out = self.norm_2(attn_out)
        x = x + self.hook_attn_out(attn_out)
        if self.placement == "huginn":
            x = self.norm_2(x)
        x = self.hook_resid_mid(x)
        mlp_out = self.mlp(self.norm_3(x))
        if self.placement == "sandwich":
            mlp_out = self.norm_4(mlp_out)
        x = x + self.hook_mlp_out(mlp_out)
        if self.placement == "huginn":
            x = self.norm_4(x)
        return self.hook_resid_post(x)


def _future(queries: int, keys: int, device: torch.device) -> Tensor:
    """Mark the keys behind each query; the last query stands at the last key."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).triu(1 + keys - queries)


def _is_heard(hook: HookPoint) -> bool:
    return bool(hook._forward_hooks) or bool(hook._forward_pre_hooks)
