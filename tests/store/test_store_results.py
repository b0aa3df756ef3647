from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from looplens.errors import CorruptRunError, InputError
from looplens.store import open_stored
from looplens.store.files.location import RunLocation
from looplens.store.reading.result_arrays import ChunkMemory
from looplens.store.reading.verifying import verify

RESULT = xr.Dataset(
    {
        "regime": (("restart", "token"), np.array([["orbit", "fixed_point", "ü"]] * 2)),
        "settling": ("token", np.full(3, np.nan), {"long_name": "settling", "units": "iterations"}),
        "settled": ("token", np.array([True, False, True])),
        "period": ("token", np.array([2, -1, 0], np.int32)),
        "mean": ((), 0.25),
    },
    coords={"score": ("score", np.array(["a", "bb"])), "iteration": ("iteration", [1, 2])},
    attrs={"tolerance": np.float64(0.01)},
)


def test_an_analysis_comes_back_as_it_was_written(tiny):
    run = open_stored(tiny.path)
    assert run.analysis("verdicts") is None
    run.write_analysis("verdicts", RESULT, version=3, parameters={"tail": 0.5, "window": (1, 2)})
    assert run.analyses == ["verdicts"]
    found = open_stored(tiny.path).analysis("verdicts")
    xr.testing.assert_equal(found, RESULT)
    assert found.sel(score="bb").score == "bb"
    assert found["settling"].attrs == {"long_name": "settling", "units": "iterations"}
    assert found["period"].dtype == np.int32
    assert found.attrs["tolerance"] == 0.01
    assert found.attrs["analysis"] == "verdicts"
    assert found.attrs["version"] == 3
    assert found.attrs["parameters"] == '{"tail": 0.5, "window": [1, 2]}'
    assert found.attrs["input_hash"] == run.input_hash()


def test_writing_again_replaces_all_of_it(tiny):
    run = open_stored(tiny.path)
    run.write_analysis("verdicts", RESULT, version=1, parameters={})
    run.write_analysis("verdicts", RESULT[["mean"]], version=2, parameters={})
    assert list(run.analysis("verdicts").data_vars) == ["mean"]
    plain = xr.open_datatree(tiny.path, engine="zarr")
    assert list(plain["analysis/verdicts"].data_vars) == ["mean"]
    run.write_analysis("verdicts", run.analysis("verdicts"), version=3, parameters={})
    assert run.analysis("verdicts").attrs["version"] == 3


def test_a_chunk_is_read_once_while_its_file_stays_as_it_is(tiny, monkeypatch):
    reads = []
    read = RunLocation.read_bytes
    monkeypatch.setattr(
        RunLocation, "read_bytes", lambda self, key: reads.append(key) or read(self, key)
    )
    run, other = open_stored(tiny.path), open_stored(tiny.path)
    run.write_analysis("verdicts", RESULT, version=1)
    found = run.analysis("verdicts")
    found["settled"].values[:] = False  # numbers of the caller's own
    xr.testing.assert_equal(run.analysis("verdicts"), RESULT)
    chunks = [key for key in reads if "/c" in key]
    assert len(chunks) == len(set(chunks)) == len(RESULT.variables)
    other.write_analysis("verdicts", RESULT[["mean"]] + 1, version=1)
    assert float(run.analysis("verdicts")["mean"]) == 1.25
    file = next((tiny.path / "analysis/verdicts/mean/c").rglob("*"), None)
    file = file or tiny.path / "analysis/verdicts/mean/c"
    file.write_bytes(b"?" * file.stat().st_size)
    with pytest.raises(CorruptRunError, match="Run the analysis again"):
        run.analysis("verdicts")


def test_the_stamp_changes_with_every_result_that_is_written(tiny):
    run, other = open_stored(tiny.path, lazy=True), open_stored(tiny.path)
    stamps = [run.analyses_stamp()]
    for name in ("verdicts", "lab/spectra", "verdicts", "lab/spectra", "lab/points"):
        other.write_analysis(name, RESULT, version=1)
        stamps.append(run.analyses_stamp())
        assert run.analyses_stamp() == stamps[-1]
    assert len(set(stamps)) == len(stamps)


