"""Ouro: the whole stack looped, the normalised state fed back, an exit gate (arXiv:2510.25741)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from looplens.models.config import LoopedConfig
from looplens.models.families._decoder_layout import LEFT_OUT, decoder_weights
from looplens.models.families.base import (
    Facts,
    Family,
    Loop,
    Shapes,
    Weight,
    names_model,
    no_loop,
)
from looplens.models.families.keys import ConfigKeys

_NORMS = {
    "input_layernorm": "norm_1",
    "input_layernorm_2": "norm_2",
    "post_attention_layernorm": "norm_3",
    "post_attention_layernorm_2": "norm_4",
}


def detect(config: Mapping[str, Any], shapes: Shapes) -> bool:
    """Tell Ouro by its name."""
    return names_model(config, {"ouro"}, {"OuroForCausalLM"})


def read_config(config: Mapping[str, Any], shapes: Shapes, loop: Loop | None) -> LoopedConfig:
    """Read ``config.json``. Nothing falls back on class defaults: they are not the models'."""
    no_loop("Ouro", loop)
    keys = ConfigKeys(config, "Ouro")
    keys.only("hidden_act", "silu")
    keys.only("attention_bias", False, None)
    keys.only("mlp_bias", False, None)
    keys.no_sliding_window()
    width, heads = int(keys.need("hidden_size")), int(keys.need("num_attention_heads"))
    return LoopedConfig(
        d_model=width,
        n_heads=heads,
        n_kv_heads=int(keys.get("num_key_value_heads", heads)),
        d_head=int(keys.get("head_dim", width // heads)),
        d_mlp=int(keys.need("intermediate_size")),
        d_vocab=int(keys.need("vocab_size")),
        n_ctx=int(keys.need("max_position_embeddings")),
        n_core=int(keys.need("num_hidden_layers")),
        norm="sandwich",
        norm_eps=float(keys.need("rms_norm_eps")),
        injection="none",
        initial_state="embedding",
        loop_norm=True,
        coda_norm=False,
        final_norm=False,
        **keys.rope(),
        tie_embeddings=bool(keys.get("tie_word_embeddings", "lm_head.weight" not in shapes)),
        exit_gate=True,
        exit_threshold=float(keys.get("early_exit_threshold", 1.0)),
        default_iterations=int(keys.need("total_ut_steps")),
        family="ouro",
    )


def weights(cfg: LoopedConfig, shapes: Shapes) -> list[Weight]:
    """Name the stored tensors."""
    return [
        *decoder_weights(cfg, _NORMS),
        Weight("model.early_exit_gate.weight", ("exit_gate.weight",)),
        Weight("model.early_exit_gate.bias", ("exit_gate.bias",)),
    ]


FAMILY = Family(
    name="ouro",
    title="Ouro",
    published=(
        "ByteDance/Ouro-1.4B",
        "ByteDance/Ouro-2.6B",
        "ByteDance/Ouro-1.4B-Thinking",
        "ByteDance/Ouro-2.6B-Thinking",
    ),
    facts=Facts(
        initial_state="token embedding",
        injection="none",
        boundary_norm="final norm, its output fed back",
        readout="head (untied); the state is already normalised",
        default_depth="4 (total_ut_steps)",
        exit_rule="learned gate: first step whose cumulative exit probability reaches "
        "early_exit_threshold",
        load='load_model("ByteDance/Ouro-1.4B")',
        not_supported="other activations, bias, sliding windows, rope scaling other than linear "
        "or llama3",
    ),
    detect=detect,
    config=read_config,
    weights=weights,
    left_out=LEFT_OUT,
)
