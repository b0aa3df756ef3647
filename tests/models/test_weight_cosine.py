"""How looped a model is, on models whose layers are alike by construction."""

import numpy as np
import pytest
import torch

from looplens.errors import InputError
from looplens.models import LoopedConfig, LoopedTransformer
from looplens.models.weight_cosine import weight_cosine

transformers = pytest.importorskip("transformers")


def llama(layers=6):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=50,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def test_random_layers_are_orthogonal_and_repeated_ones_are_not():
    model = llama()
    found = weight_cosine(model)
    assert found.cosine.shape == (7, 6, 6)  # four of attention, three of the MLP, no norms
    assert found.layers[0] == "model.layers.0"
    off = found.cosine[:, ~np.eye(6, dtype=bool)]
    assert np.abs(off).max() < 0.06
    layers = model.model.layers
    for number in (2, 3, 4, 5):
        layers[number].load_state_dict(layers[number % 2].state_dict())
    looped = weight_cosine(model)
    assert looped.one_block_apart(2) == pytest.approx(dict.fromkeys(looped.groups, 1.0))
    sizes = looped.by_block()
    assert list(sizes) == [1, 2, 3]
    assert max(sizes, key=sizes.get) == 2


def test_one_block_apart_is_the_formula_of_the_regulariser():
    model, k = llama(), 2
    found = weight_cosine(model)
    weights = [layer.mlp.up_proj.weight.detach().flatten() for layer in model.model.layers]
    terms = [
        torch.cosine_similarity(weights[i * k + j], weights[(i + 1) * k + j], dim=0).item()
        for i in range(6 // k - 1)
        for j in range(k)
    ]
    assert found.one_block_apart(k)["mlp.up_proj.weight"] == pytest.approx(
        sum(terms) / (6 - k), abs=1e-6
    )


def test_layers_of_a_looped_transformer_are_listed_once():
    cfg = LoopedConfig(
        d_model=16, n_heads=2, d_mlp=24, d_vocab=10, n_ctx=32, n_prelude=1, n_core=2, n_coda=1
    )
    found = weight_cosine(LoopedTransformer(cfg))
    assert found.layers == ("prelude.0", "core.0", "core.1", "coda.0")
    assert "attn.q_proj.weight" in found.groups


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(InputError, match="not a causal language model with a list of layers"):
        weight_cosine(torch.nn.Linear(2, 2))
    with pytest.raises(InputError, match="block must lie between 1 and 5 in a model of 6 layers"):
        weight_cosine(llama()).one_block_apart(6)