def test_a_memory_of_chunks_holds_what_fits_and_what_was_used_last():
    memory = ChunkMemory(100)
    for name in "abcdef":
        memory.put(name, 1, np.zeros(20, np.uint8))
        assert memory.get("a", 1) is not None
    assert [name for name in "abcdef" if memory.get(name, 1) is not None] == list("acdef")
    assert memory.get("a", 2) is None  # its file changed
    memory.put("a", 2, np.zeros(90, np.uint8))
    memory.put("large", 1, np.zeros(101, np.uint8))
    assert memory.get("large", 1) is memory.get("f", 1) is None
    assert memory.get("a", 2) is not None


@pytest.fixture
def long_result(tiny):
    """A run with a result of 40,000 tokens, and the result."""
    tokens = np.arange(40_000)
    result = xr.Dataset(
        {
            "curve": (
                ("restart", "token", "iteration"),
                np.random.default_rng(0).random((2, 40_000, 8)),
            ),
            "regime": (("restart", "token"), np.array([tokens.astype(str)] * 2)),
            "settled": ("token", tokens % 2 == 0),
        },
        coords={"token": tokens},
    )
    open_stored(tiny.path).write_analysis("long", result, version=1)
    return tiny.path, result


def test_of_a_lazy_run_only_what_is_indexed_is_read(long_result, monkeypatch):
    path, result = long_result
    found = open_stored(path, lazy=True).analysis("long")
    read: list[str] = []
    plain = RunLocation.read_bytes
    monkeypatch.setattr(
        RunLocation, "read_bytes", lambda self, key: read.append(key) or plain(self, key)
    )
    some = {"token": [3, 39_999, 17], "restart": 1}
    xr.testing.assert_equal(found["curve"].isel(some).load(), result["curve"].isel(some))
    assert 0 < len(read) <= 2
    assert sum((path / key).stat().st_size for key in read) < result["curve"].nbytes / 8
    xr.testing.assert_equal(
        found["regime"].isel(token=slice(10, 20)).load().astype(object),
        result["regime"].isel(token=slice(10, 20)).astype(object),
    )
    xr.testing.assert_equal(found.load(), result)


def test_of_a_lazy_run_a_damaged_chunk_is_an_error_when_it_is_read(long_result):
    path, result = long_result
    run = open_stored(path, lazy=True)
    chunks = sorted((path / "analysis/long/curve/c/0").iterdir(), key=lambda p: int(p.name))
    last = chunks[-1] / "0"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    found = run.analysis("long")
    xr.testing.assert_equal(found["curve"][:, 0].load(), result["curve"][:, 0])
    with pytest.raises(CorruptRunError, match=r"'long' is damaged.*match its checksum.*again"):
        found["curve"][:, -1].load()
    last.unlink()
    with pytest.raises(CorruptRunError, match=r"'long' is damaged.*is missing"):
        found["curve"][:, -1].load()


def test_a_name_or_parameter_that_cannot_be_stored_is_refused(tiny):
    run = open_stored(tiny.path)
    with pytest.raises(InputError, match=r"not '\.\./loop'"):
        run.write_analysis("../loop", RESULT, version=1, parameters={})
    with pytest.raises(InputError, match="The parameters of verdicts must be values that JSON can"):
        run.write_analysis("verdicts", RESULT, version=1, parameters={"f": print})
    assert run.analyses == []


