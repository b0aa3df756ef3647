"""Projections on the bases of a run, a prompt, tokens and tails, against closed forms."""

import numpy as np
import pytest

import looplens
from looplens import analysis
from looplens.analysis import bases
from looplens.errors import AnalysisError
from looplens.testing.runs import synthetic_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return looplens.open_run(synthetic_run(tmp_path_factory.mktemp("projecting") / "run"))


def test_few_states_of_many_dimensions_have_the_components_of_the_singular_vectors():
    states = np.random.default_rng(0).standard_normal((6, 40)) * np.arange(1, 41)
    found = analysis.pca(states, n_components=4)
    values, vectors = np.linalg.svd(states - states.mean(0), full_matrices=False)[1:]
    assert np.allclose(np.abs(found.components @ vectors[:4].T), np.eye(4), atol=1e-7)
    np.testing.assert_allclose(
        found.explained_variance_ratio, (values**2 / (values**2).sum())[:4], rtol=1e-9
    )
    largest = np.abs(found.components).argmax(1)
    assert (found.components[np.arange(4), largest] > 0).all()
    still = analysis.pca(np.ones((3, 40)), n_components=2)
    assert still.explained_variance_ratio.tolist() == [0, 0]
    assert np.allclose(still.components @ still.components.T, np.eye(2))


def test_the_basis_of_the_run_is_the_stored_one(run):
    stored = analysis.get(run, "pca")
    found = analysis.projection(run, [2, 9], restart=1, components=(0, 2))
    own = stored["projection"].isel(restart=1, token=[2, 9], component=[0, 2]).values
    np.testing.assert_allclose(found["projection"].values[0], own, atol=1e-4 * np.abs(own).max())
    layer = analysis.projection(run, [2], layers=1)
    own = stored["layer_projection"].sel(layer=1).isel(restart=0, token=[2], component=[0, 1])
    own = own.sel(iteration=slice(1, None)).values
    np.testing.assert_allclose(layer["projection"].values[0], own, atol=1e-4 * np.abs(own).max())


@pytest.mark.parametrize("basis", ["run", "prompt", "token", "tail"])
def test_what_is_shown_and_what_is_not_make_the_whole(run, basis):
    few = 6 if basis == "run" else run.width
    found = analysis.projection(run, [1, 4], basis=basis, components=range(few), layers=[None, 0])
    plane = analysis.projection(run, [1, 4], basis=basis, layers=[None, 0])
    left_out = found["off_plane"].values
    if basis != "run":
        assert np.nanmax(left_out) < 1e-9  # all dimensions leave nothing out
        squares = np.square(found["projection"].values)
        whole = squares.sum(-1)
        known = whole > 1e-12 * np.nanmax(whole)
        expected = 1 - squares[known][:, :2].sum(-1) / whole[known]
        np.testing.assert_allclose(plane["off_plane"].values[known], expected, atol=1e-6)
    assert np.all((left_out >= 0) | np.isnan(left_out))
    assert np.isnan(plane["step_off_plane"].values[..., 0]).all()


def test_the_tail_of_a_rotation_is_a_circle_in_its_plane(run):
    found = analysis.projection(run, 4, basis="tail")
    tail = found.sel(iteration=slice(49, None), token=4, layer=-1)
    radius = np.linalg.norm(tail["projection"].values, axis=-1)
    # 0.4 sqrt(d_model) about the limit; 16 iterations are not whole turns, so the mean is off it
    assert radius.mean() == pytest.approx(0.4 * 4, rel=0.1)
    assert tail["off_plane"].max() < 1e-6
    assert found["explained_variance_ratio"].sum() == pytest.approx(1, abs=1e-6)
    assert found["in_fit"].values.nonzero()[0].tolist() == list(range(49, 65))
    assert found.attrs["states"] == 16
    assert not found.attrs["rests"]
    assert analysis.projection(run, 0, basis="tail").attrs["rests"]


def test_each_path_is_seen_from_its_own_tail(run):
    found = analysis.projection(run, [1, 3, 4], basis="tail")
    means = found["projection"].sel(iteration=slice(49, None)).mean("iteration")
    assert np.abs(means.values).max() < 1e-6


def test_a_prompt_is_sampled_where_it_is_large_and_says_so(run, monkeypatch):
    whole = analysis.projection(run, 3, basis="prompt")
    assert whole.attrs["fitted_to"] == "512 states"
    monkeypatch.setattr(bases, "_WORK", 200 * run.width**2)
    part = analysis.projection(run, 3, basis="prompt")
    assert part.attrs["states"] <= 200
    assert part.attrs["fitted_to"].endswith("of 512 states")
    monkeypatch.setattr(bases, "_WORK", 32 * run.width**2)
    # every second state of a period of two would be one point
    two = analysis.projection(run, 3, basis="token")
    assert two.attrs["states"] == 32
    assert two["explained_variance_ratio"].values[0] > 0.5


def test_a_part_of_a_run_goes_by_the_numbers_that_it_keeps(selected_run_path):
    """Layers 1 and 3, iterations 4, 8, ... and 6 random components of each state."""
    run = looplens.open_run(selected_run_path)
    found = analysis.projection(run, [4], layers=3)
    stored = analysis.get(run, "pca")["layer_projection"].sel(layer=3).isel(restart=0, token=[4])
    own = stored.isel(component=[0, 1]).values
    np.testing.assert_allclose(found["projection"].values[0], own, atol=1e-4 * np.abs(own).max())
    assert found["iteration"].values.tolist() == list(run.kept_iterations)
    assert analysis.projection(run, [4], basis="tail").attrs["states"] == 4
    with pytest.raises(AnalysisError, match="holds no states after layer 2"):
        analysis.projection(run, [4], layers=[None, 2])
