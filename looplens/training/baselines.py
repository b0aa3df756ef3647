"""Plain models to compare a looped one with: as many parameters, or as many operations.

They are trained as the looped model is, on as many batches.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from looplens.models import AdaptiveConfig, LoopedConfig
from looplens.training.depth import DepthSampling
from looplens.training.factories import plain_start
from looplens.training.losses import Loss
from looplens.training.recipe import Recipe


def equal_parameters(recipe: Recipe, **settings: Any) -> Recipe:
    """Return the plain model with the layers of a looped one, each run once.

    Weights of the injection and of the exit gate are left out, all others are as many. An adaptive
    model keeps its layers and memory and takes one step in each.

    Parameters
    ----------
    recipe : Recipe
        How the looped model is trained. Where it continues another recipe, the plain model is
        trained as the first one of them, for the steps of all together.
    **settings
        Fields of :class:`Recipe` that are to differ.
    """
    return _plain(recipe, 1, "parameters", settings)


def equal_flops(recipe: Recipe, **settings: Any) -> Recipe:
    """Return the plain model with as many layers as the looped one runs at its default depth.

    Equal operations a token, but for those of the injection. Of an adaptive model: as many layers
    as it may take steps, each with a memory of its own. The arguments are those of
    :func:`equal_parameters`.
    """
    cfg = recipe.model
    times = cfg.max_steps if isinstance(cfg, AdaptiveConfig) else cfg.default_iterations
    return _plain(recipe, times, "flops", settings)


def _plain(recipe: Recipe, times: int, what: str, settings: dict[str, Any]) -> Recipe:
    """Return a recipe without loops whose looping layers are there so many times."""
    cfg, first = recipe.model, recipe
    while first.base is not None:
        first = first.base
    model: LoopedConfig | AdaptiveConfig
    if isinstance(cfg, AdaptiveConfig):
        model = dataclasses.replace(cfg, n_layers=times * cfg.n_layers, max_steps=1)
    else:
        model = dataclasses.replace(
            cfg,
            n_core=times * cfg.n_core,
            default_iterations=1,
            exit_gate=False,
            family="plain",
            **plain_start(cfg.n_prelude),
        )
    given = {
        "name": f"{recipe.name}-equal-{what}",
        "summary": f"Plain model of equal {what} to {recipe.name}.",
        "model": model,
        "steps": recipe.first_step + recipe.steps,
        "depth": DepthSampling(kind="fixed", mean=1),
        "backprop_iterations": 1,
        "loss": Loss(),
        "regulariser": None,
        "base": None,
        **settings,
    }
    return dataclasses.replace(first, **given)