def test_results_of_a_group_lie_beside_each_other(tiny):
    run = open_stored(tiny.path)
    hashed = run.input_hash()
    run.write_analysis("verdicts", RESULT, version=1)
    run.write_analysis("lab/spectra", RESULT, version=1, parameters={"k": 6})
    run.write_analysis("lab/points", RESULT[["mean"]], version=1)
    run.write_analysis("lab/spectra", RESULT[["period"]], version=2)
    run = open_stored(tiny.path)
    assert run.analyses == ["lab/points", "lab/spectra", "verdicts"]
    assert run.input_hash() == hashed
    found = run.analysis("lab/spectra")
    xr.testing.assert_equal(found, RESULT[["period"]])
    assert found.attrs["analysis"] == "lab/spectra"
    assert run.analysis("lab") is None
    assert run.analysis("lab/other") is None
    run.write_analysis("lab/points", RESULT[["mean"]] + 1, version=1)  # after it was listed
    assert float(run.analysis("lab/points")["mean"]) == 1.25
    for tree in (run.tree, xr.open_datatree(tiny.path, engine="zarr")):
        assert list(tree["analysis/lab/spectra"].data_vars) == ["period"]
        assert sorted(tree["analysis"].children) == ["lab", "verdicts"]
    assert verify(tiny.path).ok
    assert not list((tiny.path / "analysis").rglob(".*"))
    chunk = next(f for f in (tiny.path / "analysis/lab/spectra/period/c").rglob("*") if f.is_file())
    chunk.write_bytes(b"?")
    with pytest.raises(CorruptRunError, match=r"'lab/spectra' is damaged"):
        run.analysis("lab/spectra")


def test_a_group_of_results_and_a_result_do_not_share_a_name(tiny):
    run = open_stored(tiny.path)
    run.write_analysis("verdicts", RESULT, version=1)
    run.write_analysis("lab/spectra", RESULT, version=1)
    with pytest.raises(InputError, match="'verdicts' is an analysis already"):
        run.write_analysis("verdicts/more", RESULT, version=1)
    with pytest.raises(InputError, match="'lab' is a group of analyses already"):
        run.write_analysis("lab", RESULT, version=1)
    for name in ("a/b/c", "lab/", "/lab", "lab/../x"):
        with pytest.raises(InputError, match="two with a slash between them"):
            run.write_analysis(name, RESULT, version=1)
    assert run.analyses == ["lab/spectra", "verdicts"]


def test_an_interruption_leaves_the_result_that_was_there(tiny, monkeypatch):
    run = open_stored(tiny.path)
    run.write_analysis("lab/points", RESULT, version=1)
    rename = Path.rename

    def interrupted(source, target):
        if str(target).endswith("points"):
            monkeypatch.undo()
            raise KeyboardInterrupt
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.write_analysis("lab/points", RESULT[["mean"]], version=2)
    xr.testing.assert_equal(open_stored(tiny.path).analysis("lab/points"), RESULT)
    assert not list((tiny.path / "analysis").rglob(".*"))


@pytest.mark.parametrize("damage", ["delete", "truncate", "metadata"])
def test_a_damaged_analysis_says_to_run_it_again(tiny, damage):
    run = open_stored(tiny.path)
    run.write_analysis("verdicts", RESULT, version=1, parameters={})
    chunk = tiny.path / "analysis/verdicts/settling/c/0"
    if damage == "delete":
        chunk.unlink()
    elif damage == "truncate":
        chunk.write_bytes(chunk.read_bytes()[:3])
    else:
        (tiny.path / "analysis/verdicts/mean/zarr.json").write_text("{")
    with pytest.raises(CorruptRunError, match=r"'verdicts' is damaged.*Run the analysis again"):
        run.analysis("verdicts")
    run.write_analysis("verdicts", RESULT, version=1, parameters={})
    xr.testing.assert_equal(run.analysis("verdicts"), RESULT)


def test_several_threads_may_store_the_same_analysis(tiny):
    problems = []

    def store():
        try:
            for number in range(5):
                result = xr.Dataset({"value": ("token", np.full(3, float(number)))})
                open_stored(tiny.path).write_analysis("shared", result, version=1)
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=store) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert set(open_stored(tiny.path).analysis("shared")["value"].values) == {4.0}
    assert not [f for f in (tiny.path / "analysis").iterdir() if f.name.startswith(".")]


def test_a_flipped_byte_of_a_stored_analysis_is_found(tiny):
    result = xr.Dataset({"value": ("token", np.arange(50.0))})
    open_stored(tiny.path).write_analysis("flipped", result, version=1)
    file = next(f for f in (tiny.path / "analysis/flipped/value/c").rglob("*") if f.is_file())
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(CorruptRunError, match=r"'flipped' is damaged.*Run the analysis again"):
        open_stored(tiny.path).analysis("flipped")
