import json
import shutil

import numpy as np
import pytest
import xarray as xr

import looplens
from looplens import analysis
from looplens.analysis import suite
from looplens.errors import AnalysisError, InputError
from looplens.store import RunWriter
from looplens.testing import runs, synthetic_run

NAMES = [name for name, analyzer in analysis.ANALYZERS.items() if analyzer.standard]
BY_NAME = [name for name in analysis.ANALYZERS if name not in NAMES]
CURVES = ("relative_step", "distance_to_limit", "state_norm", "radial_share", "rate", "floor")
PAIRS = ("gap", "gap_max", "gap_rate", "final_gap", "token_aa")
KINDS = [kind for kind, _, _ in runs.TOKEN_KINDS] * 2


@pytest.fixture(scope="module")
def analysed(tmp_path_factory):
    path = synthetic_run(tmp_path_factory.mktemp("run") / "run", prompts=2)
    run = looplens.open_run(path)
    results = analysis.analyze(run)
    return path, results


@pytest.fixture
def fresh(tmp_path):
    return looplens.open_run(
        synthetic_run(tmp_path / "run", prompts=1, iterations=24, attention=False, restarts=1)
    )


def test_all_analyses_run_are_stored_and_described(analysed):
    path, results = analysed
    assert list(results) == NAMES
    assert results.skipped == {}
    assert BY_NAME  # what costs more than reading the run is computed only when it is named
    run = looplens.open_run(path)
    assert sorted(run.analyses) == sorted(NAMES)
    for name in NAMES:
        stored = analysis.get(run, name)
        xr.testing.assert_allclose(
            stored.drop_vars([v for v in stored if stored[v].dtype == object]),
            results[name].drop_vars([v for v in stored if stored[v].dtype == object]),
        )
        for variable in stored.data_vars.values():
            assert {"long_name", "units"} <= set(variable.attrs), (name, variable.name)
    json.dumps(analysis.summary(run))


def test_regimes_of_the_synthetic_tokens(analysed):
    regimes = analysed[1]["classify"]
    expected = [runs.REGIMES[kind] for kind in KINDS]
    for restart in range(2):
        assert regimes["regime"].values[restart].tolist() == expected
    assert (regimes["layer_regime"].values[0, 0] == "fixed_point").all()
    turning = [index for index, kind in enumerate(KINDS) if kind == "rotation"]
    np.testing.assert_allclose(
        regimes["period"].values[:, turning], runs.ROTATION_PERIOD, rtol=0.01
    )
    assert regimes["reason"].dims == ("restart", "token")
    assert regimes["scores"].sizes["score"] == len(regimes["score"])


def test_convergence_follows_the_rates_of_the_tokens(analysed):
    found = analysed[1]["convergence"]
    assert found["relative_step"].dims == ("restart", "token", "iteration")
    assert found["iteration"].values[[0, -1]].tolist() == [1, 64]
    np.testing.assert_allclose(found["rate"].values[0, :3], [0.5, 0.65, 0.75], rtol=0.03)
    settling = found["settling_iteration"].values[0]
    assert settling[0] < settling[1] < settling[2] < settling[6]
    assert np.isnan(settling[3])
    assert found["settling_iteration"].attrs["tolerance"] == 0.01
    assert np.isnan(found["layer_relative_step"].values[..., 0]).all()
    np.testing.assert_array_equal(
        found["layer_settling_iteration"].values[:, :3, -1] > 1, np.ones((2, 3), bool)
    )


def test_components_are_fitted_without_the_start_and_project_it_too(analysed):
    path, results = analysed
    run, found = looplens.open_run(path), results["pca"]
    states = run.state().values.astype(np.float64)
    direct = analysis.pca(states[:, :, 1:])
    np.testing.assert_allclose(found["components"].values, direct.components, atol=1e-6)
    np.testing.assert_allclose(
        found["projection"].values, (states - direct.mean) @ direct.components.T, atol=1e-4
    )
    assert found["iteration"].values[0] == 0
    assert np.isnan(found["layer_projection"].values[:, :, :, 0]).all()
    assert found["layer_components"].dims == ("layer", "component", "d_model")


