"""Parcae: a diagonal injection with learned decay, and token value embeddings inside the loop.

Published as torch files, which are read with ``weights_only``. The published loader drops
``rope_settings``, so that the rotary table of the file decides; the configuration's is used only
where the file has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from looplens.models.config import LoopedConfig
from looplens.models.families.base import (
    Facts,
    Family,
    LeftOut,
    Loop,
    Shapes,
    Weight,
    block_weights,
    no_loop,
)
from looplens.models.families.keys import ConfigKeys

_TABLE = "freqs_cis"
_MAP = "transformer.C.weight"
_PREFIXES = {
    "prelude": "transformer.prelude",
    "core": "transformer.core_block",
    "coda": "transformer.coda",
}
_PLAIN = (  # nothing but these values leaves the arithmetic as it is here
    *(("block_class_name", "TransformerPreNormBlock"), ("norm_class_name", "RMSNorm")),
    *(("mlp_class_name", "BaseMLP"), ("nonlin_name", "ReLU2")),
    *(("bias", False), ("qk_bias", False), ("clip_qkv", None)),
    *(("state_init", "like-init"), ("init_strategy", "scaled-zero")),
    *(("center_attention", False), ("debias_attention", False), ("use_abacus", False)),
    *(("mup_model_scaling_factor", 1), ("recurrent_num_attention_heads", None)),
)


def detect(config: Mapping[str, Any], shapes: Shapes) -> bool:
    """Tell Parcae by the name of its configuration class."""
    if config.get("_class_name") == "ParcaeConfig" or config.get("model_type") == "parcae":
        return True
    return config.get("model_class_name") == "Parcae"


def read_config(config: Mapping[str, Any], shapes: Shapes, loop: Loop | None) -> LoopedConfig:
    """Read ``config.json``."""
    no_loop("Parcae", loop)
    keys = ConfigKeys(config, "Parcae")
    for name, value in _PLAIN:
        keys.only(name, value, None)
    injection = keys.only("injection_type", "diagonal", "linear", "add")
    width, heads = int(keys.need("n_embd")), int(keys.need("num_attention_heads"))
    inner = int(keys.need("intermediate_size"))
    keys.only("recurrent_embedding_dimension", width, None)
    keys.only("recurrent_intermediation_embedding_dimension", inner, None)
    rope = keys.get("rope_settings", {})
    ConfigKeys(rope, "Parcae rope_settings").only("use_rope", True)
    condense = float(rope.get("rope_condense_ratio") or 1.0)
    base = float(rope.get("rope_base") or (1.0 if _TABLE in shapes else keys.need("rope_base")))
    fields: dict[str, Any] = {
        "d_model": width,
        "n_heads": heads,
        "n_kv_heads": int(keys.get("num_key_value_heads", heads)),
        "d_head": int(keys.get("head_dim", width // heads)),
        "d_mlp": inner,
        "d_vocab": _vocabulary(keys),
        "n_ctx": int(keys.need("block_size")),
        "n_prelude": int(keys.need("n_layers_in_prelude")),
        "n_core": int(keys.need("n_layers_in_recurrent_block")),
        "n_coda": int(keys.need("n_layers_in_coda")),
    }
    layers = fields["n_prelude"] + fields["n_core"] + fields["n_coda"]
    prefixes = [prefix for prefix, _, _ in block_weights(LoopedConfig(**fields), _PREFIXES)]
    embedded = (
        layer
        for layer in range(layers)
        if f"{prefixes[layer]}.attn.ve_gate.weight" in shapes
        and f"value_embeds.{layer}.weight" in shapes
    )
    value_embeddings = tuple(embedded)
    gates = [f"{prefixes[layer]}.attn.ve_gate.weight" for layer in value_embeddings]
    return LoopedConfig(
        **fields,
        norm="pre",
        norm_eps=float(keys.need("norm_eps")),
        mlp="relu2",
        injection=injection,
        initial_state="noise",
        initial_state_std=(2 / (5 * width)) ** 0.5,
        prelude_norm=bool(keys.get("prelude_norm", False)),
        readout_map=injection == "diagonal" or _MAP in shapes,
        coda_norm=False,
        qk_norm="rotated" if keys.get("qk_norm", False) else "none",
        rope_style="adjacent",
        rope_theta=base,
        rope_scaling="none" if condense == 1 else "linear",
        rope_factor=condense,
        value_embeddings=value_embeddings,
        value_gate_width=shapes[gates[0]][-1] if gates else 32,
        logit_softcap=float(keys.get("logit_softcap", 0.0)),
        tie_embeddings=bool(keys.get("tie_embeddings", "lm_head.weight" not in shapes)),
        default_iterations=int(keys.need("mean_recurrence")),
        family="parcae",
    )


def _vocabulary(keys: ConfigKeys) -> int:
    """Return the padded size of the vocabulary, which the logits have too."""
    if keys.values.get("padded_vocab_size"):
        return int(keys.values["padded_vocab_size"])
    multiple = int(keys.get("padding_multiple", 1))
    return -(-int(keys.need("vocab_size")) // multiple) * multiple


def weights(cfg: LoopedConfig, shapes: Shapes) -> list[Weight]:
    """Name the stored tensors."""
    named = [
        Weight("transformer.wte.weight", ("embed.weight",)),
        Weight("transformer.ln_f.weight", ("ln_final.weight",)),
    ]
    if cfg.prelude_norm:
        named.append(Weight("transformer.ln_prelude.weight", ("ln_prelude.weight",)))
    if cfg.readout_map:
        named.append(Weight(_MAP, ("readout_map.weight",)))
    if not cfg.tie_embeddings:
        named.append(Weight("lm_head.weight", ("unembed.weight",)))
    if cfg.injection == "diagonal":
        named += [
            Weight(f"transformer.adapter.{x}", (f"adapter.{x}",)) for x in ("A_log", "dt_bias", "B")
        ]
    elif cfg.injection == "linear":
        named.append(Weight("transformer.adapter.adapter.weight", ("adapter.weight",)))
    parts = {f"attn.c_{x}": f"attn.{x}_proj" for x in "qkv"}
    parts |= {"attn.c_proj": "attn.o_proj", "mlp.fc": "mlp.up_proj", "mlp.proj": "mlp.down_proj"}
    parts |= {"norm_1": "norm_1", "norm_2": "norm_3"}
    for stored, ours, number in block_weights(cfg, _PREFIXES):
        named += [Weight(f"{stored}.{a}.weight", (f"{ours}.{b}.weight",)) for a, b in parts.items()]
        if number in cfg.value_embeddings:
            named += [
                Weight(f"{stored}.attn.ve_gate.weight", (f"{ours}.attn.value_gate.weight",)),
                Weight(f"value_embeds.{number}.weight", (f"value_embeddings.{number}.weight",)),
            ]
    return named


FAMILY = Family(
    name="parcae",
    title="Parcae",
    published=tuple(f"SandyResearch/parcae-{size}" for size in ("140m", "370m", "770m", "1.3b")),
    facts=Facts(
        initial_state="truncated normal noise, standard deviation sqrt(2 / (5 d))",
        injection="diagonal, a * s + dt * (B e); token value embeddings in attention",
        boundary_norm="none",
        readout="matrix C, coda, final norm, head (tied), soft-cap if any",
        default_depth="8 (mean_recurrence)",
        exit_rule="none",
        load="load_model(DIR), DIR a download of e.g. SandyResearch/parcae-140m (torch file)",
        not_supported="other activations, norms, initialisation strategies or core widths; bias, "
        "clip_qkv, abacus positions",
    ),
    detect=detect,
    config=read_config,
    weights=weights,
    left_out=(
        LeftOut(_TABLE, "taken as the rotary table itself"),
        LeftOut("value_embeds.*", "no layer of that number has a gate, so nothing reads them"),
        LeftOut("*.attn.ve_gate.weight", "there is no value embedding of that layer to gate"),
    ),
    torch_files=True,
    rotary_table=_TABLE,
)
