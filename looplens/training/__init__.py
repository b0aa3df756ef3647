"""Training of small looped models: recipes, the loop, evaluation and model cards. Needs torch."""

from looplens.training.adaptive import Usage, adaptive_usage, frey
from looplens.training.baselines import equal_flops, equal_parameters
from looplens.training.capacity import Capacity, capacity
from looplens.training.card import write_card
from looplens.training.depth import DepthSampling
from looplens.training.etd import etd_recipe, span_to_loop
from looplens.training.evaluate import Evaluation, evaluate
from looplens.training.exit_evaluation import ExitEvaluation, evaluate_exits
from looplens.training.factories import (
    gate_stage,
    huginn,
    k_by_l,
    ouro,
)
from looplens.training.loop import TrainingResult, train
from looplens.training.losses import LoopingRegulariser, Loss
from looplens.training.recipe import Recipe, Stage
from looplens.training.recipes import RECIPES, get_recipe
from looplens.training.truncated import Health, health, unroll

__all__ = [
    "RECIPES",
    "Capacity",
    "DepthSampling",
    "Evaluation",
    "ExitEvaluation",
    "Health",
    "LoopingRegulariser",
    "Loss",
    "Recipe",
    "Stage",
    "TrainingResult",
    "Usage",
    "adaptive_usage",
    "capacity",
    "equal_flops",
    "equal_parameters",
    "etd_recipe",
    "evaluate",
    "evaluate_exits",
    "frey",
    "gate_stage",
    "get_recipe",
    "health",
    "huginn",
    "k_by_l",
    "ouro",
    "span_to_loop",
    "train",
    "unroll",
    "write_card",
]
