"""Fresh weights of a looped transformer, for training."""

from __future__ import annotations

from torch import nn

from looplens.models.config import LoopedConfig


def draw_weights(model: nn.Module, cfg: LoopedConfig) -> None:
    """Draw weights with variance 2/(5 d), branch outputs smaller by the depth they add up over.

    Vectors keep what their module gave them, as does a diagonal injection, which starts as a
    plain copy of its input. Weights without storage (on the meta device) are left alone.

    References
    ----------
    .. [1] Takase et al., 2023, as used by Geiping et al., "Scaling up Test-Time Compute with
       Latent Reasoning: A Recurrent Depth Approach", arXiv:2502.05171, section 3.2.
    """
    std = (2 / (5 * cfg.d_model)) ** 0.5
    for name, weight in model.named_parameters():
        if weight.ndim < 2 or weight.is_meta or name == "adapter.B":
            continue
        is_branch_output = name.endswith(("o_proj.weight", "down_proj.weight"))
        depth = (2 * cfg.effective_depth) ** 0.5 if is_branch_output else 1.0
        nn.init.trunc_normal_(weight, std=std / depth, a=-3 * std, b=3 * std)
