"""What Huginn and the retrofitted models share: their class, their fused weights, their config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from looplens.models.config import LoopedConfig
from looplens.models.families.base import Shapes, Weight, block_weights, names_model
from looplens.models.families.keys import ConfigKeys

TELL_TALES = ("norm_3.weight", "norm_4.weight", "qk_bias", "freqs_cis")
PREFIXES = {
    "prelude": "transformer.prelude",
    "core": "transformer.core_block",
    "coda": "transformer.coda",
}


def is_raven(config: Mapping[str, Any]) -> bool:
    """Whether a configuration is of the class that Huginn and the retrofits share."""
    return names_model(config, {"huginn_raven"}, {"RavenForCausalLM"})


def is_huginn(shapes: Shapes) -> bool:
    """Whether the stored tensors are Huginn's: the configuration does not tell."""
    return any(name.endswith(TELL_TALES) for name in shapes)


def shared_fields(keys: ConfigKeys, shapes: Shapes) -> dict[str, Any]:
    """Return the fields of :class:`LoopedConfig` that both read alike."""
    keys.only("injection_type", "linear")
    keys.only("mlp_class_name", "GatedMLP")
    keys.only("nonlin_name", "SiLU")
    keys.only("norm_class_name", "RMSNorm_llama", "RMSNorm")
    keys.only("bias", False, None)
    keys.only("state_init", "like-init")
    width, heads = int(keys.need("n_embd")), int(keys.need("n_heads", "num_attention_heads"))
    fields = {
        "d_model": width,
        "n_heads": heads,
        "n_kv_heads": int(keys.get("num_key_value_heads", heads)),
        "d_head": int(keys.get("head_dim", width // heads)),
        "d_mlp": int(keys.need("intermediate_size")),
        "d_vocab": int(keys.need("padded_vocab_size", "vocab_size")),
        "n_prelude": int(keys.need("n_layers_in_prelude")),
        "n_core": int(keys.need("n_layers_in_recurrent_block")),
        "n_coda": int(keys.need("n_layers_in_coda")),
        "norm_eps": float(keys.need("norm_eps")),
        "injection": "linear",
        "final_norm": True,
        "default_iterations": int(keys.need("mean_recurrence")),
    }
    tied = keys.values.get("tie_embeddings", keys.values.get("tie_word_embeddings"))
    fields["tie_embeddings"] = "lm_head.weight" not in shapes if tied is None else bool(tied)
    return fields


def fused_weights(cfg: LoopedConfig, norms: Mapping[str, str]) -> list[Weight]:
    """Name the stored tensors; ``norms`` maps a layer's stored norms to ours."""
    weights = [
        Weight("transformer.wte.weight", ("embed.weight",)),
        Weight("transformer.adapter.weight", ("adapter.weight",)),
        Weight("transformer.ln_f.weight", ("ln_final.weight",)),
    ]
    if not cfg.tie_embeddings:
        weights.append(Weight("lm_head.weight", ("unembed.weight",)))
    for stored, ours, _ in block_weights(cfg, PREFIXES):
        projections = tuple(f"{ours}.attn.{x}_proj.weight" for x in "qkv")
        weights += [
            Weight(f"{stored}.attn.Wqkv.weight", projections),
            Weight(f"{stored}.attn.proj.weight", (f"{ours}.attn.o_proj.weight",)),
            Weight(
                f"{stored}.mlp.fc.weight",
                (f"{ours}.mlp.gate_proj.weight", f"{ours}.mlp.up_proj.weight"),
            ),
            Weight(f"{stored}.mlp.proj.weight", (f"{ours}.mlp.down_proj.weight",)),
        ]
        if cfg.qk_bias:
            weights.append(
                Weight(
                    f"{stored}.attn.qk_bias",
                    (f"{ours}.attn.q_bias", f"{ours}.attn.k_bias"),
                    shape=(2, 1, cfg.n_heads, cfg.d_head),
                )
            )
        if cfg.qk_norm == "projection":
            weights += [
                Weight(f"{stored}.attn.{x}_norm.weight", (f"{ours}.attn.{x}_norm.weight",))
                for x in "qk"
            ]
        weights += [
            Weight(f"{stored}.{theirs}.weight", (f"{ours}.{name}.weight",))
            for theirs, name in norms.items()
        ]
    return weights
