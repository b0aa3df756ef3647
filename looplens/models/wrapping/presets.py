"""Declarations for looped models whose code lies elsewhere, chosen by their ``model_type``.

A preset names modules; it imports none of the libraries that they come from. It serves the plain
Hugging Face module and the TransformerLens ``TransformerBridge`` around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from looplens.errors import InputError
from looplens.loops.spec import Loop, LoopSpec, Start, Tap
from looplens.models.looped_layers import LoopedLayers
from looplens.models.wrapping.sizes import config_of


def preset(module: nn.Module) -> LoopSpec:
    """Return the preset for a module.

    Raises
    ------
    InputError
        If there is none for its ``model_type``.
    """
    if isinstance(module, LoopedLayers):  # it knows what it loops
        return module.loop_spec()
    kind = getattr(config_of(module), "model_type", None)
    if kind not in PRESETS:
        raise InputError(
            f"there is no preset for {type(module).__name__} (model_type {kind!r}); there are "
            f"presets for {', '.join(PRESETS)}. Pass loop=LoopSpec(...)."
        )
    return PRESETS[kind](module)


def hrm_text(module: nn.Module, axis: str = "h") -> LoopSpec:
    """Declare HRM-Text: a fast stack inside a slow one, ``Loop("h", H, inner=Loop("l", L))``.

    Parameters
    ----------
    module : HrmTextForCausalLM, or a TransformerBridge of it
        The module.
    axis : {"h", "l"}
        ``h``: iterations are slow cycles, the state is z_H, and the calls of both stacks within
        a cycle lie along the layer axis. ``l``: iterations are fast cycles of all slow ones in
        time order, the state is z_L, only the fast stack is recorded, and there is no readout,
        since the head reads z_H.

    References
    ----------
    ``HrmTextModel.forward`` in transformers 5.
    """
    config = config_of(module)
    bridged = _is_bridge(module)
    count = config.num_layers_per_stack
    fast, slow = (
        ("L_blocks", "H_blocks") if bridged else ("model.L_module.layers", "model.H_module.layers")
    )
    embed = Tap("embed" if bridged else "model.embed_tokens")
    states = {
        "h": Tap("H_ln_final" if bridged else "model.H_module"),
        "l": Tap("L_ln_final" if bridged else "model.L_module"),
    }
    start = (
        Start(embed, scale=float(config.embedding_scale))
        if axis == "h"
        else Start(embed, read=_low_start)
    )
    readout = "unembed" if bridged else "lm_head"
    return LoopSpec(
        loop=Loop("h", config.H_cycles, inner=Loop("l", config.L_cycles)),
        layers={
            "l": [f"{fast}.{layer}" for layer in range(count)],
            "h": [f"{slow}.{layer}" for layer in range(count)],
        },
        axis=axis,
        state=states,
        start=start,
        iterations="original_model.config.H_cycles" if bridged else "config.H_cycles",
        readout=readout if axis == "h" else None,
        sites={"attn_out": "attn" if bridged else "self_attn", "mlp_out": "mlp"},
        pattern=Tap("attn.hook_pattern") if bridged else Tap("self_attn", item=1),
        keywords={"use_cache": False},
    )


def albert(module: nn.Module) -> LoopSpec:
    """Declare ALBERT: one group of layers, run ``num_hidden_layers`` times.

    Parameters
    ----------
    module : AlbertModel, AlbertForMaskedLM or another head on AlbertModel
        Only AlbertForMaskedLM has a readout.

    Raises
    ------
    InputError
        If there are several groups: each is a loop of its own, run one after the other.

    References
    ----------
    ``AlbertTransformer.forward`` in transformers 5; Lan et al., arXiv:1909.11942, section 3.1.
    """
    config = config_of(module)
    if config.num_hidden_groups != 1:
        raise InputError(
            f"this ALBERT has num_hidden_groups={config.num_hidden_groups}: groups run one after "
            "the other, which is not one loop. Only num_hidden_groups=1 has a preset."
        )
    root = "albert." if hasattr(module, "albert") else ""
    group = f"{root}encoder.albert_layer_groups.0.albert_layers"
    return LoopSpec(
        loop=Loop("layer", config.num_hidden_layers),
        layers=[f"{group}.{layer}" for layer in range(config.inner_group_num)],
        start=Tap(f"{root}encoder.embedding_hidden_mapping_in"),
        iterations="config.num_hidden_layers",
        readout="predictions" if hasattr(module, "predictions") and root else None,
        sites={"resid_mid": "attention", "attn_out": "attention.dense", "mlp_out": "ffn_output"},
        pattern=Tap("attention", item=1),
    )


def ouro(module: nn.Module) -> LoopSpec:
    """Declare Ouro's published class: all layers ``total_ut_steps`` times, normed after each.

    Parameters
    ----------
    module : OuroForCausalLM, or a TransformerBridge of it
        The class of the published checkpoints, whose code comes with them.

    References
    ----------
    ``modeling_ouro.py`` of ByteDance/Ouro-1.4B; TransformerLens' adapter maps the same names.
    """
    config = config_of(module)
    bridged = _is_bridge(module)
    layers = "blocks" if bridged else "model.layers"
    return LoopSpec(
        loop=Loop("step", config.total_ut_steps),
        layers=[f"{layers}.{layer}" for layer in range(config.num_hidden_layers)],
        state="ln_final" if bridged else "model.norm",
        start="embed" if bridged else "model.embed_tokens",
        iterations=_set_ouro_steps,
        readout="unembed" if bridged else "lm_head",
        gate="original_model.model.early_exit_gate" if bridged else "model.early_exit_gate",
        sites={"mlp_out": "mlp"},
        pattern=Tap("attn.hook_pattern") if bridged else Tap("self_attn", item=1),
        keywords={"use_cache": False},
    )


def raven(module: nn.Module) -> LoopSpec:
    """Declare Huginn's published class: the core ``num_steps`` times from seeded noise.

    Parameters
    ----------
    module : RavenForCausalLM, or a TransformerBridge of it
        The class of the published checkpoints, whose code comes with them.

    References
    ----------
    ``raven_modeling_minimal.py`` of tomg-group-umd/huginn-0125: ``num_steps``, ``input_states``
    and ``predict_from_latents``.
    """
    config = config_of(module)
    core = "core_block" if _is_bridge(module) else "transformer.core_block"
    scale = config.n_embd**0.5
    return LoopSpec(
        loop=Loop("step", config.mean_recurrence),
        layers=[f"{core}.{layer}" for layer in range(config.n_layers_in_recurrent_block)],
        start=Start(keyword="input_states", scheme="noise", std=config.init_values["std"] * scale),
        iterations_keyword="num_steps",
        readout=_raven_readout,
        keywords={"use_cache": False},
    )


def adaptive(module: Any) -> LoopSpec:
    """Declare a model whose layers each loop by themselves: iterations are steps inside a layer.

    The state is that of the last layer. There is no readout: what a layer hands on is the mean of
    its steps, weighted by its router, and no single one of them.

    Parameters
    ----------
    module : AdaptiveTransformer
        Runs every layer for all its steps.
    """
    layers = range(module.cfg.n_layers)
    return LoopSpec(
        loop=Loop("step", module.cfg.max_steps),
        layers=[f"layers.{layer}.hook_state" for layer in layers],
        start=Tap(f"layers.{layers[-1]}.hook_resid_pre"),
        step=_adaptive_step,
    )


PRESETS: dict[str, Callable[..., LoopSpec]] = {
    "hrm_text": hrm_text,
    "albert": albert,
    "ouro": ouro,
    "huginn_raven": raven,
}


def _is_bridge(module: nn.Module) -> bool:
    return hasattr(module, "original_model")


def _adaptive_step(module: Any, state: Any, token_ids: Any) -> Any:
    """Run the last layer once more, where all of its steps are the same map."""
    layer = module.layers[-1]
    scales = layer.loop_scales
    if not bool((scales == scales[0]).all()):
        raise InputError(
            f"{module.model_name} exposes no step: step n of a layer is scaled by its own "
            "softplus(loop_scales[n]), so every iteration is another map. Only with equal scales, "
            "as before training, is there one step that has fixed points."
        )
    rotation = module.rotary.at(slice(0, token_ids.shape[1]), state.device)
    return layer.step(state, 0, module.memory, rotation)


def _low_start(module: Any, seen: Any) -> Any:
    inner = getattr(module, "original_model", module)
    return inner.model.z_L_init.to(seen).expand_as(seen)


def _raven_readout(module: Any, state: Any) -> Any:
    return getattr(module, "original_model", module).predict_from_latents(state).logits


@contextmanager
def _set_ouro_steps(module: Any, count: int) -> Iterator[None]:
    """Set the number of steps: the published class copies it from the config into the model."""
    inner = getattr(module, "original_model", module)
    owners = [o for o in (inner.config, inner.model, inner) if hasattr(o, "total_ut_steps")]
    before = [owner.total_ut_steps for owner in owners]
    for owner in owners:
        owner.total_ut_steps = count
    try:
        yield
    finally:
        for owner, value in zip(owners, before, strict=True):
            owner.total_ut_steps = value
