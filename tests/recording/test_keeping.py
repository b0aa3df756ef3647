"""Selection at the source: which numbers `Keep` names, and what a reduction leaves out."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from looplens.errors import InputError
from looplens.models import LoopedConfig, LoopedTransformer, char_tokenizer
from looplens.models.native import as_looped
from looplens.models.protocol import STATE
from looplens.prompts import Prompt
from looplens.recording.keeping.choices import starts_of
from looplens.recording.keeping.keep import Keep
from looplens.recording.keeping.reductions import (
    Projector,
    check_reduction,
    reduction_of,
    stand_in,
)
from looplens.recording.prompts import as_prompts

MODEL = SimpleNamespace(n_layers=4)


def prompt(text: str) -> Prompt:
    return Prompt(token_ids=tuple(map(ord, text)), text=text, token_texts=tuple(text))


PROMPTS = [prompt("12+3"), prompt("7"), prompt("+9")]


@pytest.mark.parametrize(
    ("layers", "numbers"),
    [(None, (0, 1, 2, 3)), (-1, (3,)), ([2, 0, 2], (0, 2)), (slice(1, None, 2), (1, 3))],
)
def test_layers_are_named_by_number_from_either_end(layers, numbers):
    kept = Keep(layers=layers).resolve(MODEL, PROMPTS, 8)
    assert kept.layers == numbers
    assert kept.options()["layers"] == (() if len(numbers) == 4 else numbers)


@pytest.mark.parametrize(
    ("iterations", "numbers"),
    [
        ("all", range(1, 11)),
        ("every:4", (2, 6, 10)),
        ("every:1", range(1, 11)),
        ("last:3", (8, 9, 10)),
        ("last:99", range(1, 11)),
        ([5, 1], (1, 5)),
    ],
)
def test_iterations_count_back_from_the_last_one(iterations, numbers):
    kept = Keep(iterations=iterations).resolve(MODEL, PROMPTS, 10)
    assert kept.iterations == tuple(numbers)
    assert kept.options()["kept_iterations"] == (() if kept.all_iterations else tuple(numbers))


@pytest.mark.parametrize(
    ("tokens", "positions"),
    [
        ("all", None),
        ("last", ((3,), (0,), (1,))),
        ([0, -1], ((0, 3), (0,), (0, 1))),
        (lambda p: [t != "+" for t in p.token_texts], ((0, 1, 3), (0,), (1,))),
        (lambda p: np.array([len(p) - 1]), ((3,), (0,), (1,))),
        (lambda p: range(len(p)), None),
    ],
)
def test_tokens_are_positions_or_what_a_function_says(tokens, positions):
    assert Keep(tokens=tokens).resolve(MODEL, PROMPTS, 8).token_positions == positions


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"layers": 4}, "layers names 4, but the core has 4, counted 0 to 3"),
        ({"layers": []}, "keeps none of the 4 core layers (0 to 3). To keep the loop state alone"),
        ({"layers": "0"}, "layers must be core layers"),
        ({"iterations": "every:0"}, "keep_iterations must be 'all', 'every:4', 'last:8'"),
        ({"iterations": [9]}, "names iteration 9, but the loop runs 1 to 8"),
        ({"iterations": [0]}, "the initial state is kept only with keep_iterations='all'"),
        ({"iterations": []}, "keeps nothing"),
        ({"tokens": [2]}, "tokens names 2, but prompt 1 has 1, counted 0 to 0"),
        ({"tokens": "first"}, "tokens must be 'all', 'last', positions, or a function"),
        ({"tokens": lambda p: [True]}, "returned 1 bools for prompt 0, which has 4 tokens"),
        ({"tokens": lambda p: [t == "+" for t in p.token_texts]}, "nothing of prompt 1 ('7')"),
        ({"tokens": lambda p: None}, "must return one bool a token, or positions"),
    ],
)
def test_what_cannot_be_kept_is_named(keep, message):
    with pytest.raises(InputError, match=re.escape(message)):
        Keep(**keep).resolve(MODEL, PROMPTS, 8)


# Reductions


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sizes = {"d_model": 16, "n_heads": 2, "d_mlp": 24, "d_vocab": 10, "n_ctx": 32}
    cfg = LoopedConfig(**sizes, n_prelude=1, n_core=2, n_coda=1)
    return as_looped(LoopedTransformer(cfg, char_tokenizer("0123456789"), name="tiny").eval())


def fitted(model, reduce, **options):
    prompts = as_prompts([f"{n:03d}12" for n in range(40)], model)
    return reduction_of(reduce, model, prompts, starts_of(model, "noise", 2, 3), 6, **options)


def test_a_pca_is_that_of_the_states_it_saw(model):
    seen = []

    def listen(iteration, value):
        if iteration:
            seen.append(value.detach().reshape(-1, 16).double().numpy())

    reduction = fitted(model, "pca:5")
    starts = starts_of(model, "noise", 2, 3)
    for number in [place * 40 // 16 for place in range(16)]:
        model.run_loop(model.to_tokens(f"{number:03d}12"), starts, 6, {STATE: listen})
    states = np.concatenate(seen)
    np.testing.assert_allclose(reduction.mean, states.mean(0), atol=1e-6)
    directions = np.linalg.svd(states - states.mean(0), full_matrices=False)[2][:5]
    np.testing.assert_allclose(np.abs(reduction.basis @ directions.T), np.eye(5), atol=1e-4)
    assert f"{len(states)} states of 16 prompts" in reduction.source


@pytest.mark.parametrize("kind", ["random:6", "pca:6"])
def test_a_reduction_says_of_each_state_what_it_leaves_out(model, kind):
    reduction = fitted(model, kind, sites=("resid_post", "k"), seed=3)
    assert reduction.seed == 3
    np.testing.assert_allclose(reduction.basis @ reduction.basis.T, np.eye(6), atol=1e-6)
    states = torch.randn(4, 5, 16) * 3
    projected, discarded = Projector(reduction, torch.device("cpu")).apply(states)
    centred = states.double().numpy() - reduction.mean
    np.testing.assert_allclose(projected, centred @ reduction.basis.T, atol=1e-5)
    left = centred - centred @ reduction.basis.T @ reduction.basis
    np.testing.assert_allclose(discarded, (left**2).sum(-1) / (centred**2).sum(-1), rtol=1e-4)
    inside = torch.from_numpy(reduction.mean + 2 * reduction.basis[0])
    projector = Projector(reduction, torch.device("cpu"))
    for mine, stores in zip(projector.apply(states), reduction.apply(states.numpy()), strict=True):
        np.testing.assert_allclose(mine, stores, atol=1e-5)
    assert projector.apply(inside)[1] < 1e-10
    assert projector.apply(torch.from_numpy(reduction.mean))[1] == 0
    assert projector.apply(torch.full((16,), torch.inf))[1].isnan()


def test_a_reduction_is_the_same_again_and_taken_from_the_run_that_is_joined(model):
    for kind in ("random:4", "pca:4"):
        first, again = fitted(model, kind), fitted(model, kind)
        np.testing.assert_array_equal(first.basis, again.basis)
        assert fitted(model, kind, stored=first) is first
        assert len(fitted(model, kind.replace("4", "3"), stored=first).basis) == 3
    assert fitted(model, first) is first
    assert fitted(model, first.basis).kind == "given"
    assert fitted(model, None) is None


def test_a_plan_needs_only_the_size(model):
    assert check_reduction("pca:7", 16) == 7
    assert check_reduction(None, 16) is None
    assert stand_in("pca:7", 16).basis.shape == (7, 16)


@pytest.mark.parametrize(
    ("reduce", "message"),
    [
        ("pca", "reduce must be 'random:64', 'pca:64', a Reduction, or an array"),
        ("pca:17", "asks for 17 dimensions of states that have 16"),
        (np.eye(3), "the reduction is of states with 3 dimensions"),
        (2 * np.eye(4, 16), "must be orthonormal"),
        (np.zeros(16), "has the shape (16,)"),
        ({"pca": 4}, "got a dict"),
    ],
)
def test_a_reduction_that_cannot_be_is_named(reduce, message):
    with pytest.raises(InputError, match=re.escape(message)):
        check_reduction(reduce, 16)
