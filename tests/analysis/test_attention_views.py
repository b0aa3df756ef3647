"""Attention maps are what was recorded; joined cells keep the strongest weight of their block."""

import numpy as np
import pytest

from looplens import analysis
from looplens.analysis.attention_views import join_cells
from looplens.errors import AnalysisError, InputError
from looplens.run import open_run


@pytest.fixture(scope="module")
def run(synthetic_run_path):
    return open_run(synthetic_run_path)


def test_a_map_is_the_recorded_one_with_the_future_left_out(run):
    found = analysis.attention_maps(run, 1, 5, layer=1, restart=1)["weight"]
    recorded = run.attention(1, restart=1, layer=1).sel(iteration=5).values
    past = np.tril(np.ones(recorded.shape[-2:], dtype=bool))
    assert found.dims == ("head", "query", "key")
    np.testing.assert_allclose(found.values[:, past], recorded[:, past], rtol=1e-6)
    assert np.isnan(found.values[:, ~past]).all()
    mean = analysis.attention_maps(run, 1, [5, 9], layer=1, restart=1, head="mean")["weight"]
    assert mean["iteration"].values.tolist() == [5, 9]
    np.testing.assert_allclose(mean.values[0][past], recorded.mean(0)[past], rtol=1e-5)


def test_only_the_iterations_that_are_asked_for_are_read(run):
    one = run.attention(0, restart=0, layer=0, iteration=7)
    several = run.attention(0, restart=0, layer=0, iteration=[7, 3])
    assert "iteration" not in one.dims
    np.testing.assert_array_equal(several.values[0], one.values)
    assert several["iteration"].values.tolist() == [7, 3]
    with pytest.raises(InputError, match="iteration 65 is not in this run, which holds 64 of"):
        run.attention(0, iteration=65)
    with pytest.raises(InputError, match="whole number or several"):
        run.attention(0, iteration="last")


def test_a_joined_cell_is_the_largest_weight_of_its_block():
    values = np.array([[0.1, 0.0, 0.0], [0.2, 0.7, 0.0], [0.3, 0.4, 0.5]])
    np.testing.assert_allclose(join_cells(values, 2), [[0.7, 0.0], [0.4, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(join_cells(values, 1), values, rtol=1e-6)


def test_long_prompts_are_joined_until_they_fit(run):
    found = analysis.attention_maps(run, 0, 4, most=2 * 3 * 3)
    assert found.attrs["tokens_per_cell"] == 3
    assert found["query"].values.tolist() == [0, 3, 6]
    whole = analysis.attention_maps(run, 0, 4)["weight"]
    assert float(found["weight"].max()) == pytest.approx(float(whole.max()))


def test_the_difference_is_signed_and_turns_with_its_iterations(run):
    one = analysis.attention_difference(run, 0, 2, 9, layer=0, head=1)["difference"]
    other = analysis.attention_difference(run, 0, 9, 2, layer=0, head=1)["difference"]
    np.testing.assert_allclose(one.values, -other.values)
    assert float(np.abs(one).max()) > 0
    # Rows of a map sum to one, so what a query reads less of it reads more elsewhere.
    np.testing.assert_allclose(np.nansum(one.values, axis=-1), 0, atol=1e-5)
    same = analysis.attention_difference(run, 0, 4, 4, layer=0)["difference"]
    assert float(np.nanmax(np.abs(same.values))) == 0


def test_what_is_not_there_is_said(run, tmp_path):
    with pytest.raises(InputError, match="head must be 0 to 1 or 'mean', got 2"):
        analysis.attention_maps(run, 0, 4, head=2)
    with pytest.raises(AnalysisError, match="prompt 9 was not recorded; that of these prompts was"):
        analysis.attention_maps(run, 9, 4)
