"""Ordinary decoders with a span of layers looped: Llama, Mistral, Qwen2, Qwen3, OLMo-2.

``loop=(start, stop)`` runs layers ``start:stop`` again and again between the layers before and
behind them, without adapter, injection or norm in between. ``loop=(0, n_layers)`` loops the whole
stack. One iteration is the unmodified model.

References
----------
.. [1] ETD, "Encode, Think, Decode", arXiv:2510.07358 (a span in the middle).
.. [2] Saunshi et al., "Reasoning with Latent Thoughts: On the Power of Looped Transformers",
   arXiv:2502.17416 (the whole stack, ``k (x) L``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from looplens.errors import InputError
from looplens.models.config import LoopedConfig
from looplens.models.families._decoder_layout import LEFT_OUT, decoder_weights
from looplens.models.families.base import (
    Facts,
    Family,
    LeftOut,
    Loop,
    Shapes,
    Weight,
    names_model,
)
from looplens.models.families.keys import ConfigKeys

_PRE = {"input_layernorm": "norm_1", "post_attention_layernorm": "norm_3"}
_POST = {"post_attention_layernorm": "norm_2", "post_feedforward_layernorm": "norm_4"}
# What sets one kind apart from Llama.
_KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {},
    "qwen2": {"qkv_bias": True},
    "qwen3": {"qk_norm": "head"},
    "olmo2": {"norm": "post", "qk_norm": "projection", "norm_cast_last": True},
}
_ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Olmo2ForCausalLM": "olmo2",
}


def kind_of(config: Mapping[str, Any]) -> str:
    """Return ``llama``, ``mistral``, ``qwen2``, ``qwen3`` or ``olmo2``."""
    name = config.get("model_type")
    if name is not None:
        return name
    return next(_ARCHITECTURES[a] for a in config["architectures"] if a in _ARCHITECTURES)


def detect(config: Mapping[str, Any], shapes: Shapes) -> bool:
    """Tell a decoder by its name."""
    return names_model(config, set(_KINDS), set(_ARCHITECTURES))


def read_config(config: Mapping[str, Any], shapes: Shapes, loop: Loop | None) -> LoopedConfig:
    """Read ``config.json``.

    Raises
    ------
    InputError
        If ``loop`` is missing or outside the stack, or a value is not supported.
    """
    kind = kind_of(config)
    keys = ConfigKeys(config, kind)
    keys.only("hidden_act", "silu")
    keys.only("attention_bias", False, None)
    keys.only("mlp_bias", False, None)
    if kind != "llama" or "sliding_window" in config:
        keys.no_sliding_window()
    layers = int(keys.need("num_hidden_layers"))
    start, stop = _check_loop(loop, layers, kind)
    width, heads = int(keys.need("hidden_size")), int(keys.need("num_attention_heads"))
    return LoopedConfig(
        d_model=width,
        n_heads=heads,
        n_kv_heads=int(keys.get("num_key_value_heads", heads)),
        d_head=int(keys.get("head_dim", width // heads)),
        d_mlp=int(keys.need("intermediate_size")),
        d_vocab=int(keys.need("vocab_size")),
        n_ctx=int(keys.need("max_position_embeddings")),
        n_prelude=start,
        n_core=stop - start,
        n_coda=layers - stop,
        norm_eps=float(keys.need("rms_norm_eps")),
        injection="none",
        initial_state="prelude",
        coda_norm=False,
        **keys.rope(default_theta=10_000.0),
        tie_embeddings=bool(keys.get("tie_word_embeddings", "lm_head.weight" not in shapes)),
        default_iterations=1,
        family=kind,
        **{"norm": "pre", **_KINDS[kind]},
    )


def weights(cfg: LoopedConfig, shapes: Shapes) -> list[Weight]:
    """Name the stored tensors."""
    return decoder_weights(cfg, _POST if cfg.norm == "post" else _PRE)


def _check_loop(loop: Loop | None, layers: int, kind: str) -> Loop:
    if loop is None:
        raise InputError(
            f"this {kind} checkpoint is an ordinary decoder of {layers} layers, which loops "
            "nothing by itself: pass loop=(start, stop) to loop layers start:stop, e.g. "
            f"loop=(0, {layers}) for the whole stack"
        )
    valid = len(loop) == 2 and all(isinstance(n, int) and not isinstance(n, bool) for n in loop)
    if not valid or not 0 <= loop[0] < loop[1] <= layers:
        raise InputError(
            f"loop must be (start, stop) with 0 <= start < stop <= {layers} (num_hidden_layers), "
            f"got {loop!r}"
        )
    return loop


FAMILY = Family(
    name="decoder",
    title="Ordinary decoders (Llama, Mistral, Qwen2, Qwen3, OLMo-2)",
    published=("any checkpoint of these model types",),
    facts=Facts(
        initial_state="the stream that enters the looped layers",
        injection="none",
        boundary_norm="none",
        readout="remaining layers, final norm, head",
        default_depth="1, the unmodified model: pass iterations=",
        exit_rule="none of its own",
        load="load_model(DIR, loop=(start, stop)); loop=(0, n_layers) loops the whole stack",
        not_supported="other activations, attention_bias, mlp_bias, sliding windows in use, rope "
        "scaling other than linear or llama3",
    ),
    detect=detect,
    config=read_config,
    weights=weights,
    left_out=(
        *LEFT_OUT,
        *(
            LeftOut(f"model.{part}.*", "another name of tensors in model.layers")
            for part in ("prelude", "rec_block", "coda")
        ),
    ),
)
