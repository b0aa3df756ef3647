"""Restarts: rates from two orbits and input dependence, in closed form; all of it over a run."""

import json
from types import SimpleNamespace

import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from restart_paths import CENTRE, PLANE, TIME, D, T, decays, of

import looplens
from looplens import analysis, plots
from looplens.analysis import input_dependence, path_independence
from looplens.analysis.analyzers._restart_agreement import restart_agreement
from looplens.analysis.analyzers.input_dependence import different_inputs
from looplens.analysis.analyzers.path_independence import plan
from looplens.analysis.measures.gap_decay import GapDecay, over_pairs
from looplens.analysis.regimes.thresholds import rounding_step
from looplens.errors import AnalysisError, InputError
from looplens.reports import _sections
from looplens.reports._material import Material
from looplens.testing import synthetic_run

# ---------------------------------------------------------------------- rates from two orbits


def test_the_rate_is_that_of_the_map_down_to_the_floor():
    rng = np.random.default_rng(1)
    states = decays(0.8, rng.normal(size=(3, D)))
    exact = path_independence(states[:, None])
    assert exact.gap_rate[0] == pytest.approx(0.8, rel=1e-9)
    assert exact.gap_rate_error[0] < 1e-9
    noisy = states + 1e-3 * rng.normal(size=states.shape)
    found = path_independence(noisy[:, None])
    assert found.gap_rate[0] == pytest.approx(0.8, abs=3 * found.gap_rate_error[0])
    assert 0 < found.gap_rate_error[0] < 0.03
    # Two independent noises: sqrt(2 d) times one of them, over the norm.
    expected = 1e-3 * np.sqrt(2 * D) / np.linalg.norm(CENTRE)
    assert found.gap_floor[0] == pytest.approx(expected, rel=0.15)
    assert 20 < found.gap_fit_end[0] < 50


def test_a_common_drift_and_a_growing_norm_are_no_contraction():
    constant = [np.zeros(D), np.full(D, 0.1)]
    grows = np.stack([CENTRE * (1 + TIME) + start for start in constant])
    found = path_independence(grows[:, None])
    assert found.gap[0, -1] < 0.1 * found.gap[0, 0]  # over the norm, the gap shrinks
    assert found.gap_rate[0] == pytest.approx(1, abs=1e-9)


def test_gaps_that_open_have_a_rate_above_one():
    tiny = 1e-6 * 1.5**TIME
    away = np.minimum(tiny, 1.0)
    found = path_independence(of(CENTRE + away * PLANE[0], CENTRE - away * PLANE[0]))
    assert found.gap_rate[0] == pytest.approx(1.5, rel=0.01)
    same = np.broadcast_to(CENTRE, (2, 1, T + 1, D))
    assert np.isnan(path_independence(same).gap_rate[0])
    at_once = np.where(TIME == 0, 1.0, 1e-9 * (1 + TIME % 2))
    found = path_independence(of(CENTRE + at_once, CENTRE - at_once))
    assert np.isnan(found.gap_rate[0])  # over before it could be fitted


def test_pairs_that_differ_make_the_error_of_the_rate():
    fits = [
        GapDecay(slope=np.log([rate]), error=np.array([0.0]), end=np.array([end]))
        for rate, end in ((0.5, 10.0), (0.8, 20.0), (np.nan, np.nan))
    ]
    rate, error, end = over_pairs(fits)
    assert rate[0] == pytest.approx(np.sqrt(0.4))
    assert error[0] == pytest.approx(np.sqrt(0.4) * np.log(1.6) / 2)
    assert end[0] == 15


