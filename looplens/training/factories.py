"""Recipes of the families by their sizes, and plain baselines to compare them with.

A factory fills in the architecture; everything else of a :class:`Recipe` (``steps``, ``batch``,
``seed``, ``curriculum``, ...) is passed through by name. Finished recipes are in ``recipes``.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from looplens.errors import InputError
from looplens.models import LoopedConfig
from looplens.tasks import get_task
from looplens.training.depth import DepthSampling
from looplens.training.losses import Loss
from looplens.training.recipe import Recipe, Stage


def k_by_l(
    task: str,
    k: int,
    l: int,  # noqa: E741
    *,
    prelude: int = 0,
    coda: int = 0,
    d_model: int = 64,
    n_heads: int = 4,
    n_ctx: int = 256,
    model: dict[str, Any] | None = None,
    **settings: Any,
) -> Recipe:
    """Return a recipe that loops k layers L times: no injection, pre-norm, a fixed depth.

    Parameters
    ----------
    task : str
        A name that :func:`looplens.tasks.get_task` knows.
    k, l : int
        Layers of the loop and passes through it; ``l=1`` is a plain model of k layers.
    prelude, coda : int
        Layers before and after ("middle looping").
    d_model, n_heads, n_ctx : int
        Sizes; the MLP is twice as wide as the model.
    model : dict, optional
        Other fields of :class:`~looplens.models.LoopedConfig`.
    **settings
        Fields of :class:`Recipe`. By default 1000 steps, one stage at the task's own length and
        difficulties, gradient through every pass, and a name from the task and the sizes.

    References
    ----------
    Saunshi et al., "Reasoning with Latent Thoughts: On the Power of Looped Transformers",
    arXiv 2502.17416, sections 2 and 3.
    """
    fields: dict[str, Any] = {
        "n_prelude": prelude,
        "n_core": k,
        "n_coda": coda,
        "norm": "pre",
        "coda_norm": False,
        "default_iterations": l,
        "family": "k_by_l",
        **_plain_start(prelude),
    }
    settings = {
        "name": f"{_label(task)}-{k}x{l}" + (f"-middle{prelude}+{coda}" if prelude + coda else ""),
        "summary": f"{k} layer(s) looped {l} times.",
        "depth": DepthSampling(kind="fixed", mean=l),
        "backprop_iterations": l,
        **settings,
    }
    return _recipe(task, d_model, n_heads, n_ctx, {**fields, **(model or {})}, settings)


def huginn(
    task: str,
    *,
    iterations: int = 16,
    core: int = 1,
    prelude: int = 1,
    coda: int = 1,
    d_model: int = 64,
    n_heads: int = 4,
    n_ctx: int = 256,
    model: dict[str, Any] | None = None,
    **settings: Any,
) -> Recipe:
    """Return a recipe after Huginn: a random start, linear injection, a random depth.

    Parameters
    ----------
    iterations : int
        The depth recommended for use; how many are trained says ``depth``, by default
        log-normal-Poisson with mean 8.
    core, prelude, coda : int
        Layers of each part.
    task, d_model, n_heads, n_ctx, model, **settings
        As in :func:`k_by_l`.

    References
    ----------
    Geiping et al., "Scaling up Test-Time Compute with Latent Reasoning", arXiv 2502.05171,
    section 3.
    """
    fields = {
        "n_prelude": prelude,
        "n_core": core,
        "n_coda": coda,
        "norm": "huginn",
        "injection": "linear",
        "initial_state": "noise",
        "default_iterations": iterations,
        "family": "huginn",
    }
    settings = {
        "name": f"{_label(task)}-huginn-{prelude}-{core}-{coda}",
        "summary": f"Huginn style, {prelude}/{core}/{coda} layers.",
        "depth": DepthSampling(mean=8),
        **settings,
    }
    return _recipe(task, d_model, n_heads, n_ctx, {**fields, **(model or {})}, settings)


def ouro(
    task: str,
    *,
    iterations: int = 4,
    layers: int = 1,
    gate: bool = True,
    entropy: float = 0.05,
    d_model: int = 64,
    n_heads: int = 4,
    n_ctx: int = 256,
    model: dict[str, Any] | None = None,
    **settings: Any,
) -> Recipe:
    """Return a recipe after Ouro: one stack, no injection, norm at the loop, a fixed depth.

    Parameters
    ----------
    iterations, layers : int
        Passes of the loop and layers in it; there are no others.
    gate : bool
        With an exit gate, trained with the model on the expected loss (the first stage;
        :func:`gate_stage` gives the second). Otherwise on the loss after the last pass.
    entropy : float
        Weight of the entropy of exits.
    task, d_model, n_heads, n_ctx, model, **settings
        As in :func:`k_by_l`.

    References
    ----------
    Zhu et al., "Scaling Latent Reasoning via Looped Language Models", arXiv 2510.25741, section 3.
    """
    fields: dict[str, Any] = {
        "n_core": layers,
        "norm": "sandwich",
        "injection": "none",
        "initial_state": "embedding",
        "loop_norm": True,
        "coda_norm": False,
        "final_norm": False,
        "exit_gate": gate,
        "default_iterations": iterations,
        "family": "ouro",
    }
    settings = {
        "name": f"{_label(task)}-ouro-{layers}x{iterations}",
        "summary": f"Ouro style, {layers} layer(s), {iterations} passes.",
        "depth": DepthSampling(kind="fixed", mean=iterations),
        "backprop_iterations": iterations,
        **({"loss": Loss(kind="expected", entropy=entropy)} if gate else {}),
        **settings,
    }
    return _recipe(task, d_model, n_heads, n_ctx, {**fields, **(model or {})}, settings)


def gate_stage(base: Recipe, **settings: Any) -> Recipe:
    """Return Ouro's second stage: the exit gate of a trained model, with the model frozen.

    Parameters
    ----------
    base : Recipe
        The first stage. A model without a gate gets a new one.
    **settings
        Fields of :class:`Recipe`, such as ``loss=Loss(kind="gate", threshold=0.02)``. By default
        300 steps on the last stage of the curriculum.

    References
    ----------
    Zhu et al., arXiv 2510.25741, section 3.2 (stage II).
    """
    given = {
        "name": f"{base.name}-gated",
        "summary": f"{base.summary} The exit gate is trained afterwards, with the model frozen.",
        "model": dataclasses.replace(_looped(base), exit_gate=True),
        "steps": 300,
        "warmup": 20,
        "curriculum": (dataclasses.replace(base.curriculum[-1], share=1.0),),
        "loss": Loss(kind="gate"),
        "regulariser": None,
        "base": base,
        **settings,
    }
    return dataclasses.replace(base, **given)


def equal_parameters(recipe: Recipe, **settings: Any) -> Recipe:
    """Return the plain model with the layers of a looped one, each run once.

    Weights of the injection and of the exit gate are left out, all others are as many.
    """
    return _plain(recipe, _looped(recipe).n_core, "parameters", settings)


def equal_flops(recipe: Recipe, **settings: Any) -> Recipe:
    """Return the plain model with as many layers as the looped one runs at its default depth.

    Equal operations a token, but for those of the injection.
    """
    cfg = _looped(recipe)
    return _plain(recipe, cfg.n_core * cfg.default_iterations, "flops", settings)


def _plain(recipe: Recipe, layers: int, what: str, settings: dict[str, Any]) -> Recipe:
    cfg = _looped(recipe)
    model = dataclasses.replace(
        cfg,
        n_core=layers,
        default_iterations=1,
        exit_gate=False,
        family="plain",
        **_plain_start(cfg.n_prelude),
    )
    given = {
        "name": f"{recipe.name}-equal-{what}",
        "summary": f"Plain model of equal {what} to {recipe.name}.",
        "model": model,
        "depth": DepthSampling(kind="fixed", mean=1),
        "backprop_iterations": 1,
        "loss": Loss(),
        "regulariser": None,
        "base": None,
        **settings,
    }
    return dataclasses.replace(recipe, **given)


def _looped(recipe: Recipe) -> LoopedConfig:
    """Return the configuration of a model with one loop around its core."""
    if isinstance(recipe.model, LoopedConfig):
        return recipe.model
    raise InputError(
        f"Recipe {recipe.name!r} trains an {type(recipe.model).__name__}: expected a model that "
        "loops its core, described by a LoopedConfig."
    )


def _plain_start(prelude: int) -> dict[str, Any]:
    """Fields of a model whose layers simply follow each other."""
    return {"injection": "none", "initial_state": "prelude" if prelude else "embedding"}


def _recipe(
    task: str,
    d_model: int,
    n_heads: int,
    n_ctx: int,
    fields: dict[str, Any],
    settings: dict[str, Any],
) -> Recipe:
    sizes = {
        "d_model": d_model,
        "n_heads": n_heads,
        "d_mlp": 2 * d_model,
        "d_vocab": len(get_task(task).vocabulary),
        "n_ctx": n_ctx,
        "embedding_scale": d_model**0.5,
    }
    made = get_task(task)
    stage = Stage(share=1.0, length=made.default_length, difficulty=made.difficulty_range)
    given = {"steps": 1000, "curriculum": (stage,), **settings}
    return Recipe(task=task, model=LoopedConfig(**{**sizes, **fields}), **given)


def _label(task: str) -> str:
    """Return the name of a task as a part of a file name."""
    return re.sub(r"[^a-z0-9.=]+", "-", task.lower())
