"""The MLPs of a layer, with hook points where TransformerLens has them."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from looplens.models.config import LoopedConfig
from looplens.models.hook_point import HookPoint
from looplens.models.norms import scaled


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
        return self.down_proj(self.hook_post(scaled(F.silu(gate), self.up_proj(x))))


class SquaredReLUMLP(nn.Module):
    """``W_down(relu(W_up x)**2 / 2)``: Parcae's MLP, whose activation carries the factor 1/2."""

    def __init__(self, d_model: int, d_mlp: int) -> None:
        super().__init__()
        self.up_proj = nn.Linear(d_model, d_mlp, bias=False)
        self.down_proj = nn.Linear(d_mlp, d_model, bias=False)
        self.hook_pre = HookPoint()  # [batch, pos, d_mlp], before the activation
        self.hook_post = HookPoint()  # [batch, pos, d_mlp], what W_down reads

    def forward(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """Apply to the last axis."""
        hidden = self.hook_pre(self.up_proj(x))
        return self.down_proj(self.hook_post(0.5 * F.relu(hidden).square()))


def make_mlp(cfg: LoopedConfig) -> GatedMLP | SquaredReLUMLP:
    """Make the MLP that ``cfg.mlp`` names."""
    kind = GatedMLP if cfg.mlp == "swiglu" else SquaredReLUMLP
    return kind(cfg.d_model, cfg.d_mlp)
