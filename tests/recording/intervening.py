"""A small model and a forward with interventions, for the tests of interventions."""

import torch

from looplens.models import LoopedConfig, LoopedTransformer, char_tokenizer
from looplens.recording import applied

TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 7, 1, 8, 2, 8]])
OTHER = torch.tensor([[9, 9, 8, 7, 6, 5], [1, 2, 3, 4, 5, 6]])
T = 6


def make() -> LoopedTransformer:
    torch.manual_seed(0)
    cfg = LoopedConfig(
        d_model=32,
        n_heads=4,
        n_kv_heads=2,
        d_mlp=48,
        d_vocab=10,
        n_ctx=32,
        n_prelude=1,
        n_core=2,
        n_coda=1,
    )
    return LoopedTransformer(cfg, char_tokenizer("0123456789"), name="tiny").eval()


def run(model, interventions=(), tokens=TOKENS, **options):
    """Return logits and cache of T passes with interventions."""
    with torch.no_grad(), applied(model, interventions):
        return model.run_with_cache(tokens, iterations=T, **options)
