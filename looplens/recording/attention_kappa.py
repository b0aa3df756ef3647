"""How strongly each head's scores can react to its input: a norm of its weights.

Recorded with the run, because whoever looks at a run has no weights: it is the constant of the
bound on the change of attention (`looplens.analysis.attention_bound`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from looplens.models import LoopedTransformer
from looplens.models.layers import Block
from looplens.models.protocol import LoopedModel


@torch.no_grad()
def attention_kappa(model: LoopedModel) -> list[list[float]] | None:
    r"""Return :math:`\kappa = |W_Q|_2 |W_K|_2` of every head of every core layer.

    Rotary positions put a rotation between the two matrices, another one for each pair of
    positions. It keeps norms, so that the product bounds :math:`|W_Q R W_K^T|_2` for all of them,
    while :math:`|W_Q W_K^T|_2` does not. The weight of the norm in front of attention counts to
    both matrices, and a bias is one more row, whose input is the constant 1.

    Parameters
    ----------
    model : LoopedModel
        As recording sees it.

    Returns
    -------
    list of list of float, shape (layer, head), or None
        None for a model that is not our own, normalises queries or keys (their scores are no
        product of linear maps), or has weights that are not finite.

    References
    ----------
    The constant of proposition 4.2 of Blayney et al. 2026, arXiv:2604.11791, as summarised in
    public notes; paper text not read. There without rotations.
    """
    inner: Any = getattr(model, "model", None)
    if not isinstance(inner, LoopedTransformer) or inner.cfg.qk_norm != "none":
        return None
    kappa = torch.stack([_of_layer(layer) for layer in inner.core])
    return kappa.tolist() if bool(kappa.isfinite().all()) else None


def _of_layer(layer: Any) -> Tensor:
    """Return the constants of one layer, (head,), in float64."""
    assert isinstance(layer, Block)
    attention, cfg = layer.attn, layer.attn.cfg
    scale = layer.norm_1.weight.double().cpu() if cfg.norm != "post" else None
    norms = []
    for name, heads in (("q", cfg.n_heads), ("k", cfg.n_kv_heads)):
        projection = getattr(attention, f"{name}_proj")
        weight = projection.weight.double().cpu()  # (head * d_head, d_model)
        if scale is not None:
            weight = weight * scale
        weight = weight.view(heads, cfg.d_head, -1)
        bias = torch.zeros(heads, cfg.d_head, dtype=torch.float64)
        if cfg.qkv_bias:
            bias += projection.bias.double().cpu().view(heads, cfg.d_head)
        if cfg.qk_bias:
            bias += getattr(attention, f"{name}_bias").double().cpu()
        if cfg.qkv_bias or cfg.qk_bias:
            weight = torch.cat((weight, bias[..., None]), dim=-1)
        if not bool(weight.isfinite().all()):
            return torch.full((cfg.n_heads,), float("nan"))
        # The largest eigenvalue of W W^T, which is d_head wide: far cheaper than singular values.
        gram = weight @ weight.transpose(-1, -2)
        norms.append(torch.linalg.eigvalsh(gram)[..., -1].clamp(min=0).sqrt())
    query, key = norms
    return query * key.repeat_interleave(cfg.n_heads // cfg.n_kv_heads)