def test_restarts_and_predictions_are_compared(analysed):
    found = analysed[1]["path_independence"]
    basins = [kind == "two_basins" for kind in KINDS]
    assert (found["token_aa"].values[np.array(basins)] < 0.95).all()
    assert (found["token_aa"].values[~np.array(basins)] > 0.999).all()
    assert float(found["aa_score"]) == pytest.approx(float(found["token_aa"].mean()))
    assert found["gap"].sizes["iteration"] == 65
    assert found["readout_agreement"].dims == ("token", "iteration")
    assert np.isnan(found["readout_agreement"].values[:, 0]).all()
    agreements = analysis.summary(looplens.open_run(analysed[0]))["path_independence"]
    assert agreements["regime_agreement"] == 1
    assert (agreements["n_tokens"], agreements["n_non_finite"]) == (len(KINDS), 0)


def test_attention_readout_and_cycle_have_the_agreed_axes(analysed):
    _, results = analysed
    change = results["attention_change"]["change"]
    assert change.dims == ("prompt", "restart", "layer", "iteration", "head")
    assert change["iteration"].values[0] == 2
    readout = results["readout"]
    assert readout["accuracy"].dims == ("iteration",)
    assert readout["accuracy_by_difficulty"].dims == ("difficulty", "iteration")
    assert readout["difficulty"].values.tolist() == [1, 2, 3, 4]
    cycle = results["cycle"]
    assert cycle["distance"].dims == ("restart", "token", "layer", "other_layer")
    assert float(cycle["separation_ratio"][0, 0]) > 100


def test_summary_is_shares_and_a_table_by_difficulty(analysed):
    found = analysis.summary(looplens.open_run(analysed[0]))
    assert found["classify"]["orbit_share"] == 0.25
    assert found["classify"]["n_slider"] == 4
    assert found["convergence"]["settled_share"] == pytest.approx(5 / 8)
    by_difficulty = found["convergence"]["settling_by_difficulty"]
    assert list(by_difficulty) == ["1", "2", "3", "4"]
    assert by_difficulty["1"] < by_difficulty["2"]
    assert by_difficulty["4"] is None
    assert found["readout"]["best_accuracy"] >= found["readout"]["final_accuracy"]


def test_blocks_do_not_change_results(analysed, monkeypatch):
    path, results = analysed
    run = looplens.open_run(path)
    one = [slice(i, i + 1) for i in range(run.n_tokens)]
    monkeypatch.setattr(type(run), "blocks", lambda self, size=0: iter(one))
    for name in ("convergence", "pca", "path_independence"):
        again = analysis.ANALYZERS[name].compute(run)
        xr.testing.assert_allclose(again, results[name].drop_attrs(deep=False), atol=1e-5)


def test_impossible_and_unknown_analyses_are_named(fresh, monkeypatch):
    results = analysis.analyze(fresh)
    assert {"path_independence", "attention_change"} <= set(results.skipped)
    assert not set(BY_NAME) & {*results, *results.skipped}
    everything = analysis.analyze(fresh, "all")
    assert {*everything, *everything.skipped} == set(analysis.ANALYZERS)
    assert "restarts=2" in results.skipped["path_independence"]
    assert "path_independence" not in analysis.summary(fresh)
    with pytest.raises(AnalysisError, match=r"'attention_change' is not possible\. No attention"):
        analysis.analyze(fresh, "attention_change")
    with pytest.raises(AnalysisError, match="'path_independence' is not possible"):
        analysis.get(fresh, "path_independence")
    with pytest.raises(InputError, match=r"Unknown analysis 'clasify'.*Did you mean 'classify'"):
        analysis.analyze(fresh, ["clasify"])
    monkeypatch.setattr(type(fresh), "has_readout", property(lambda self: False))
    assert "readout=True" in analysis.ANALYZERS["readout"].needs(fresh)
    with pytest.raises(InputError, match=r"No parameter 'tolerence' in convergence.*'tolerance'"):
        analysis.analyze(fresh, "convergence", tolerence=1)


