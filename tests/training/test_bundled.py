"""The models that ship: made by the registered recipes, and they do what their cards say."""

import json

import numpy as np
import pytest
import torch

import looplens
from looplens.tasks import get_task
from looplens.training import RECIPES, evaluate, evaluate_exits
from looplens.training.truncated import start


def test_bundled_models_were_trained_by_the_registered_recipes():
    for name, directory in looplens.bundled_models().items():
        card = json.loads((directory / "card.json").read_text())
        assert card["fingerprint"] == RECIPES[name].fingerprint(), name
        assert card["accuracy"] >= 0.985
        rows = card["evaluation"]["accuracy_by_difficulty"]
        recommended = card["evaluation"]["iterations"].index(card["recommended_iterations"])
        assert min(rows[recommended]) >= 0.95


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_bundled_models_answer_as_their_card_says(name):
    model, recipe = looplens.load_model(name), RECIPES[name]
    stage = recipe.curriculum[-1]
    result = evaluate(
        model, get_task(recipe.task), np.random.default_rng(1), sequences=64,
        iterations=[1, model.cfg.default_iterations], length=stage.length,
        difficulty=stage.difficulty,
    )  # fmt: skip
    if not get_task(recipe.task).answers_move:  # else one iteration has an answer of its own
        assert result.accuracy[0] < 0.9
    assert result.accuracy[1] >= 0.98


def test_the_contrast_model_keeps_moving_beyond_its_depth():
    model = looplens.load_model("phop-ouro-mini")
    batch = get_task("phop").sample(np.random.default_rng(2), 8, length=32, difficulty=(1, 4))
    with torch.no_grad():
        state, injected = start(model, torch.from_numpy(batch.tokens))
        for _ in range(64):
            previous, state = state, model.step(state, injected)
    relative_step = (state - previous).norm(dim=-1) / state.norm(dim=-1)
    assert relative_step.median() > 1e-2


def test_easy_answers_leave_the_gated_model_early():
    model = looplens.load_model("affine-ouro-mini")
    found = evaluate_exits(
        model, get_task("affine"), np.random.default_rng(3), quantiles=(0.1, 1.0), sequences=64,
        length=7, difficulty=(1, 7),
    )  # fmt: skip
    assert found.expected_exit[0] + 2 < found.expected_exit[-1]
    assert list(found.expected_exit) == sorted(found.expected_exit)
    assert found.entropy > 1  # nats: it has not collapsed onto one exit
    # The n-th operation needs n iterations, 4 on average: nearly nobody stays in vain.
    assert found.iterations[0] < 4.6 < found.iterations[1] == 8
    assert found.accuracy[0] > 0.99