def test_a_gap_is_in_units_of_both_norms_and_above_the_rounding_of_the_run():
    still = np.ones((T + 1, 1))
    found = path_independence(of(still * PLANE[0], 3 * still * PLANE[0]))
    np.testing.assert_allclose(found.gap, 1)  # 2 over the mean of 1 and 3
    np.testing.assert_allclose(found.token_aa, 1)
    coarse = SimpleNamespace(source_dtype="bfloat16", attrs={"store_dtype": "float32"})
    assert plan(SimpleNamespace(run=coarse)) == rounding_step("bfloat16")


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.permutations(range(4)), st.floats(-8, 8))
def test_nothing_depends_on_order_axes_or_units(seed, order, exponent):
    rng = np.random.default_rng(seed)
    states = decays(0.8, rng.normal(size=(4, D)))[:, None] + 1e-3 * rng.normal(
        size=(4, 3, T + 1, D)
    )
    turn = 10.0**exponent * np.linalg.qr(rng.normal(size=(D, D)))[0]
    other = list(order)
    before, after = path_independence(states), path_independence((states @ turn)[other])
    for name in ("gap", "gap_max", "gap_rate", "gap_rate_error", "gap_floor", "token_aa"):
        np.testing.assert_allclose(getattr(after, name), getattr(before, name), rtol=1e-6)
    limits = states[:, :, -1]
    before, after = input_dependence(limits), input_dependence((limits @ turn)[other])
    np.testing.assert_allclose(after.share, before.share, rtol=1e-6)
    moved = input_dependence(limits + 7.0)  # the variances do not see a common offset
    np.testing.assert_allclose(moved.share, before.share, rtol=1e-6)


# ---------------------------------------------------------------------- input dependence


def test_variances_are_those_that_were_drawn():
    rng = np.random.default_rng(5)
    inputs = 2.0 * rng.normal(size=(400, D))
    limits = inputs + 0.5 * rng.normal(size=(6, 400, D))
    found = input_dependence(limits)
    assert found.score[0] == pytest.approx(16, rel=0.05)
    assert found.share[0] == pytest.approx(16 / 17, rel=0.01)
    assert found.run_share == pytest.approx(found.share[0])
    assert found.between[0] == pytest.approx(4 / 4.25, rel=0.05)
    nothing = input_dependence(rng.normal(size=(6, 400, D)))
    assert nothing.share[0] < 0.02
    # By chance some positions seem to depend on the input; all of them together do not.
    nothing = input_dependence(rng.normal(size=(3, 400, 4)), np.repeat(np.arange(100), 4))
    assert nothing.share.mean() > 0.04
    assert nothing.run_share < 0.03
    assert input_dependence(1e200 * limits).run_share == pytest.approx(found.run_share)


def test_positions_are_kept_apart():
    rng = np.random.default_rng(6)
    place = np.array([0, 1, 2] * 5)
    limits = np.broadcast_to(10.0 * place[:, None] + rng.normal(size=(15, D)), (2, 15, D)).copy()
    limits[:, place == 2] = rng.normal(size=(2, 5, D))
    limits[0, 0] = np.inf
    found = input_dependence(limits, place)
    assert found.inputs.tolist() == [4, 5, 5]
    assert np.isinf(found.score[0])
    assert found.share[0] == 1
    assert found.share[2] < 0.5
    assert np.isnan(input_dependence(limits[:, :1], place[:1]).share[0])
    with pytest.raises(InputError, match="at least two restarts"):
        input_dependence(limits[:1])
    with pytest.raises(InputError, match="position must be 15 whole numbers"):
        input_dependence(limits, place[:3])


# ---------------------------------------------------------------------- over a run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("restarts") / "run"
    return looplens.open_run(synthetic_run(path, prompts=3, restarts=4))


def test_a_run_gets_basins_rates_and_shares_by_token_prompt_and_position(run):
    found = run.analyze(["path_independence", "basins", "input_dependence"])
    two = np.arange(run.n_tokens) % 8 == 7
    count = found["basins"]["basin_count"].values
    assert (count[two] == 2).all()
    assert (count[~two] == 1).all()
    assert found["basins"]["basin"].values[7].tolist() == [0, 1, 0, 1]
    assert found["basins"]["prompt_basin_count"].values.tolist() == [2, 2, 2]
    rates = found["path_independence"]["gap_rate"].values[:3]
    np.testing.assert_allclose(rates, [0.5, 0.65, 0.75], rtol=0.02)
    assert found["path_independence"]["prompt_token_aa"].sizes == {"prompt": 3}
    assert found["path_independence"]["prompt_readout_agreement"].sizes == {"prompt": 3}
    share = found["input_dependence"]["dependence_share"].values
    assert (share[:6] > 0.9999).all()
    assert share[7] < 0.95
    summary = analysis.summary(run)
    assert summary["basins"]["several_basins_share"] == pytest.approx(1 / 8)
    assert summary["basins"]["out_of_phase_share"] == 0
    assert summary["path_independence"]["period_agreement"] == 1
    assert summary["input_dependence"]["min_share_position"] == 7
    json.dumps(summary)


