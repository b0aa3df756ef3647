"""Looped transformers with hook points: configuration, model, checkpoints."""

from looplens.models.adaptive import AdaptiveTransformer
from looplens.models.adaptive_config import AdaptiveConfig
from looplens.models.addressing import LoopCache
from looplens.models.checkpoints import bundled_models, load_model, model_card, save_model
from looplens.models.config import LoopedConfig
from looplens.models.initial_state import InitialState
from looplens.models.looped import LoopedTransformer
from looplens.models.looping import LoopedLayers, last_token_residuals, loop_layers
from looplens.models.tokenizer import Tokenizer, char_tokenizer, word_tokenizer

__all__ = [
    "AdaptiveConfig",
    "AdaptiveTransformer",
    "InitialState",
    "LoopCache",
    "LoopedConfig",
    "LoopedLayers",
    "LoopedTransformer",
    "Tokenizer",
    "bundled_models",
    "char_tokenizer",
    "last_token_residuals",
    "load_model",
    "loop_layers",
    "model_card",
    "save_model",
    "word_tokenizer",
]
