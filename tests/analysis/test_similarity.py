"""Maps over virtual depth: against direct sums, on closed forms, and as an analysis of a run."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import looplens
from looplens import analysis, plots, reports
from looplens.errors import AnalysisError, InputError
from looplens.testing import synthetic_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("similarity") / "run"
    made = synthetic_run(path, prompts=3, n_layers=3, iterations=24, restarts=1)
    opened = looplens.open_run(made)
    opened.analyze("similarity", map_prompts=2)
    return opened


def test_the_maps_are_the_direct_sums_in_the_order_of_virtual_depth():
    states = np.random.default_rng(0).standard_normal((4, 3, 5, 8))  # token, layer, iteration
    found = analysis.depth_similarity(states)
    by_depth = np.array([states[:, v % 3, v // 3] for v in range(15)])  # depth, token, d_model
    apart = np.linalg.norm(by_depth[:, None] - by_depth, axis=(-2, -1))
    norm = np.linalg.norm(by_depth, axis=(-2, -1))
    np.testing.assert_allclose(found.distance, apart / (0.5 * (norm[:, None] + norm)), atol=1e-12)
    unit = by_depth / np.linalg.norm(by_depth, axis=-1, keepdims=True)
    np.testing.assert_allclose(found.cosine, np.einsum("vtd,wtd->vw", unit, unit) / 4, atol=1e-12)
    assert found.tokens == 4


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 100))
def test_the_maps_do_not_depend_on_the_order_of_tokens_on_rotation_or_scale(seed, scale):
    rng = np.random.default_rng(seed)
    states = rng.standard_normal((3, 2, 4, 6))
    turned = scale * states[rng.permutation(3)] @ np.linalg.qr(rng.standard_normal((6, 6)))[0]
    one, other = analysis.depth_similarity(states), analysis.depth_similarity(turned)
    np.testing.assert_allclose(one.cosine, other.cosine, atol=1e-9)
    np.testing.assert_allclose(one.distance, other.distance, atol=1e-7)


def test_small_distances_beside_large_norms_keep_their_digits():
    states = np.full((1, 1, 2, 64), 1e3)
    states[0, 0, 1, 0] += 1e-4
    found = analysis.depth_similarity(states)
    assert found.distance[0, 1] == pytest.approx(1e-4 / (1e3 * 8), rel=1e-6)


def test_tokens_that_are_not_finite_are_left_out_and_none_gives_nan():
    states = np.random.default_rng(1).standard_normal((3, 2, 3, 4))
    good = analysis.depth_similarity(states[:2])
    states[2, 0, 0, 0] = np.nan
    np.testing.assert_allclose(analysis.depth_similarity(states).cosine, good.cosine)
    assert np.isnan(analysis.depth_similarity(states[2:]).distance).all()


def test_attention_distance_is_zero_for_equal_maps_and_one_for_disjoint_ones():
    maps = np.zeros((1, 2, 3, 4, 5))  # layer, iteration, head, query, key
    maps[:, 0, :, :, 0] = maps[:, 1, :, :, 1] = 1
    np.testing.assert_allclose(analysis.attention_distance(maps), [[0, 1], [1, 0]])
    maps[:, 1, 0] = maps[:, 0, 0]  # one of the three heads does the same in both
    np.testing.assert_allclose(analysis.attention_distance(maps)[0, 1], 2 / 3)
    maps = np.concatenate([maps, maps])
    maps[1, 1, 0, 2, 3] = np.inf  # virtual depth 3 alone is unknown
    found = analysis.attention_distance(maps)
    assert np.isnan(found[3]).all()
    np.testing.assert_allclose(found[0, :3], [0, 0, 2 / 3], atol=1e-12)


def test_the_contrast_is_one_for_layers_that_repeat_and_zero_without_a_band():
    layers = np.random.default_rng(2).standard_normal((3, 1, 16))
    repeated = analysis.depth_similarity(np.repeat(layers, 4, axis=1)).distance
    np.testing.assert_allclose(analysis.band_contrast(repeated, 3), 1)
    flat = 1 - np.eye(12)
    np.testing.assert_allclose(analysis.band_contrast(flat, 3), 0)
    # Two layers, three iterations: rows 0 and 1 have the offsets 1 to 3, and the band is at 2.
    map_ = np.abs(np.subtract.outer(np.arange(6.0), np.arange(6)))
    near, far = 2.0, np.mean([1, 3, 1, 3])
    np.testing.assert_allclose(analysis.band_contrast(map_, 2)[0], (far - near) / (far + near))
    map_[0, 3] = 9.0
    far = np.mean([1, 9, 1, 3])
    np.testing.assert_allclose(analysis.band_contrast(map_, 2)[0], (far - near) / (far + near))
    assert np.isnan(analysis.band_contrast(flat, 1)).all()
    assert np.isnan(analysis.band_contrast(np.zeros((6, 6)), 2)).all()
    with pytest.raises(InputError, match="a multiple of 5 rows"):
        analysis.band_contrast(flat, 5)


def test_a_run_has_maps_of_some_prompts_and_bands_of_all_its_iterations(run):
    found = analysis.get(run, "similarity")
    assert found["state_cosine"].dims == ("prompt", "depth", "other_depth")
    assert found.sizes == {"prompt": 2, "iteration": 23, "depth": 72, "other_depth": 72}
    assert found["depth_layer"].values[:4].tolist() == [0, 1, 2, 0]
    assert found["depth_iteration"].values[[0, 3, 71]].tolist() == [1, 2, 24]
    states = run.site("resid_post", restart=0, tokens=run.token_range(1)).values
    direct = analysis.depth_similarity(states)
    np.testing.assert_allclose(found["state_distance"].sel(prompt=1), direct.distance, atol=1e-6)
    patterns = run.attention(1, restart=0).values
    np.testing.assert_allclose(
        found["attention_distance"].sel(prompt=1), analysis.attention_distance(patterns), atol=1e-6
    )
    summary = analysis.summary(run)["similarity"]
    assert summary["median_attention_contrast"] > 0.9  # its attention settles, layer by layer
    assert summary["prompts_mapped"] == 2


def test_large_maps_take_all_layers_of_evenly_spaced_iterations(run):
    found = analysis.ANALYZERS["similarity"].compute(run, map_points=20, map_prompts=1)
    assert sorted(set(found["depth_iteration"].values.tolist())) == [4, 8, 12, 16, 20, 24]
    assert (found.attrs["iterations_kept"], found.attrs["iterations_mapped"]) == (24, 6)
    with pytest.raises(InputError, match="map_restart must be one of the 1 restarts"):
        run.analyze("similarity", map_restart=1)


def test_it_is_made_by_name_only_drawn_and_reported(run, tmp_path):
    assert not analysis.ANALYZERS["similarity"].standard
    for quantity in ("distance", "cosine"):
        figure = plots.similarity(run, 1, quantity=quantity, theme="dark")
        assert [trace.type for trace in figure.data] == ["heatmap"] * 2 + ["scatter"] * 2
        found = analysis.get(run, "similarity")[f"state_{quantity}"].sel(prompt=1)
        np.testing.assert_allclose(figure.data[0].customdata, found)
    with pytest.raises(AnalysisError, match=r"Prompt 2 has no map .*0, 1.*map_prompts"):
        plots.similarity(run, 2)
    with pytest.raises(InputError, match="quantity must be one of 'distance', 'cosine'"):
        plots.similarity(run, quantity="cosin")
    section = reports.build(run).section("cycle")
    assert "similarity" in [picture.name for picture in section.pictures]
    assert any("band" in fact.label for fact in section.facts)
    one_layer = synthetic_run(
        tmp_path / "run", prompts=1, n_layers=1, iterations=8, attention=False
    )
    figure = plots.similarity(looplens.open_run(one_layer))
    assert [trace.type for trace in figure.data] == ["heatmap"] * 2
    assert any("not recorded" in note.text for note in figure.layout.annotations)


@pytest.mark.parametrize("variable", ["states/resid_post", "attention/1/pattern"])
def test_a_damaged_prompt_is_left_out_and_named(variable, tmp_path):
    path = synthetic_run(tmp_path / "run", prompts=3, iterations=8, restarts=1, d_model=4)
    whole = analysis.ANALYZERS["similarity"].compute(looplens.open_run(path))
    file = max((path / variable / "c").rglob("*"), key=lambda place: place.is_file())
    file.write_bytes(b"\0" * file.stat().st_size)
    run = looplens.open_run(path)
    with pytest.warns(UserWarning, match="could not be read"):
        found = run.analyze("similarity")["similarity"]
    lost = np.isnan(found["state_distance"].values).all((1, 2))
    assert lost.tolist() == [True] * 3 if variable.startswith("states") else [False, True, False]
    for place in np.flatnonzero(~lost):
        np.testing.assert_array_equal(
            found["attention_distance"][place], whole["attention_distance"][place]
        )


def test_a_run_that_has_no_layers_says_what_to_record():
    class NoLayers:
        site_names = ()

    assert "sites=('resid_post',)" in analysis.ANALYZERS["similarity"].needs(NoLayers())
