"""Tensor names of decoders in the layout of Hugging Face's Llama, which Ouro and others share."""

from __future__ import annotations

from collections.abc import Mapping

from looplens.models.config import LoopedConfig
from looplens.models.families.base import LeftOut, Weight

LEFT_OUT = (
    LeftOut("model.layers.*.self_attn.rotary_emb.inv_freq", "frequencies come from the config"),
    LeftOut("model.rotary_emb.inv_freq", "frequencies come from the config"),
)


def decoder_weights(cfg: LoopedConfig, norms: Mapping[str, str]) -> list[Weight]:
    """Name the stored tensors; ``norms`` maps a layer's stored norms to ours."""
    weights = [
        Weight("model.embed_tokens.weight", ("embed.weight",)),
        Weight("model.norm.weight", ("ln_final.weight",)),
    ]
    if not cfg.tie_embeddings:
        weights.append(Weight("lm_head.weight", ("unembed.weight",)))
    attention = [f"{x}_proj.weight" for x in "qkvo"]
    if cfg.qkv_bias:
        attention += [f"{x}_proj.bias" for x in "qkv"]
    if cfg.qk_norm != "none":
        attention += ["q_norm.weight", "k_norm.weight"]
    parts = {f"self_attn.{name}": f"attn.{name}" for name in attention}
    parts |= {f"mlp.{x}_proj.weight": f"mlp.{x}_proj.weight" for x in ("gate", "up", "down")}
    parts |= {f"{theirs}.weight": f"{ours}.weight" for theirs, ours in norms.items()}
    for layer in range(cfg.n_layers):
        ours = _our_layer(cfg, layer)
        weights += [
            Weight(f"model.layers.{layer}.{theirs}", (f"{ours}.{name}",))
            for theirs, name in parts.items()
        ]
    return weights


def _our_layer(cfg: LoopedConfig, layer: int) -> str:
    if layer < cfg.n_prelude:
        return f"prelude.{layer}"
    if layer < cfg.n_prelude + cfg.n_core:
        return f"core.{layer - cfg.n_prelude}"
    return f"coda.{layer - cfg.n_prelude - cfg.n_core}"
