"""Where a language model keeps its layers: the one list that a forward walks through.

It looks at attribute names and at nothing else; what the layers do, and whether they are looped,
is for others.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from looplens.errors import InputError

LAYER_LISTS: tuple[str, ...] = (
    "model.layers",  # Llama, Mistral, Qwen2, Qwen3, OLMo-2, Gemma, Phi-3
    "transformer.h",  # GPT-2, GPT-J, Falcon, Bloom
    "gpt_neox.layers",  # GPT-NeoX, Pythia
    "model.decoder.layers",  # OPT
    "transformer.blocks",  # MPT
    "backbone.layers",
    "layers",  # the same models without their head
    "h",
)
"""Paths at which the list of layers is looked for, in this order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerList:
    """A list of layers and where it hangs.

    Attributes
    ----------
    owner : Module
        The module that holds the list, and walks through it in its forward.
    name : str
        Attribute of the owner.
    path : str
        The same from the model, such as ``model.layers``.
    layers : ModuleList
        The layers, in order.
    """

    owner: nn.Module
    name: str
    path: str
    layers: nn.ModuleList


def find_layer_list(model: nn.Module) -> LayerList:
    """Find the layers of an ordinary decoder.

    Parameters
    ----------
    model : Module
        A causal language model, with or without its head.

    Raises
    ------
    InputError
        If none of :data:`LAYER_LISTS` is a non-empty list of modules.
    """
    for path in LAYER_LISTS:
        *above, name = path.split(".")
        owner: object = model
        for part in above:
            owner = getattr(owner, part, None)
        layers = getattr(owner, name, None)
        if isinstance(owner, nn.Module) and isinstance(layers, nn.ModuleList) and len(layers):
            return LayerList(owner=owner, name=name, path=path, layers=layers)
    children = ", ".join(name for name, _ in model.named_children()) or "none"
    raise InputError(
        f"{type(model).__name__} is not a causal language model with a list of layers: looked for "
        f"{', '.join(LAYER_LISTS)}; its children are {children}."
    )
