"""A recipe that is small enough to train inside a test."""

import pytest

from looplens.models import LoopedConfig
from looplens.training import DepthSampling, Recipe, Stage


@pytest.fixture
def tiny():
    return Recipe(
        name="tiny",
        summary="One hop in short sequences.",
        task="phop",
        model=LoopedConfig(
            d_model=32,
            n_heads=2,
            d_mlp=64,
            d_vocab=12,
            n_ctx=32,
            n_prelude=1,
            n_core=1,
            embedding_scale=5.7,
            default_iterations=4,
            family="huginn",
        ),
        steps=24,
        batch=16,
        warmup=4,
        backprop_iterations=2,
        depth=DepthSampling(mean=3),
        curriculum=(
            Stage(share=0.5, length=8, difficulty=(1, 1)),
            Stage(share=0.5, length=12, difficulty=(1, 2)),
        ),
        seed=7,
    )
