"""Training of small looped models: recipes, the loop, evaluation and model cards. Needs torch."""

from looplens.training.card import write_card
from looplens.training.depth import DepthSampling
from looplens.training.evaluate import Evaluation, evaluate
from looplens.training.loop import TrainingResult, train
from looplens.training.recipe import Recipe, Stage
from looplens.training.recipes import RECIPES, get_recipe
from looplens.training.truncated import Health, health, unroll

__all__ = [
    "RECIPES",
    "DepthSampling",
    "Evaluation",
    "Health",
    "Recipe",
    "Stage",
    "TrainingResult",
    "evaluate",
    "get_recipe",
    "health",
    "train",
    "unroll",
    "write_card",
]
