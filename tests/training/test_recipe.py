"""Depth sampling, schedules, curricula, and the errors of recipes that cannot be."""

import dataclasses

import numpy as np
import pytest

from looplens.errors import InputError
from looplens.tasks import get_task
from looplens.training import RECIPES, DepthSampling, get_recipe, train


def test_log_normal_poisson_has_the_moments_of_the_paper():
    rng = np.random.default_rng(0)
    draws = np.array([DepthSampling(mean=32).draw(rng) for _ in range(40_000)])
    # tau has mean log 32 - 1/8 and sd 1/2, so that E exp(tau) = 32 and Var = 32^2 (e^(1/4) - 1).
    variance = 32 + 32**2 * (np.exp(0.25) - 1)
    assert draws.mean() == pytest.approx(33, rel=0.01)
    assert draws.var() == pytest.approx(variance, rel=0.05)
    assert np.median(draws) == pytest.approx(29, abs=1)
    assert draws.min() >= 1


def test_depth_is_seeded_or_fixed():
    depth = DepthSampling(mean=8)
    first, again = ([depth.draw(np.random.default_rng([s])) for s in range(20)] for _ in range(2))
    assert first == again
    assert len(set(first)) > 3
    fixed = DepthSampling(kind="fixed", mean=4)
    assert {fixed.draw(np.random.default_rng(s)) for s in range(5)} == {4}


def test_learning_rate_warms_up_holds_and_falls(tiny):
    recipe = dataclasses.replace(tiny, steps=1000, warmup=100, learning_rate=1.0)
    rates = [recipe.learning_rate_at(step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[99:600] == [1.0] * 501
    assert rates[800] == pytest.approx(0.5)
    assert rates[-1] < 1e-4
    assert rates[600:] == sorted(rates[600:], reverse=True)


def test_curriculum_goes_by_step(tiny):
    assert [tiny.stage(step).length for step in (0, 11, 12, 23, 99)] == [8, 8, 12, 12, 12]


def test_generators_are_independent_of_history(tiny):
    draw = {(s, n): tiny.generator(s, n).random() for s in ("data", "depth") for n in range(50)}
    assert len(set(draw.values())) == 100
    assert draw["data", 3] == tiny.generator("data", 3).random()


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_registered_recipes_fit_their_task_and_context(name):
    recipe = RECIPES[name]
    for stage in recipe.curriculum:
        batch = get_task(recipe.task).sample(
            np.random.default_rng(0), 4, length=stage.length, difficulty=stage.difficulty
        )
        assert batch.tokens.shape[1] <= recipe.model.n_ctx
    assert recipe.name == name


def test_fingerprint_sees_everything_that_decides_the_weights(tiny):
    assert dataclasses.replace(tiny, summary="other").fingerprint() == tiny.fingerprint()
    model = dataclasses.replace(tiny.model, norm="sandwich")
    for change in ({"seed": 8}, {"clip": 2.0}, {"model": model}, {"steps": 25}):
        assert dataclasses.replace(tiny, **change).fingerprint() != tiny.fingerprint()


def test_errors_say_what_to_do(tiny, tmp_path):
    with pytest.raises(InputError, match=r"Unknown recipe 'phop-huggin'\. Did you mean 'phop-hug"):
        get_recipe("phop-huggin")
    with pytest.raises(InputError, match="Unknown recipe 'nothing'"):
        train("nothing", tmp_path)
    with pytest.raises(InputError, match=r"shares of the curriculum must add up to 1.* 0\.5"):
        dataclasses.replace(tiny, curriculum=tiny.curriculum[:1])
    with pytest.raises(InputError, match=r"'affine' has 9 tokens.* d_vocab=12"):
        dataclasses.replace(tiny, task="affine")
    with pytest.raises(InputError, match=r"Unknown task 'hop'\. Did you mean 'phop'"):
        dataclasses.replace(tiny, task="hop")
    with pytest.raises(InputError, match="at least 1; got 0, 16 and 2"):
        dataclasses.replace(tiny, steps=0)
    with pytest.raises(InputError, match="'labelled' or 'last'; got 'first'"):
        dataclasses.replace(tiny, loss_positions="first")
    with pytest.raises(InputError, match="mean >= 1"):
        DepthSampling(mean=0)
    with pytest.raises(InputError, match="'fixed' or 'log_normal_poisson'; got 'poisson'"):
        DepthSampling(kind="poisson")
