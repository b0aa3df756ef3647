"""What claim 1 computes itself: shapes, the share of the gap, the slope in log depth."""

import importlib

import numpy as np
import pytest

from looplens.gallery import Scale
from looplens.gallery.scripts import folder


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
