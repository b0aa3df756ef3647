"""Encode-Think-Decode: a trained plain model whose middle layers are looped, and trained on.

A plain model is a looped one with a single pass. Its layers are split anew into prelude, core and
coda, keep their weights by number, and training goes on with ``k`` passes of the core. How a step
is taken is in ``step``; which layers to loop is measured by
:func:`looplens.analysis.choose_loop_span`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from looplens.analysis import LoopSpan, choose_loop_span
from looplens.errors import InputError
from looplens.models import LoopedConfig, load_model, model_card
from looplens.models.looped import LoopedTransformer
from looplens.models.residuals import last_token_residuals
from looplens.tasks import get_task
from looplens.training.depth import DepthSampling
from looplens.training.recipe import Recipe

SPAN_SEQUENCES = 512


def etd_recipe(
    plain: Recipe,
    start: int,
    stop: int,
    passes: int,
    *,
    steps: int,
    learning_rate: float | None = None,
    name: str | None = None,
) -> Recipe:
    """Return the recipe that goes on training a plain model with some of its layers looped.

    Parameters
    ----------
    plain : Recipe
        The plain model: all layers in the core, one pass, nothing injected.
    start, stop : int
        Layers ``start`` to ``stop - 1`` are looped.
    passes : int
        How often; 1 is the plain model again, trained for as many further steps.
    steps : int
        Steps of the continued training, on the last stage of the plain model's curriculum.
    learning_rate : float, optional
        By default that of the plain model.
    name : str, optional
        By default the plain name and the split, such as ``plain-2-2x4-4``.

    Raises
    ------
    InputError
        If ``plain`` is not a plain model, or the span lies outside its layers.

    References
    ----------
    Koishekenov et al., "Encode, Think, Decode", arXiv:2510.07358: one model is trained for each
    number of passes 1..5, from the weights before mid-training. The text was not at hand; the split
    and the passes are as summarised by others.
    """
    cfg = plain.model
    if (
        not isinstance(cfg, LoopedConfig)
        or cfg.n_prelude
        or cfg.n_coda
        or cfg.default_iterations != 1
        or cfg.injection != "none"
        or cfg.loop_norm
        or cfg.coda_norm
    ):
        raise InputError(
            f"Recipe {plain.name!r} does not train a plain model: expected all layers in the core, "
            "default_iterations=1, injection='none', loop_norm=False and coda_norm=False."
        )
    if not 0 <= start < stop <= cfg.n_core or passes < 1:
        raise InputError(
            f"Expected 0 <= start < stop <= {cfg.n_core} (the layers of {plain.name!r}) and at "
            f"least one pass; got start={start}, stop={stop}, passes={passes}."
        )
    split = (start, stop - start, cfg.n_core - stop)
    return dataclasses.replace(
        plain,
        name=name or f"{plain.name}-{split[0]}-{split[1]}x{passes}-{split[2]}",
        summary=f"Layers {start} to {stop - 1} of {plain.name}, {passes} passes.",
        model=dataclasses.replace(
            cfg,
            n_prelude=split[0],
            n_core=split[1],
            n_coda=split[2],
            initial_state="prelude",
            default_iterations=passes,
            family="etd",
        ),
        steps=steps,
        curriculum=(dataclasses.replace(plain.curriculum[-1], share=1.0),),
        depth=DepthSampling(kind="fixed", mean=passes),
        backprop_iterations=passes,
        learning_rate=learning_rate or plain.learning_rate,
        base=plain,
    )


def span_to_loop(
    model: LoopedTransformer,
    recipe: Recipe,
    *,
    sequences: int = SPAN_SEQUENCES,
    sensitivity: float = 1.0,
) -> LoopSpan:
    """Choose the layers to loop from held-out sequences of the task that a model was trained on.

    Parameters
    ----------
    model : LoopedTransformer
        The trained plain model.
    recipe : Recipe
        What it was trained by: the sequences are those of its last stage.
    sequences : int
        How many; the last token of each that is no pad counts.
    sensitivity : float
        Of the knee.
    """
    stage = recipe.curriculum[-1]
    task = get_task(recipe.task)
    batch = task.sample(
        recipe.generator("probe"), sequences, length=stage.length, difficulty=stage.difficulty
    )
    tokens, real = torch.from_numpy(batch.tokens), torch.from_numpy(task.is_text(batch.tokens))
    residuals = last_token_residuals(
        model,
        [
            {"input_ids": ids, "attention_mask": mask}
            for ids, mask in zip(tokens.split(64), real.split(64), strict=True)
        ],
    )
    return choose_loop_span(residuals, sensitivity=sensitivity)


def load_base(recipe: Recipe, directory: Path) -> Any:
    """Load the trained model of ``recipe.base`` from its directory.

    Raises
    ------
    InputError
        If the directory holds the model of another recipe.
    """
    assert recipe.base is not None
    found = model_card(directory).get("fingerprint")
    if found != recipe.base.fingerprint():
        raise InputError(
            f"Recipe {recipe.name!r} starts from {recipe.base.name!r} (fingerprint "
            f"{recipe.base.fingerprint()}), but {directory} holds a model of fingerprint {found}. "
            "Pass the directory that training the base wrote, or leave base= out to train it."
        )
    return load_model(directory)


def take_over(model: nn.Module, base: nn.Module) -> None:
    """Copy the weights of a trained model into one that may loop other layers of the same stack.

    Layers are matched by their number through prelude, core and coda, everything else by name.
    What the base does not have (an exit gate, an adapter) keeps its fresh weights.

    Raises
    ------
    InputError
        If the base has weights for which the model has no place, or the layers differ.
    """
    theirs, ours = _by_number(base), _by_number(model)
    for name, value in theirs.items():
        if name not in ours or ours[name].shape != value.shape:
            seen = tuple(ours[name].shape) if name in ours else "nothing of that name"
            raise InputError(
                f"The base model has {name} of shape {tuple(value.shape)}, the model to train has "
                f"{seen}. A model starts from a base of the same layers, split in any way."
            )
    fresh = [name for name in ours if name not in theirs and name.startswith("layers.")]
    if fresh:
        raise InputError(
            f"The model to train has {fresh[0]}, which the base model lacks: both need the same "
            "number of layers."
        )
    with torch.no_grad():
        for name, value in theirs.items():
            ours[name].copy_(value)


def _by_number(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights with layers counted through prelude, core and coda."""
    state = model.state_dict()
    if not isinstance(model, LoopedTransformer):
        return state
    cfg = model.cfg
    first = {"prelude": 0, "core": cfg.n_prelude, "coda": cfg.n_prelude + cfg.n_core}
    named = {}
    for name, value in state.items():
        part, _, rest = name.partition(".")
        if part in first:
            number, _, leaf = rest.partition(".")
            name = f"layers.{first[part] + int(number)}.{leaf}"
        named[name] = value
    return named
