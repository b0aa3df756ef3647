"""Sharing keys and values: the full cache is the forward, an average is a mean, one set loses."""

import numpy as np
import pytest
import torch

import looplens as ll
from looplens import plots
from looplens.dynamics.readouts.sharing import kv_sharing
from looplens.errors import InputError
from looplens.prompts import Prompt
from looplens.thinking import CacheStrategy, LoopedCache, caching

TOKENS = (1, 8, 11, 10, 11, 10, 10, 11, 9, 8)


def test_full_is_the_forward():
    model = ll.load_model("affine-huginn-mini")
    prompt = Prompt(
        token_ids=(3, 7, 4, 8, 2), text="", token_texts=("",) * 5, targets=(-1, 1, 2, 3, 4)
    )
    found = kv_sharing(model, [prompt], iterations=8)
    logp = model(torch.tensor([prompt.token_ids]), iterations=8)[0].log_softmax(-1)
    right = logp[range(1, 5), [1, 2, 3, 4]].detach()
    np.testing.assert_allclose(found["target_logprob"].values[0], right, atol=1e-4)
    assert found["strategy"].values.tolist() == ["full", "last", "average", "first", "shared:4"]
    assert (found["kl"].values[0] == 0).all()
    assert found["memory"].values == pytest.approx([1, 1 / 8, 1 / 8, 1 / 8, 1 / 2])
    assert found["position"].values.tolist() == [1, 2, 3, 4]


def test_one_iteration_has_nothing_to_share():
    model = ll.load_model("phop-ouro-mini")
    found = kv_sharing(model, [list(TOKENS)], iterations=1, strategies=["last", "average", "first"])
    assert (found["kl"].values < 1e-9).all()
    assert np.isnan(found["accuracy"]).all()


def test_an_averaging_cache_holds_the_mean():
    model = ll.load_model("affine-huginn-mini")
    ids, seen = torch.tensor([[3, 7, 4]]), []
    cache = LoopedCache(model, positions=3, iterations=4, strategy="average")
    attention = model.core[0].attn
    original = cache.extend

    def listening(layer, k, v):
        if layer is attention:
            seen.append(k.clone())
        return original(layer, k, v)

    cache.extend = listening
    with torch.no_grad(), caching(model, cache):
        model(ids, iterations=4)
    held = cache._layers["core", 0].keys[0]
    torch.testing.assert_close(held, torch.stack(seen).mean(0))
    with pytest.raises(InputError, match="single slot"):
        CacheStrategy(slots=2, keep="average")


def test_a_settled_model_shares_its_last_entries_without_loss():
    model = ll.load_model("phop-huginn-mini")
    ids = list(TOKENS)
    found = kv_sharing(model, [ids, ids[::-1]], iterations=16, strategies=["last", "first"])
    kl = dict(zip(found["strategy"].values, found["mean_kl"].values, strict=True))
    assert kl["last"] < 1e-5 < 1e-2 < kl["first"]


def test_figure_and_refusals():
    model = ll.load_model("phop-ouro-mini")
    found = kv_sharing(model, [list(TOKENS)], iterations=4, strategies=["last", "first"])
    made = plots.kv_sharing_figure(found, theme="dark")
    assert len(made.data) >= 2
    with pytest.raises(InputError, match="longer than prefill=10"):
        kv_sharing(model, [list(TOKENS)], prefill=10)
    with pytest.raises(InputError, match="native model"):
        kv_sharing(torch.nn.Linear(2, 2), [[1, 2]])
    with pytest.raises(InputError, match="cache strategy"):
        kv_sharing(model, [list(TOKENS)], strategies=["lost"])
