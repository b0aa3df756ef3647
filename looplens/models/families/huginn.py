"""Huginn: prelude, a sandwich-normed core fed by a linear adapter, coda (arXiv:2502.05171).

The token embedding is scaled by ``sqrt(n_embd)`` whatever ``init_values.embed_scale`` says, as in
the published code; so is the noise that the loop starts from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from looplens.errors import InputError
from looplens.models.config import LoopedConfig
from looplens.models.families._raven_layout import (
    fused_weights,
    is_huginn,
    is_raven,
    shared_fields,
)
from looplens.models.families.base import Facts, Family, LeftOut, Loop, Shapes, Weight, no_loop
from looplens.models.families.keys import ConfigKeys


def detect(config: Mapping[str, Any], shapes: Shapes) -> bool:
    """Tell Huginn from the retrofits, which carry its name, by its tensors."""
    return is_raven(config) and is_huginn(shapes)


def read_config(config: Mapping[str, Any], shapes: Shapes, loop: Loop | None) -> LoopedConfig:
    """Read ``config.json``."""
    no_loop("Huginn", loop)
    keys = ConfigKeys(config, "Huginn")
    keys.only("block_class_name", "SandwichBlock")
    fields = shared_fields(keys, shapes)
    qk_bias = bool(keys.get("qk_bias", False))
    if qk_bias and fields["n_kv_heads"] != fields["n_heads"]:
        raise InputError(
            f"unsupported Huginn configuration: num_key_value_heads is {fields['n_kv_heads']}, and "
            f"with qk_bias only {fields['n_heads']} (n_heads) is supported"
        )
    scale = fields["d_model"] ** 0.5
    init = keys.get("init_values", {})
    std = init.get("std") or init.get("embedding") or (2 / (5 * fields["d_model"])) ** 0.5
    return LoopedConfig(
        **fields,
        n_ctx=int(keys.need("block_size", "max_position_embeddings")),
        norm="huginn",
        coda_norm=True,
        rope_style="adjacent",
        rope_theta=float(keys.need("rope_base")),
        qk_bias=qk_bias,
        embedding_scale=scale,
        initial_state="noise",
        initial_state_std=float(std) * scale,
        family="huginn",
    )


def weights(cfg: LoopedConfig, shapes: Shapes) -> list[Weight]:
    """Name the stored tensors."""
    return fused_weights(cfg, {f"norm_{n}": f"norm_{n}" for n in (1, 2, 3, 4)})


FAMILY = Family(
    name="huginn",
    title="Huginn",
    published=("tomg-group-umd/huginn-0125",),
    facts=Facts(
        initial_state="truncated normal noise, standard deviation init_values.std * sqrt(d)",
        injection="linear adapter W [s; e], every iteration",
        boundary_norm="none of its own; the last norm of the core's last layer",
        readout="final norm, coda, final norm, head (tied)",
        default_depth="32 (mean_recurrence)",
        exit_rule="small change of output, state or entropy between iterations",
        load='load_model("tomg-group-umd/huginn-0125", dtype=torch.bfloat16)',
        not_supported="other injections, activations, norms or start states; bias; "
        "grouped heads with qk_bias",
    ),
    detect=detect,
    config=read_config,
    weights=weights,
    left_out=(LeftOut("freqs_cis", "the rotary table is computed from rope_base"),),
)
