"""The recipes of the bundled models. A new one is one entry of ``RECIPES``.

Huginn-style models (a random start, the input injected in every pass, a random number of passes)
settle at fixed points that do not depend on the start. The Ouro-style contrast (no injection,
always four passes) is right at the depth it was trained at and keeps moving beyond it. The one that
computes has Ouro's exit gate, trained with the model.
"""

from __future__ import annotations

from looplens.errors import named
from looplens.training.depth import DepthSampling
from looplens.training.factories import huginn, ouro
from looplens.training.losses import Loss
from looplens.training.recipe import Recipe, Stage

_ALL = (
    huginn(
        "affine",
        name="affine-huginn-mini",
        summary="Running arithmetic modulo 7: the answer travels along the text as a wavefront.",
        iterations=16,
        core=2,
        n_ctx=64,
        steps=4000,
        curriculum=(
            Stage(share=0.25, length=2, difficulty=(1, 2)),
            Stage(share=0.3, length=5, difficulty=(1, 5)),
            Stage(share=0.45, length=10, difficulty=(1, 10)),
        ),
    ),
    huginn(
        "phop",
        name="phop-huginn-mini",
        summary="Up to eight hops of induction: harder questions settle after more iterations.",
        iterations=16,
        n_ctx=64,
        steps=3000,
        curriculum=(
            Stage(share=0.1, length=48, difficulty=(1, 1)),
            Stage(share=0.1, length=48, difficulty=(1, 2)),
            Stage(share=0.2, length=48, difficulty=(1, 4)),
            Stage(share=0.6, length=48, difficulty=(1, 8)),
        ),
    ),
    ouro(
        "phop",
        name="phop-ouro-mini",
        summary="Four hops without injection: right at four iterations, adrift beyond them.",
        gate=False,
        n_ctx=64,
        backprop_iterations=6,
        steps=2000,
        curriculum=(
            Stage(share=0.15, length=32, difficulty=(1, 1)),
            Stage(share=0.15, length=32, difficulty=(1, 2)),
            Stage(share=0.7, length=32, difficulty=(1, 4)),
        ),
    ),
    ouro(
        "affine",
        name="affine-ouro-mini",
        summary="Running arithmetic with an exit gate: answers of fewer operations leave earlier.",
        iterations=8,
        n_ctx=64,
        steps=1800,
        batch=32,
        curriculum=(
            Stage(share=0.25, length=2, difficulty=(1, 2)),
            Stage(share=0.25, length=4, difficulty=(1, 4)),
            Stage(share=0.5, length=7, difficulty=(1, 7)),
        ),
    ),
    huginn(
        "phop",
        name="phop-cycle-mini",
        summary="Up to six hops with two core layers: each settles at a fixed point of its own.",
        iterations=16,
        core=2,
        d_model=48,
        n_ctx=64,
        model={"embedding_scale": 7.0},
        steps=2400,
        batch=48,
        learning_rate=2e-3,
        curriculum=(
            Stage(share=0.15, length=32, difficulty=(1, 1)),
            Stage(share=0.1, length=32, difficulty=(1, 2)),
            Stage(share=0.2, length=32, difficulty=(1, 4)),
            Stage(share=0.55, length=32, difficulty=(1, 6)),
        ),
    ),
    huginn(
        "phop",
        name="phop-slider-mini",
        summary="Two hops without injection at random depths: slow drifts at a constant norm.",
        iterations=8,
        core=2,
        d_model=48,
        n_ctx=64,
        model={"injection": "none", "initial_state": "prelude", "family": "looplens"},
        depth=DepthSampling(mean=6),
        steps=500,
        batch=32,
        curriculum=(
            Stage(share=0.35, length=24, difficulty=(1, 1)),
            Stage(share=0.65, length=24, difficulty=(1, 2)),
        ),
    ),
    huginn(
        "zoo:cap=12",
        name="zoo-mini",
        summary="Lookups stand still, clocks turn, counters count: tokens whose regimes are known.",
        iterations=16,
        d_model=48,
        n_ctx=64,
        model={"initial_state": "zeros", "family": "looplens"},
        loss=Loss(kind="every"),
        depth=DepthSampling(mean=10),
        backprop_iterations=64,
        steps=500,
        batch=24,
        curriculum=(Stage(share=1.0, length=12, difficulty=(1, 3)),),
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