def test_parameters_reach_the_analysis_and_are_stored(fresh):
    analysis.analyze(fresh, ["convergence", "classify"], tolerance=0.5, tail=0.6)
    stored = analysis.get(fresh, "convergence")
    assert stored["settling_iteration"].attrs["tolerance"] == 0.5
    assert json.loads(stored.attrs["parameters"]) == {"tolerance": 0.5}
    assert analysis.get(fresh, "classify").attrs["thresholds"]["tail"] == 0.6


def test_get_computes_what_is_not_stored_once_and_stores_nothing(fresh, monkeypatch):
    calls = []
    real = analysis.ANALYZERS["cycle"]
    counting = type(real)(
        **{name: getattr(real, name) for name in real.__dataclass_fields__ if name != "build"},
        build=lambda *given: calls.append(1) or real.build(*given),
    )
    monkeypatch.setitem(analysis.ANALYZERS, "cycle", counting)
    first, second = analysis.get(fresh, "cycle"), analysis.get(fresh, "cycle")
    assert first is second
    assert (calls, fresh.analyses) == ([1], [])
    analysis.analyze(fresh, "cycle", missing_only=True)
    analysis.analyze(fresh, "cycle", missing_only=True)
    assert calls == [1, 1]


def test_a_viewer_does_not_wait_for_all_states_of_a_large_run(fresh, monkeypatch):
    viewed = looplens.open_run(fresh.path, lazy=True)
    assert analysis.get(viewed, "convergence").sizes["token"] == fresh.n_tokens
    monkeypatch.setattr(suite, "MOST_AT_ONCE", 1000)
    with pytest.raises(AnalysisError, match=r"'geometry' is not stored.*--only geometry`"):
        analysis.get(viewed, "geometry")
    assert "step_norm" in analysis.get(fresh, "geometry")
    analysis.analyze(fresh, "geometry")
    assert "step_norm" in analysis.get(viewed, "geometry")


def test_results_of_another_version_or_recording_are_not_taken(fresh, monkeypatch):
    analysis.analyze(fresh, "readout")
    version = analysis.ANALYZERS["readout"].version
    assert suite.current(fresh, analysis.ANALYZERS["readout"]) is not None
    fresh.write_analysis("readout", xr.Dataset({"x": 1}), version=0)
    assert "x" not in analysis.get(fresh, "readout")
    blocks = analysis.get(fresh, "readout").attrs["blocks"]
    other = xr.Dataset({"x": 1}, attrs={"blocks": blocks})
    fresh.write_analysis("readout", other, version=version)
    assert "x" in analysis.get(fresh, "readout")
    monkeypatch.setattr(type(fresh), "input_hash", lambda self: "another")
    assert "x" not in analysis.get(fresh, "readout")


def test_a_run_without_layers_still_has_the_rest(fresh, monkeypatch):
    monkeypatch.setattr(type(fresh), "site_names", property(lambda self: ()))
    results = analysis.analyze(fresh, ["convergence", "classify", "pca"])
    assert "layer_regime" not in results["classify"]
    assert "layer" not in results["pca"].dims
    with pytest.raises(AnalysisError, match="needs the site 'resid_post'"):
        analysis.get(fresh, "cycle")


def test_progress_is_told_once_for_all_analyses(fresh, monkeypatch):
    told = []
    halves = [slice(0, 4), slice(4, 8)]
    monkeypatch.setattr(type(fresh), "blocks", lambda self, size=0: iter(halves))
    analysis.analyze(fresh, ["pca", "convergence"], progress=lambda *step: told.append(step))
    assert told == [(1, 2), (2, 2)]
    shutil.rmtree(fresh.path)


