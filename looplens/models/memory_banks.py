"""Memory that layers read by attention over learned slots: one bank a layer, one for all.

A bank is read by one head of the model's width. It holds parameters, not the past: nothing is
written at run time.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from looplens.models.adaptive_config import AdaptiveConfig
from looplens.models.hook_point import HookPoint
from looplens.models.norms import at_least_float32


class MemoryBanks(nn.Module):
    """The slots of all layers, and the norms of queries and keys that all share.

    Parameters
    ----------
    cfg : AdaptiveConfig
        Numbers of slots.
    """

    def __init__(self, cfg: AdaptiveConfig) -> None:
        super().__init__()
        d = cfg.d_model
        if cfg.local_slots:
            shape = (cfg.n_layers, cfg.local_slots, d)
            self.local_keys = nn.Parameter(torch.empty(shape).normal_(std=0.02))
            self.local_values = nn.Parameter(torch.empty(shape).normal_(std=0.02))
        if cfg.global_slots:
            self.global_keys = nn.Parameter(torch.empty(cfg.global_slots, d).normal_(std=0.02))
            self.global_values = nn.Parameter(torch.empty(cfg.global_slots, d).normal_(std=0.02))
        self.q_norm = nn.LayerNorm(d)
        self.k_norm = nn.LayerNorm(d)

    def read(
        self, query: Float[Tensor, "batch pos d_model"], bank: str, layer: int
    ) -> Float[Tensor, "batch pos d_model"]:
        """Read ``local`` (this layer's) or ``global`` memory."""
        keys, values = getattr(self, f"{bank}_keys"), getattr(self, f"{bank}_values")
        if bank == "local":
            keys, values = keys[layer], values[layer]
        scores = self.q_norm(query) @ self.k_norm(keys).transpose(-1, -2) / query.shape[-1] ** 0.5
        return at_least_float32(scores).softmax(-1).to(values.dtype) @ values


class MemoryGate(nn.Module):
    """How much of what was read enters the stream.

    ``sigmoid(W h + c) * (P r)`` with ``W = 0`` and ``c = -3`` at the start, or ``alpha * (P r)``
    with ``alpha = 0.1`` at the start.

    Parameters
    ----------
    cfg : AdaptiveConfig
        Says which.
    """

    def __init__(self, cfg: AdaptiveConfig) -> None:
        super().__init__()
        self.project = nn.Linear(cfg.d_model, cfg.d_model, bias=False)
        self.elementwise = cfg.memory_gate == "elementwise"
        if self.elementwise:
            self.gate = nn.Linear(cfg.d_model, cfg.d_model)
            nn.init.zeros_(self.gate.weight)
            nn.init.constant_(self.gate.bias, -3.0)
        else:
            self.scale = nn.Parameter(torch.tensor(0.1))
        self.hook_memory = HookPoint()  # [batch, pos, d_model], what is added

    def forward(
        self, state: Float[Tensor, "batch pos d_model"], read: Float[Tensor, "batch pos d_model"]
    ) -> Float[Tensor, "batch pos d_model"]:
        """Return what is added to the state."""
        weight = F.sigmoid(self.gate(state)) if self.elementwise else self.scale
        return self.hook_memory(weight * self.project(read))
