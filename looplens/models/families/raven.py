"""Retrofitted recurrence: Llama and OLMo-2 layers cut into prelude, core and coda.

The configuration carries Huginn's name and class; the mathematics is another: half-split rotary
with ``rope_theta`` (``rope_base`` is not read), no norm before the coda, two norms a layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from looplens.models.config import LoopedConfig
from looplens.models.families._raven_layout import (
    fused_weights,
    is_huginn,
    is_raven,
    shared_fields,
)
from looplens.models.families.base import Facts, Family, Loop, Shapes, Weight, no_loop
from looplens.models.families.keys import ConfigKeys

_NORMS = {
    "pre": {"norm_1": "norm_1", "norm_2": "norm_3"},
    "post": {"norm_1": "norm_2", "norm_2": "norm_4"},
}


def is_olmo2(shapes: Shapes) -> bool:
    """Whether the layers are OLMo-2's: queries and keys are normed."""
    return any(name.endswith(("attn.q_norm.weight", "attn.k_norm.weight")) for name in shapes)


def detect_llama(config: Mapping[str, Any], shapes: Shapes) -> bool:
    """Tell a retrofitted Llama by what its tensors lack."""
    return is_raven(config) and not is_huginn(shapes) and not is_olmo2(shapes)


def detect_olmo2(config: Mapping[str, Any], shapes: Shapes) -> bool:
    """Tell a retrofitted OLMo-2 by the norms of its queries and keys."""
    return is_raven(config) and not is_huginn(shapes) and is_olmo2(shapes)


def read_config(config: Mapping[str, Any], shapes: Shapes, loop: Loop | None) -> LoopedConfig:
    """Read ``config.json``."""
    no_loop("retrofitted", loop)
    keys = ConfigKeys(config, "retrofitted")
    keys.only("qk_bias", False, None)
    mode = keys.only("initial_state_mode", "random", "embed-init", "skip-adapter", None)
    olmo2 = is_olmo2(shapes)
    fields = shared_fields(keys, shapes)
    init = keys.get("init_values", {})
    scale = float(init.get("embed_scale") or 1.0)
    std = init.get("std") or (2 / (5 * fields["d_model"])) ** 0.5
    return LoopedConfig(
        **fields,
        **keys.rope(),
        n_ctx=int(keys.need("max_position_embeddings", "block_size")),
        norm="post" if olmo2 else "pre",
        qk_norm="projection" if olmo2 else "none",
        coda_norm=False,
        rope_style="half_split",
        embedding_scale=scale,
        initial_state="noise" if mode in (None, "random") else "prelude",
        initial_state_std=float(std) * scale,
        first_injection=mode != "skip-adapter",
        family="raven-olmo2" if olmo2 else "raven-llama",
    )


def weights(cfg: LoopedConfig, shapes: Shapes) -> list[Weight]:
    """Name the stored tensors."""
    return fused_weights(cfg, _NORMS[cfg.norm])


_FACTS = {
    "initial_state": "truncated normal noise, small (init_values.std); the prelude's output with "
    "initial_state_mode embed-init or skip-adapter",
    "injection": "linear adapter W [s; e], every iteration (skip-adapter: from the second on)",
    "boundary_norm": "none",
    "readout": "coda, final norm, head (untied)",
    "default_depth": "mean_recurrence",
    "exit_rule": "Huginn's",
    "not_supported": "other injections or activations, bias, rope scaling other than linear or "
    "llama3",
}

LLAMA = Family(
    name="raven-llama",
    title="Retrofitted Llama",
    published=("smcleish/Recurrent-Llama-3.2-*", "smcleish/Recurrent-TinyLlama-*"),
    facts=Facts(**_FACTS, load='load_model("smcleish/Recurrent-Llama-3.2-...")'),
    detect=detect_llama,
    config=read_config,
    weights=weights,
)

OLMO2 = Family(
    name="raven-olmo2",
    title="Retrofitted OLMo-2",
    published=("smcleish/Recurrent-OLMo-2-*",),
    facts=Facts(**_FACTS, load='load_model("smcleish/Recurrent-OLMo-2-...")'),
    detect=detect_olmo2,
    config=read_config,
    weights=weights,
)
