"""Analyses of runs that are growing, damaged, selected or spread over workers."""

import json
import shutil

import numpy as np
import pytest
import xarray as xr
from selecting_runs import select_run

import looplens
from looplens import analysis
from looplens.errors import AnalysisError, InputError
from looplens.store import StoredRun
from looplens.testing import synthetic_run

NAMES = ["convergence", "geometry", "classify", "path_independence", "basins", "cycle"]
LAST = "blocks/000002.json"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Record three blocks of eight tokens."""
    folder = tmp_path_factory.mktemp("whole")
    source = synthetic_run(folder / "source", iterations=32)
    path = select_run(source, folder / "run", block_tokens=8)
    run = looplens.open_run(path)
    assert run.n_blocks == 3
    possible = [found for found in analysis.ANALYZERS.values() if found.needs(run) is None]
    return path, {analyzer.name: analyzer.compute(run) for analyzer in possible}


@pytest.fixture
def growing(whole, tmp_path):
    """Copy the run without its last block; also return how to give it back."""
    path = shutil.copytree(whole[0], tmp_path / "run")
    record, root = (path / LAST).read_bytes(), (path / "zarr.json").read_text()
    (path / LAST).unlink()
    unfinished = json.loads(root)
    unfinished["attributes"]["complete"] = False
    (path / "zarr.json").write_text(json.dumps(unfinished))

    def grow():
        (path / LAST).write_bytes(record)
        (path / "zarr.json").write_text(root)
        return looplens.open_run(path)

    return looplens.open_run(path), grow


@pytest.fixture
def reads(monkeypatch):
    """List the tokens of which states are read."""
    read, real = set(), StoredRun.state

    def state(self, restart=None, tokens=None):
        read.update(range(self.n_tokens)[tokens])
        return real(self, restart=restart, tokens=tokens)

    monkeypatch.setattr(StoredRun, "state", state)
    return read


def assert_same(found, expected, **options):
    for name, variable in expected.data_vars.items():
        if variable.dtype == object:
            assert (found[name].values == variable.values).all(), name
        else:
            np.testing.assert_allclose(found[name].values, variable.values, **options)


def test_what_is_not_recorded_is_unknown_and_counted(growing, whole):
    run, _ = growing
    results = run.analyze()
    assert (results.not_recorded, results.unreadable) == (8, {})
    found = results["classify"]
    assert (found["reason"].values[:, 16:] == "not recorded").all()
    assert (found["regime"].values[:, 16:] == "unresolved").all()
    assert (found["layer_regime"].values[:, 16:] == "unresolved").all()
    for name in NAMES:
        expected = whole[1][name].isel(token=slice(0, 16))
        expected = expected[[key for key in expected if "token" in expected[key].dims]]
        assert_same(results[name].isel(token=slice(0, 16)), expected)
        assert results[name].attrs["tokens_not_recorded"] == 8
    assert np.isnan(results["convergence"]["relative_step"].values[:, 16:]).all()
    assert np.isnan(results["attention_change"]["change"].values[2]).all()
    assert np.isfinite(results["readout"]["entropy"].values).all()
    json.dumps(run.summary())


def test_a_run_that_grew_only_does_the_new_block(growing, whole, reads):
    run, grow = growing
    run.analyze(NAMES)
    reads.clear()
    run.analyze(NAMES, missing_only=True)
    assert reads == set()
    run = grow()
    assert analysis.get(run, "classify")["regime"].values[0, -1] == "fixed_point"
    reads.clear()
    results = run.analyze(NAMES, missing_only=True)
    assert reads == set(range(16, 24))
    for name in NAMES:
        assert_same(results[name], whole[1][name])
        assert "tokens_not_recorded" not in results[name].attrs
        xr.testing.assert_equal(run.analysis(name), results[name])
    reads.clear()
    run.analyze(NAMES)
    assert reads == set(range(24))


def test_other_parameters_are_not_mixed(growing):
    run, grow = growing
    run.analyze("convergence", tolerance=0.1)
    settling = grow().analyze("convergence", tolerance=0.5)["convergence"]["settling_iteration"]
    assert settling.attrs["tolerance"] == 0.5
    assert settling.values[0, 1] == settling.values[0, 17]


def test_parameters_stay_unless_others_are_given(growing, reads):
    run, grow = growing
    run.analyze(tolerance=0.1, confirm_tail=0.25)
    run = grow()
    reads.clear()
    assert run.results("convergence")["settling_iteration"].attrs["tolerance"] == 0.1
    results = run.analyze(NAMES, missing_only=True)
    assert reads == set(range(16, 24))
    assert results["convergence"]["settling_iteration"].attrs["tolerance"] == 0.1
    assert results["classify"]["regime"].attrs["confirm_tail"] == 0.25
    reads.clear()
    run.analyze(NAMES, missing_only=True, tolerance=0.1)
    assert reads == set()
    found = run.analyze(NAMES, missing_only=True, tolerance=0.5)["convergence"]
    assert found["settling_iteration"].attrs["tolerance"] == 0.5
    assert reads == set(range(24))
    for missing_only in (True, False):  # a stored result that is damaged is made again
        for stored in (run.path / "analysis/convergence/rate/c").rglob("*"):
            if stored.is_file():
                stored.write_bytes(stored.read_bytes()[:-7])
        run.analyze("convergence", tolerance=0.5, missing_only=missing_only)
        assert_same(run.analysis("convergence"), found)


def test_components_of_a_full_sample_stay_and_others_are_fitted_again(growing, whole, reads):
    run, grow = growing
    first = run.analyze("pca", sample=64)["pca"]
    run = grow()
    reads.clear()
    found = run.analyze("pca", sample=64)["pca"]
    assert reads == set(range(16, 24))
    np.testing.assert_array_equal(found["components"].values, first["components"].values)
    assert np.isfinite(found["projection"].values).all()
    assert_same(run.analyze("pca")["pca"], whole[1]["pca"], rtol=1e-6)


def damage(path, variable, block):
    """Flip a bit of one file of a variable; returns how to give its content back."""
    record = json.loads((path / f"blocks/{block:06}.json").read_text())
    shard = path / next(key for key in record["files"] if key.startswith(variable))
    content = shard.read_bytes()
    spoilt = bytearray(content)
    spoilt[len(spoilt) // 2] ^= 1
    shard.write_bytes(spoilt)
    return lambda: shard.write_bytes(content)


@pytest.fixture
def copied(whole, tmp_path):
    return shutil.copytree(whole[0], tmp_path / "run")


def test_a_damaged_block_is_left_out_with_a_warning(whole, copied):
    damage(copied, "loop/state", 1)
    run = looplens.open_run(copied)
    with pytest.warns(UserWarning, match="1 of 3 blocks of .* block 1: .*loop/state"):
        results = run.analyze(NAMES)
    assert list(results.unreadable) == [1]
    found = results["classify"]
    assert (found["reason"].values[:, 8:16] == "unreadable").all()
    assert found.attrs["tokens_unreadable"] == 8
    others = {"token": [*range(8), *range(16, 24)], "prompt": [0, 2]}
    assert_same(found.isel(others), whole[1]["classify"].isel(others))
    with pytest.warns(UserWarning, match="block 1"):
        assert analysis.get(run, "classify").attrs["tokens_unreadable"] == 8


@pytest.mark.filterwarnings("ignore:.*could not be read:UserWarning")
@pytest.mark.parametrize("grows", [False, True])
def test_what_is_known_stays_when_all_that_is_left_is_damaged(growing, grows):
    run, grow = growing
    first = run.analyze() if grows else None
    run = grow()
    damage(run.path, "loop/state", 2)
    first = first or run.analyze()
    second = run.analyze()
    assert list(second) == list(first)
    for name in ("convergence", "classify"):
        assert second[name].attrs["tokens_unreadable"] == 8
        assert_same(first[name].isel(token=range(16)), second[name].isel(token=range(16)))
    assert np.isnan(second["convergence"]["relative_step"].values[:, 16:]).all()
    assert (second["classify"]["reason"].values[:, 16:] == "unreadable").all()


@pytest.mark.filterwarnings("ignore:.*could not be read:UserWarning")
@pytest.mark.filterwarnings("ignore:These analyses could not be made")
def test_a_damaged_file_costs_only_those_that_read_it(copied):
    restore = damage(copied, "loop/state", 0)
    damage(copied, "states/resid_post", 1)
    run = looplens.open_run(copied)
    results = run.analyze()
    kept = {name: sorted(json.loads(results[name].attrs["blocks"])) for name in results}
    assert (kept["path_independence"], kept["cycle"]) == (["1", "2"], ["0", "2"])
    assert (kept["convergence"], kept["readout"]) == (["2"], ["0", "1", "2"])
    for name in results:
        assert_same(results[name], analysis.ANALYZERS[name].compute(run))
    restore()
    for number in (0, 2):
        damage(copied, "states/resid_post", number)
    shutil.rmtree(copied / "analysis")
    run = looplens.open_run(copied)
    with pytest.raises(AnalysisError, match=r"No token of .*resid_post"):
        run.analyze("cycle")
    results = run.analyze()
    assert "No token of" in results.skipped["cycle"]
    assert "path_independence" in results
    assert "cycle" not in run.summary()


def test_unreadable_blocks_are_tried_again_and_never_silent(whole, copied, reads, monkeypatch):
    restore = damage(copied, "loop/state", 1)
    run = looplens.open_run(copied)
    with pytest.warns(UserWarning, match="1 of 3"):
        run.analyze(NAMES)
    reads.clear()
    monkeypatch.setattr(type(run), "write_analysis", None)  # nothing new: nothing to write
    with pytest.warns(UserWarning, match="1 of 3 blocks"):
        again = run.analyze(NAMES, missing_only=True)
    assert (list(again.unreadable), reads) == ([1], set(range(8, 16)))
    monkeypatch.undo()
    restore()
    run = looplens.open_run(copied)
    assert run.analyze(NAMES, missing_only=True).unreadable == {}
    for name in NAMES:
        assert_same(run.analysis(name), whole[1][name])


def test_nothing_recorded_and_nothing_readable_say_so(growing):
    run, _ = growing
    for block in (0, 1):
        (run.path / f"blocks/{block:06}.json").unlink()
    run = looplens.open_run(run.path)
    assert set(run.analyze("all").skipped) == set(analysis.ANALYZERS)
    with pytest.raises(AnalysisError, match="No block of the recording is finished yet"):
        run.analyze("classify")


def test_workers_give_the_same_numbers_also_when_the_run_grows(whole, growing):
    distributed = pytest.importorskip("distributed")
    run, grow = growing
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        run.analyze(NAMES, client=client)
        run = grow()
        results = run.analyze("all", client=client)
    assert results.unreadable == {}
    for name, dataset in whole[1].items():
        assert_same(results[name], dataset)
    with pytest.raises(InputError, match=r"must be a distributed\.Client; got str"):
        run.analyze("classify", client="tcp://localhost:1")


def test_selected_runs_are_analysed_as_far_as_that_means_something(whole, tmp_path):
    some = select_run(whole[0], tmp_path / "some", iterations=range(4, 33, 4), layers=[1])
    results = looplens.open_run(some).analyze()
    assert set(results) == {"pca", "readout", "stages", "token_collapse"}
    assert "keeps 8 of 32" in results.skipped["classify"]
    assert "at least two recorded core layers" in results.skipped["cycle"]
    assert results["pca"]["iteration"].values.tolist() == list(range(4, 33, 4))
    assert results["pca"]["layer"].values.tolist() == [1]

    reduced = select_run(whole[0], tmp_path / "reduced", components=12, positions=[1, 2, 3])
    results = looplens.open_run(reduced).analyze()
    assert (
        results["classify"]["regime"].values[0].tolist()
        == ["fixed_point", "fixed_point", "orbit"] * 3
    )
    assert results["pca"]["components"].sizes["d_model"] == 16


def test_a_summary_is_of_the_tokens_that_are_there(part_run_path):
    run = looplens.open_run(part_run_path)
    known = int(run.committed_tokens.sum())
    assert known < run.n_tokens
    summary = run.summary()
    assert summary["classify"]["n_trajectories"] == run.restarts * known
    assert sum(summary["classify"][f"{name}_share"] for name in analysis.REGIMES) == 1
    settled = run.results("convergence")["settling_iteration"].values[:, run.committed_tokens]
    assert summary["convergence"]["never_settled"] == np.isnan(settled).sum()
    assert summary["path_independence"]["n_tokens"] == known
