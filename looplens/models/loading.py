"""From a checkpoint directory to a model: family, configuration, weights.

The model is built without storage, and each tensor is read straight into what becomes its
parameter: loading takes the memory of the weights once, plus one tensor where a cast is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import nn

from looplens.errors import InputError
from looplens.models.adaptive import AdaptiveTransformer
from looplens.models.adaptive_config import AdaptiveConfig
from looplens.models.config import LoopedConfig
from looplens.models.families import FAMILIES, Family, Weight, find_family
from looplens.models.families.base import Shapes, no_loop
from looplens.models.looped import LoopedTransformer
from looplens.models.rope import RotaryTable
from looplens.models.tokenizer import Tokenizer
from looplens.models.weight_files import Weights, open_weights

CONFIG = "config.json"
MODEL_TYPE = "looplens"


def load_directory(
    directory: Path,
    *,
    device: str | torch.device,
    dtype: torch.dtype | None,
    loop: tuple[int, int] | None,
    name: str,
) -> LoopedTransformer | AdaptiveTransformer:
    """Load a checkpoint directory; see :func:`~looplens.models.load_model`."""
    config = read_config(directory)
    if config.get("model_type") != MODEL_TYPE:
        find_family(config, {})  # a foreign model is refused before its weights are looked at
    torch_files = any(family.torch_files and family.detect(config, {}) for family in FAMILIES)
    stored = open_weights(directory, torch_files=torch_files)
    family: Family | None = None
    tokenizer = Tokenizer.load(directory)
    model: LoopedTransformer | AdaptiveTransformer
    if config.get("model_type") == MODEL_TYPE:
        no_loop(MODEL_TYPE, loop)
        with torch.device("meta"):
            model = _of_our_own(config, tokenizer, name)
        mapping = [Weight(target, (target,)) for target in model.state_dict()]
    else:
        family = find_family(config, stored.shapes)
        cfg = family.config(config, stored.shapes, loop)
        with torch.device("meta"):
            model = LoopedTransformer(cfg, tokenizer, name=name)
        mapping = family.weights(cfg, stored.shapes)
        if family.rotary_table in stored.shapes:
            model.rotary = RotaryTable.stored(stored.read(family.rotary_table), cfg)
    _check_weights(model, mapping, stored.shapes, family, directory)
    _fill(model, mapping, stored, device, dtype)
    return model.eval()


def _of_our_own(
    config: Mapping[str, Any], tokenizer: Tokenizer | None, name: str
) -> LoopedTransformer | AdaptiveTransformer:
    """Build what :func:`~looplens.models.save_model` wrote."""
    fields = {key: config[key] for key in config if key not in ("model_type", "architectures")}
    if config.get("architectures") == [AdaptiveTransformer.__name__]:
        return AdaptiveTransformer(AdaptiveConfig.from_dict(fields), tokenizer, name)
    return LoopedTransformer(LoopedConfig.from_dict(fields), tokenizer, name)


def read_config(directory: Path) -> dict[str, Any]:
    """Read ``config.json``.

    Raises
    ------
    InputError
        If it is not a JSON object.
    """
    try:
        config = json.loads((directory / CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{directory / CONFIG} is not valid JSON: {error}") from None
    if not isinstance(config, dict):
        raise InputError(f"{directory / CONFIG} is not valid JSON for a model: expected an object")
    return config


def _check_weights(
    model: LoopedTransformer | AdaptiveTransformer,
    mapping: list[Weight],
    stored: Shapes,
    family: Family | None,
    directory: Path,
) -> None:
    parameters = model.state_dict()
    expected = {weight.stored: _stored_shape(weight, parameters) for weight in mapping}
    problems = [f"missing {name}" for name in expected if name not in stored]
    problems += [
        f"unexpected {name}"
        for name in stored
        if name not in expected
        and not (family and family.is_left_out(name, tied=model.cfg.tie_embeddings))
    ]
    problems += [
        f"{name} has shape {stored[name]}, expected {shape}"
        for name, shape in expected.items()
        if name in stored and stored[name] != shape
    ]
    filled = {target for weight in mapping for target in weight.targets}
    assert filled == set(parameters), filled ^ set(parameters)  # or the family file is wrong
    if problems:
        raise InputError(
            f"the weights in {directory} do not fit its configuration: " + "; ".join(problems)
        )


def _stored_shape(weight: Weight, parameters: Mapping[str, torch.Tensor]) -> tuple[int, ...]:
    if weight.shape is not None:
        return weight.shape
    shapes = [tuple(parameters[target].shape) for target in weight.targets]
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


def _fill(
    model: LoopedTransformer | AdaptiveTransformer,
    mapping: list[Weight],
    stored: Weights,
    device: str | torch.device,
    dtype: torch.dtype | None,
) -> None:
    """Give every parameter its rows of the stored tensor, one at a time."""
    if dtype is None:
        # One dtype for all: mixed ones would not multiply. Promoting loses nothing.
        dtypes = {stored.read(weight.stored, 0, 0).dtype for weight in mapping}
        dtype = reduce(torch.promote_types, dtypes)
    parameters = dict(model.named_parameters())
    for weight in mapping:
        start = 0
        for target in weight.targets:
            parameter = parameters[target]
            rows = 1 if weight.shape is not None else parameter.shape[0]
            tensor = stored.read(weight.stored, start, start + rows).view(parameter.shape)
            start += rows
            module, _, leaf = target.rpartition(".")
            owner = model.get_submodule(module)
            setattr(owner, leaf, nn.Parameter(tensor.to(device=device, dtype=dtype)))