def test_verdicts_of_restarts_are_compared_by_token_and_prompt():
    run = SimpleNamespace(
        restarts=3, n_prompts=2, token_range=lambda prompt: slice(2 * prompt, 2 * prompt + 2)
    )
    regime = np.array([["orbit"] * 4, ["orbit"] * 4, ["orbit", "slider", "orbit", "unresolved"]])
    reason = np.full((3, 4), "", dtype=object)
    reason[1:, 3] = "non-finite states"
    period = np.array([[8.0, 8, 8, 8], [8.1, 8, 9, 8], [8, np.nan, 8, np.nan]])
    found = restart_agreement(run, regime, reason, period)
    np.testing.assert_allclose(found["regime_agreement"].values, [1, 1 / 3, 1, np.nan])
    np.testing.assert_allclose(found["period_agreement"].values, [1, 1, 1 / 3, 1])
    np.testing.assert_allclose(found["prompt_regime_agreement"].values, [2 / 3, 1])
    assert restart_agreement(SimpleNamespace(restarts=1), regime, reason, period) == {}


def test_equal_prefixes_are_one_input():
    columns = {"token_id": [1, 2, 3, 1, 2, 4], "position": [0, 1, 2, 0, 1, 2]}
    rows = SimpleNamespace(
        n_tokens=6,
        n_prompts=2,
        tokens={name: SimpleNamespace(values=np.array(row)) for name, row in columns.items()},
        prompts={"text": SimpleNamespace(values=np.array(["abc", "abd"], dtype=object))},
        token_range=lambda prompt: slice(3 * prompt, 3 * prompt + 3),
    )
    assert different_inputs(rows).tolist() == [True, True, True, False, False, True]
    rows.tokens["position"].values[:] = [1, 2, 3, 1, 2, 3]  # of prefixes that were not kept
    assert different_inputs(rows).all()
    rows.prompts["text"].values[:] = "abc"
    assert different_inputs(rows).tolist() == [True] * 3 + [False] * 3
    rows.prompts["text"].values[:] = ""
    assert different_inputs(rows).all()


def test_runs_that_are_small_or_not_complete(part_run_path, selected_run_path, tmp_path):
    part = looplens.open_run(part_run_path)
    found = part.analyze(["basins", "input_dependence"])
    known = part.committed_tokens
    assert not known.all()
    assert (np.isfinite(found["basins"]["basin_count"].values) == known).all()
    assert np.isnan(found["basins"]["prompt_basin_count"].values[1])
    assert (found["input_dependence"]["inputs"].values == 2).all()
    with pytest.raises(AnalysisError, match="keep_iterations='all'"):
        analysis.get(looplens.open_run(selected_run_path), "basins")
    one = looplens.open_run(synthetic_run(tmp_path / "one", prompts=1, iterations=16))
    with pytest.raises(AnalysisError, match=r"1 prompt\(s\) and 2 restart\(s\)"):
        analysis.get(one, "input_dependence")


def test_figures_and_sections_show_what_was_found(run):
    for theme in ("light", "dark"):
        figure = plots.basins(run, 0, theme=theme)
        assert isinstance(figure, go.Figure)
        names = [trace.name for trace in figure.data]
        assert names == ["basin 0", "basin 1", "apart from here on", "nearest two basins"]
        assert len(figure.data[1].x) == 2
        curves = plots.input_dependence(run, theme=theme).data
        assert [trace.name for trace in curves] == [
            "between inputs",
            "between restarts of an input",
        ]
    material = Material(run)
    section = _sections.basins(material)
    assert [picture.name for picture in section.pictures] == ["basins"]
    assert section.facts[0].value == "12.5\u202f%"
    assert "98" in _sections.input_dependence(material).facts[0].value
    tables = _sections.path_independence(material).tables
    assert len(tables[1].rows) == 3
    assert tables[1].columns[-2:] == ("same regime", "same prediction")
    assert tables[1].rows[0][-1] == "91.7\u202f%"  # of 8 tokens, one with a third of its pairs
    assert "±" in tables[0].rows[0][4]
