"""Recipes of the families by their sizes.

A factory fills in the architecture; everything else of a :class:`Recipe` (``steps``, ``batch``,
``seed``, ``curriculum``, ...) is passed through by name. Finished recipes are in ``recipes``, plain
baselines in ``baselines``.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from looplens.errors import InputError
from looplens.models import AdaptiveConfig, LoopedConfig
from looplens.tasks import get_task
from looplens.training.depth import DepthSampling
from looplens.training.losses import Loss
from looplens.training.recipe import Recipe, Stage, widest_sequence


def k_by_l(
    task: str,
    k: int,
    l: int,  # noqa: E741
    *,
    prelude: int = 0,
    coda: int = 0,
    d_model: int = 64,
    n_heads: int = 4,
    n_ctx: int | None = None,
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
        Sizes; the MLP is twice as wide as the model. Without ``n_ctx`` a model takes 256 tokens, or
        the next power of two that holds the curriculum.
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
        **plain_start(prelude),
    }
    settings = {
        "name": f"{label(task)}-{k}x{l}" + (f"-middle{prelude}+{coda}" if prelude + coda else ""),
        "summary": f"{k} layer(s) looped {l} times.",
        "depth": DepthSampling(kind="fixed", mean=l),
        "backprop_iterations": l,
        **settings,
    }
    return recipe_of(task, d_model, n_heads, n_ctx, {**fields, **(model or {})}, settings)


def huginn(
    task: str,
    *,
    iterations: int = 16,
    core: int = 1,
    prelude: int = 1,
    coda: int = 1,
    d_model: int = 64,
    n_heads: int = 4,
    n_ctx: int | None = None,
    model: dict[str, Any] | None = None,
    **settings: Any,
) -> Recipe:
    """Return a recipe after Huginn: a random start, linear injection, a random depth.

    Parameters
    ----------
    iterations : int
        The depth recommended for use; how many are trained says ``depth``, by default
        log-normal-Poisson with mean 8. The last 6 carry gradient (the paper's last 8:
        ``backprop_iterations=8``).
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
        "name": f"{label(task)}-huginn-{prelude}-{core}-{coda}",
        "summary": f"Huginn style, {prelude}/{core}/{coda} layers.",
        "depth": DepthSampling(mean=8),
        **settings,
    }
    return recipe_of(task, d_model, n_heads, n_ctx, {**fields, **(model or {})}, settings)


def ouro(
    task: str,
    *,
    iterations: int = 4,
    layers: int = 1,
    gate: bool = True,
    entropy: float = 0.05,
    d_model: int = 64,
    n_heads: int = 4,
    n_ctx: int | None = None,
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
        "name": f"{label(task)}-ouro-{layers}x{iterations}",
        "summary": f"Ouro style, {layers} layer(s), {iterations} passes.",
        "depth": DepthSampling(kind="fixed", mean=iterations),
        "backprop_iterations": iterations,
        **({"loss": Loss(kind="expected", entropy=entropy)} if gate else {}),
        **settings,
    }
    return recipe_of(task, d_model, n_heads, n_ctx, {**fields, **(model or {})}, settings)


def gate_stage(base: Recipe, **settings: Any) -> Recipe:
    """Return Ouro's second stage: the exit gate of a trained model, with the model frozen.

    Parameters
    ----------
    base : Recipe
        The first stage. A model without a gate gets a new one. The gate is trained at the model's
        default depth, whatever depths the model was trained at.
    **settings
        Fields of :class:`Recipe`, such as ``loss=Loss(kind="gate", threshold=0.02)``. By default
        300 steps on the last stage of the curriculum.

    References
    ----------
    Zhu et al., arXiv 2510.25741, section 3.2 (stage II).
    """
    cfg = dataclasses.replace(_looped(base), exit_gate=True)
    given = {
        "name": f"{base.name}-gated",
        "summary": f"{base.summary} The exit gate is trained afterwards, with the model frozen.",
        "model": cfg,
        "depth": DepthSampling(kind="fixed", mean=cfg.default_iterations),
        "steps": 300,
        "warmup": 20,
        "curriculum": (dataclasses.replace(base.curriculum[-1], share=1.0),),
        "loss": Loss(kind="gate"),
        "regulariser": None,
        "base": base,
        **settings,
    }
    return dataclasses.replace(base, **given)


def _looped(recipe: Recipe) -> LoopedConfig:
    """Return the configuration of a model with one loop around its core."""
    if isinstance(recipe.model, LoopedConfig):
        return recipe.model
    raise InputError(
        f"Recipe {recipe.name!r} trains an {type(recipe.model).__name__}: expected a model that "
        "loops its core, described by a LoopedConfig."
    )


def plain_start(prelude: int) -> dict[str, Any]:
    """Fields of a model whose layers simply follow each other."""
    return {"injection": "none", "initial_state": "prelude" if prelude else "embedding"}


def recipe_of(
    task: str,
    d_model: int,
    n_heads: int,
    n_ctx: int | None,
    fields: dict[str, Any],
    settings: dict[str, Any],
    *,
    kind: type[LoopedConfig] | type[AdaptiveConfig] = LoopedConfig,
) -> Recipe:
    """Make the recipe of a factory: sizes, and one stage at the task's own length."""
    made = get_task(task)
    stage = Stage(share=1.0, length=made.default_length, difficulty=made.difficulty_range)
    given: dict[str, Any] = {"steps": 1000, "curriculum": (stage,), **settings}
    widest = widest_sequence(task, given["curriculum"])
    sizes: dict[str, Any] = {
        "d_model": d_model,
        "n_heads": n_heads,
        "d_mlp": 2 * d_model,
        "d_vocab": len(made.vocabulary),
        "n_ctx": n_ctx or max(256, 1 << (widest - 1).bit_length()),
    }
    if kind is LoopedConfig:
        sizes["embedding_scale"] = d_model**0.5
    return Recipe(task=task, model=kind(**{**sizes, **fields}), **given)


def label(task: str) -> str:
    """Return the name of a task as a part of a file name."""
    return re.sub(r"[^a-z0-9.=]+", "-", task.lower())
