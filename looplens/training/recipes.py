"""The recipes of the bundled models. A new one is one entry of ``RECIPES``.

Huginn-style models (a random start, the input injected in every pass, a random number of passes)
settle at fixed points that do not depend on the start. The Ouro-style contrast (no injection,
always four passes) is right at the depth it was trained at and keeps moving beyond it. The gated
one has both stages of Ouro's exit gate.
"""

from __future__ import annotations

from looplens.errors import named
from looplens.training.factories import gate_stage, huginn, ouro
from looplens.training.recipe import Recipe, Stage

_AFFINE_OURO = ouro(
    "affine",
    name="affine-ouro",
    summary="Running arithmetic modulo 7 by one layer that is looped eight times.",
    iterations=8,
    n_ctx=64,
    steps=1800,
    batch=32,
    curriculum=(
        Stage(share=0.25, length=2, difficulty=(1, 2)),
        Stage(share=0.25, length=4, difficulty=(1, 4)),
        Stage(share=0.5, length=7, difficulty=(1, 7)),
    ),
)

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
    gate_stage(
        _AFFINE_OURO,
        name="affine-ouro-gated",
        summary="Running arithmetic without injection, with a trained exit gate: answers that "
        "need fewer operations leave earlier.",
        steps=400,
        learning_rate=1e-2,
        decay_share=0.8,
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
