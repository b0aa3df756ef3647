"""The looped transformer without hook points: what the same mathematics costs at the least.

Written out for one configuration (Huginn's norms, linear injection, adjacent rotary pairs), with
the same PyTorch calls as the library. It takes its weights from a :class:`LoopedTransformer`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from looplens.models import LoopedTransformer


class PlainNorm(nn.Module):
    """Root-mean-square norm."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = weight, eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis."""
        scale = x.square().mean(-1, keepdim=True).add_(self.eps).rsqrt_()
        return (x * scale).mul_(self.weight)


class PlainBlock(nn.Module):
    """One layer: attention, MLP and the four norms."""

    def __init__(self, block: nn.Module, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        for number in (1, 2, 3, 4):
            norm = getattr(block, f"norm_{number}")
            setattr(self, f"norm_{number}", PlainNorm(norm.weight, eps))
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            setattr(self, name, getattr(block.attn, name))
        for name in ("gate_proj", "up_proj", "down_proj"):
            setattr(self, name, getattr(block.mlp, name))

    def forward(self, x: Tensor, unit: Tensor) -> Tensor:
        """Run the layer."""
        y = self.norm_1(x)
        shape = (*y.shape[:2], self.heads, -1)
        q = rotate(self.q_proj(y).view(shape), unit).transpose(1, 2)
        k = rotate(self.k_proj(y).view(shape), unit).transpose(1, 2)
        v = self.v_proj(y).view(shape).transpose(1, 2)
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = self.norm_2(x + self.o_proj(z.transpose(1, 2).flatten(-2)))
        y = self.norm_3(x)
        y = self.down_proj(F.silu(self.gate_proj(y)).mul_(self.up_proj(y)))
        return self.norm_4(x + y)


def rotate(x: Tensor, unit: Tensor) -> Tensor:
    """Rotate adjacent pairs of components, as complex numbers."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * unit).flatten(-2)


class PlainLoop(nn.Module):
    """Prelude, core and coda, starting from zeros.

    Parameters
    ----------
    model : LoopedTransformer
        Where the weights come from; they are shared.
    """

    def __init__(self, model: LoopedTransformer) -> None:
        super().__init__()
        cfg = model.cfg
        made = (cfg.norm, cfg.injection, cfg.initial_state, cfg.rope_style)
        if made != ("huginn", "linear", "zeros", "adjacent"):
            raise ValueError(f"the plain loop is not written for {made}")
        self.embed, self.adapter = model.embed, model.adapter
        self.prelude, self.core, self.coda = (
            nn.ModuleList(PlainBlock(block, cfg.n_heads, cfg.norm_eps) for block in blocks)
            for blocks in (model.prelude, model.core, model.coda)
        )
        self.ln_final = PlainNorm(model.ln_final.weight, cfg.norm_eps)
        self.unit = torch.complex(model.rotary.cos, model.rotary.sin)[:, None]

    def forward(self, tokens: Tensor, iterations: int) -> Tensor:
        """Return the logits after so many passes."""
        unit = self.unit[: tokens.shape[1]]
        injected = self.embed(tokens)
        for block in self.prelude:
            injected = block(injected, unit)
        state = torch.zeros_like(injected)
        for _ in range(iterations):
            state = self.adapter(torch.cat((state, injected), dim=-1))
            for block in self.core:
                state = block(state, unit)
        x = self.ln_final(state)
        for block in self.coda:
            x = block(x, unit)
        return F.linear(self.ln_final(x), self.embed.weight)