@pytest.fixture(params=[(0,), (0, 1)], ids=["one restart", "all restarts"])
def spoilt(request, tmp_path, monkeypatch):
    """Record two restarts of which some, and their readouts, are NaN for every token."""
    write = RunWriter.write

    def spoiling(self, start, stop, arrays):
        arrays = {name: np.array(values) for name, values in arrays.items()}
        for values in arrays.values():
            if values.dtype.kind == "f":
                values[list(request.param)] = np.nan
            else:  # NaN logits have an order all the same
                values[...] = 0
        write(self, start, stop, arrays)

    monkeypatch.setattr(RunWriter, "write", spoiling)
    path = synthetic_run(tmp_path / "run", prompts=1, iterations=32)
    return looplens.open_run(path), len(request.param)


def test_runs_without_a_finite_token_are_analysed_and_reported(spoilt):
    run, bad = spoilt
    results = run.analyze()
    assert set(results.skipped) == {"input_dependence"}  # it compares prompts, and there is one
    assert {*results, *results.skipped} == set(NAMES)
    for name in results:
        attributes = [analysis.get(run, name).attrs]
        attributes += [variable.attrs for variable in results[name].variables.values()]
        json.dumps(attributes, allow_nan=False)
    found = run.summary()
    assert found["classify"]["n_non_finite"] == bad * run.n_tokens
    assert found["classify"]["n_unresolved"] >= bad * run.n_tokens
    pairs = found["path_independence"]
    assert (pairs["n_tokens"], pairs["n_non_finite"]) == (0, run.n_tokens)
    for name in ("aa_score", "max_final_gap", "readout_agreement", "regime_agreement"):
        assert np.isnan(pairs[name]), name
    page = looplens.reports.build(run).to_html()
    assert "not finite" in page
    assert "loop/state" in page


def test_agreement_of_regimes_follows_the_regimes_as_they_are(analysed, tmp_path):
    run = looplens.open_run(shutil.copytree(analysed[0], tmp_path / "run"))
    run.analyze("path_independence")
    other = run.results("classify").copy(deep=True)
    other["regime_agreement"].values[:4] = 0
    run.write_analysis("classify", other, version=analysis.ANALYZERS["classify"].version)
    run.analyze(missing_only=True)
    assert run.summary()["path_independence"]["regime_agreement"] == 1 - 4 / run.n_tokens


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("pca", {"n_components": 0}, "n_components must be a whole number of at least 1; got 0"),
        ("pca", {"n_components": 2.5}, "n_components must be a whole number .*got 2.5"),
        ("convergence", {"tolerance": "1e-3"}, "tolerance must be a finite number; got '1e-3'"),
        ("convergence", {"tolerance": np.nan}, "tolerance must be a finite number; got nan"),
        ("classify", {"tail": "half"}, "tail must be a finite number; got 'half'"),
        ("classify", {"shortest": 20.5}, "shortest must be a whole number of at least 16"),
        ("classify", {"source_dtype": 3}, "Unknown source dtype 3"),
    ],
)
def test_parameters_of_a_wrong_kind_are_named(fresh, name, parameters, message):
    with pytest.raises(InputError, match=message):
        analysis.analyze(fresh, name, **parameters)
    assert fresh.analyses == []


def test_the_one_pass_gives_what_the_array_functions_give(analysed):
    path, results = analysed
    run = looplens.open_run(path)
    states, layers = run.state().values, run.site().values
    settled, regimes = analysis.convergence(states), analysis.classify(states[:, :, 1:])
    restarts, cycle = analysis.path_independence(states), analysis.cycle(layers)
    after_layers = analysis.convergence(layers).relative_step
    pairs = [
        *((results["convergence"][name], getattr(settled, name)) for name in CURVES),
        (results["convergence"]["layer_relative_step"][..., 1:], after_layers),
        (results["classify"]["period"], regimes.period),
        (results["classify"]["amplitude"], regimes.amplitude),
        *((results["path_independence"][name], getattr(restarts, name)) for name in PAIRS),
        *((results["cycle"][name], getattr(cycle, name)) for name in ("distance", "movement")),
    ]
    for found, expected in pairs:
        np.testing.assert_allclose(found.values, expected, rtol=1e-5, atol=1e-7)
    for name in ("regime", "unit_regime", "reason"):
        assert (results["classify"][name].values == getattr(regimes, name)).all()
