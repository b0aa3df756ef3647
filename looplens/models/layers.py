"""One layer of a looped transformer: attention and MLP, with norms where the family has them.

Hook points lie on every activation that people ask for, under the names of TransformerLens. A
layer knows nothing of the loop: it is told neither in which pass it runs nor whether it is inside
the loop.
"""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn

from looplens.models.attention import Attention, KeyValueCache
from looplens.models.config import LoopedConfig
from looplens.models.hook_point import HookPoint
from looplens.models.mlp import make_mlp
from looplens.models.norms import RMSNorm
from looplens.models.rope import Rotation

__all__ = ["Attention", "Block", "KeyValueCache"]


class Block(nn.Module):
    """One transformer layer, with its norms where ``cfg.norm`` says.

    ``norm_1`` and ``norm_3`` sit before attention and MLP, ``norm_2`` and ``norm_4`` behind them.
    ``hook_attn_out`` and ``hook_mlp_out`` hold what is added to the residual stream;
    ``hook_resid_mid`` and ``hook_resid_post`` the stream itself, after the norm where that sits
    outside the residual.

    Parameters
    ----------
    cfg : LoopedConfig
        Shape and arithmetic.
    value_gate : bool
        Whether token value embeddings enter in this layer.
    """

    def __init__(self, cfg: LoopedConfig, *, value_gate: bool = False) -> None:
        super().__init__()
        self.placement = cfg.norm
        self.attn = Attention(cfg, value_gate=value_gate)
        self.mlp = make_mlp(cfg)

        def norm() -> RMSNorm:
            return RMSNorm(cfg.d_model, cfg.norm_eps, cast_last=cfg.norm_cast_last)

        if cfg.norm != "post":
            self.norm_1, self.norm_3 = norm(), norm()
        if cfg.norm != "pre":
            self.norm_2, self.norm_4 = norm(), norm()
        self.hook_resid_pre = HookPoint()  # [batch, pos, d_model], as are the four below
        self.hook_attn_out = HookPoint()
        self.hook_resid_mid = HookPoint()
        self.hook_mlp_out = HookPoint()
        self.hook_resid_post = HookPoint()

    def forward(
        self,
        x: Float[Tensor, "batch pos d_model"],
        rotation: Rotation,
        *,
        values: Float[Tensor, "batch pos kv_width"] | None = None,
        real: Bool[Tensor, "batch pos"] | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """Run the layer; the arguments are those of :meth:`Attention.forward`."""
        before = self.placement != "post"
        on_branch = self.placement in ("post", "sandwich")
        outside = self.placement == "huginn"

        x = self.hook_resid_pre(x)
        y = self.norm_1(x) if before else x
        y = self.attn(y, rotation, values=values, real=real)
        x = x + self.hook_attn_out(self.norm_2(y) if on_branch else y)
        x = self.hook_resid_mid(self.norm_2(x) if outside else x)

        y = self.mlp(self.norm_3(x) if before else x)
        x = x + self.hook_mlp_out(self.norm_4(y) if on_branch else y)
        return self.hook_resid_post(self.norm_4(x) if outside else x)
