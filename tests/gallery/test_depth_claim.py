"""What claim 1 computes itself: guesses, held-out sums, accuracy, shares of the gap, slopes."""

import importlib

import numpy as np
import pytest
import torch

from looplens.gallery import Scale
from looplens.gallery.scripts import folder
from looplens.tasks import get_task


@pytest.fixture
def claim(monkeypatch):
    monkeypatch.syspath_prepend(str(folder()))
    return importlib.import_module("c01_depth")


def test_depth_pays_its_slope_per_doubling(claim):
    depths = (1, 2, 4)
    rising = np.array([[0.25, 0.5, 0.75], [0.5, 0.5, 0.5]])  # (seed, depth)
    np.testing.assert_allclose(claim.slope(depths, rising), [0.25, 0], atol=1e-12)


def test_the_gap_is_closed_in_shares_of_what_depth_gains(claim):
    one, deep = np.array([0.2, 0.4]), np.array([1.0, 0.8])
    closed = claim.gap_closed(one, np.array([0.6, 0.8]), deep)
    assert closed.mean == pytest.approx((0.5 + 1.0) / 2)
    assert claim.gap_closed(one, one, np.array([1.0, 0.42])) is None  # depth gains too little


def test_matching_a_deep_model_counts_only_where_depth_gains(claim):
    few, deep = np.array([0.3, 0.32, 0.31]), np.array([0.9, 0.88, 0.92])
    assert claim.matches(few, deep - 0.02, deep) is True
    assert claim.matches(few, deep - [0.4, 0.41, 0.42], deep) is False
    assert claim.matches(few, deep - [0.0, 0.2, 0.4], deep) is None
    assert claim.matches(deep - 0.04, deep, deep) is None  # one pass is as near


@pytest.mark.parametrize("name", ["smoke", "quick", "full"])
def test_shapes_differ_in_layers_and_loops_alone(claim, name):
    for problem in claim.problems(Scale(name=name)):
        assert sum(stage.share for stage in problem.curriculum) == pytest.approx(1)
        depth = problem.depths[-1]
        assert {(1, 1), (1, depth), (depth, 1)} <= set(problem.shapes())
        assert len(set(problem.shapes())) == len(problem.shapes())
        looped, deep = problem.recipe(1, depth, 0), problem.recipe(depth, 1, 0)
        assert (looped.model.n_core, looped.depth.mean) == (1, depth)
        assert (deep.model.n_core, deep.depth.mean) == (depth, 1)
        for field in ("task", "steps", "batch", "learning_rate", "curriculum", "seed"):
            assert getattr(looped, field) == getattr(deep, field)


@pytest.fixture
def measures(claim):
    return importlib.import_module("measures_c01")


def test_a_chain_of_hops_comes_back_to_its_letter(measures):
    # Never after one hop; after two with 1/3; after three with 1/3 of the other 2/3.
    guesses = [measures.guess_of_hops(hops) for hops in (1, 2, 3)]
    assert guesses == pytest.approx([1 / 3, 1 / 3, (1 - 2 / 9) / 3])
    # The best fixed answer by count, from the distribution that is examined.
    drawn = get_task("phop:last=true").sample(
        np.random.default_rng(0), 4000, length=24, difficulty=3
    )
    again = (drawn.targets[:, -1] == drawn.tokens[:, -1]).mean()
    assert max(again, (1 - again) / 3) == pytest.approx(guesses[2], abs=0.02)


def test_sums_that_training_drew_are_not_examined(measures):
    smoke = Scale(name="smoke", quiet=True)
    problem = next(p for p in measures.problems(smoke) if p.exact)
    recipe, task = problem.recipe(1, 1, 0), get_task(problem.task)
    known = measures.trained_on(recipe)
    assert len(known) <= recipe.steps * recipe.batch
    data = recipe.generator("data")
    first = task.sample(data, recipe.batch, length=3, difficulty=(2, 2))
    a, b = task.decode(first.tokens[0]).split("=")[0].split("+")
    assert measures.operands(f"{b}+{a}=1") in known
    texts = [task.decode(row) for row in measures.held_out(problem, 0, smoke).tokens]
    assert texts
    assert not known & {measures.operands(text) for text in texts}


def test_a_sum_is_right_when_every_digit_is(measures):
    task = get_task("addition:digits=1")
    batch = task.label(np.stack([task.encode(text) for text in ("1+2=3", "4+5=9")]))

    def model(tokens, iterations):
        said = torch.from_numpy(batch.targets.clip(min=0))
        said[1, -1] = 0  # the full stop of the second is wrong
        return torch.nn.functional.one_hot(said, 14).float()

    assert measures.score(model, batch, 1, exact=False)[0] == 0.75
    assert measures.score(model, batch, 1, exact=True)[0] == 0.5
