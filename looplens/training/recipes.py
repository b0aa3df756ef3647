"""The recipes of the bundled models. A new one is one entry of ``RECIPES``.

Huginn-style models (a random start, the input injected in every pass, a random number of passes)
settle at fixed points that do not depend on the start. The Ouro-style contrast (no injection,
always four passes) is right at the depth it was trained at and keeps moving beyond it.
"""

from __future__ import annotations

from looplens.errors import named
from looplens.models import LoopedConfig
from looplens.tasks import get_task
from looplens.training.depth import DepthSampling
from looplens.training.recipe import Recipe, Stage


def _huginn_mini(task: str, default_iterations: int, n_core: int) -> LoopedConfig:
    """Set prelude, core and coda after Huginn (arXiv 2502.05171, section 3)."""
    return LoopedConfig(
        d_model=64,
        n_heads=4,
        d_mlp=128,
        d_vocab=len(get_task(task).characters),
        n_ctx=64,
        n_prelude=1,
        n_core=n_core,
        n_coda=1,
        norm="huginn",
        injection="linear",
        initial_state="noise",
        embedding_scale=8.0,
        default_iterations=default_iterations,
        family="huginn",
    )


def _ouro_mini(task: str, default_iterations: int) -> LoopedConfig:
    """Loop one layer and nothing else, after Ouro (arXiv 2510.25741, section 3)."""
    return LoopedConfig(
        d_model=64,
        n_heads=4,
        d_mlp=128,
        d_vocab=len(get_task(task).characters),
        n_ctx=64,
        n_core=1,
        norm="sandwich",
        injection="none",
        initial_state="embedding",
        loop_norm=True,
        coda_norm=False,
        final_norm=False,
        embedding_scale=8.0,
        default_iterations=default_iterations,
        family="ouro",
    )


_ALL = (
    Recipe(
        name="affine-huginn-mini",
        summary="Running arithmetic modulo 7: the answer travels along the text as a wavefront.",
        task="affine",
        model=_huginn_mini("affine", default_iterations=16, n_core=2),
        steps=4000,
        curriculum=(
            Stage(share=0.25, length=2, difficulty=(1, 2)),
            Stage(share=0.3, length=5, difficulty=(1, 5)),
            Stage(share=0.45, length=10, difficulty=(1, 10)),
        ),
        depth=DepthSampling(mean=8),
    ),
    Recipe(
        name="phop-huginn-mini",
        summary="Up to eight hops of induction: harder questions settle after more iterations.",
        task="phop",
        model=_huginn_mini("phop", default_iterations=16, n_core=1),
        steps=3000,
        curriculum=(
            Stage(share=0.1, length=48, difficulty=(1, 1)),
            Stage(share=0.1, length=48, difficulty=(1, 2)),
            Stage(share=0.2, length=48, difficulty=(1, 4)),
            Stage(share=0.6, length=48, difficulty=(1, 8)),
        ),
        depth=DepthSampling(mean=8),
    ),
    Recipe(
        name="phop-ouro-mini",
        summary="Four hops without injection: right at four iterations, adrift beyond them.",
        task="phop",
        model=_ouro_mini("phop", default_iterations=4),
        steps=2000,
        curriculum=(
            Stage(share=0.15, length=32, difficulty=(1, 1)),
            Stage(share=0.15, length=32, difficulty=(1, 2)),
            Stage(share=0.7, length=32, difficulty=(1, 4)),
        ),
        depth=DepthSampling(kind="fixed", mean=4),
    ),
)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _ALL}


def get_recipe(name: str) -> Recipe:
    """Return a recipe by its name.

    Raises
    ------
    InputError
        When there is no such recipe.
    """
    return named(name, RECIPES, "recipe")
