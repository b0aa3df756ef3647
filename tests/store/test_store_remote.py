from __future__ import annotations

import importlib
import socket
import sys
import uuid
from types import SimpleNamespace

import fsspec
import numpy as np
import pytest
import xarray as xr
from store_help import make_arrays, make_spec, tokens_of, write_run

from looplens.errors import CorruptRunError, InputError, NotARunError, RunExistsError, StoreError
from looplens.store import RunWriter, open_stored
from looplens.store.files.location import RunLocation
from looplens.store.format import schema
from looplens.store.reading.verifying import verify


@pytest.fixture(scope="module")
def bucket():
    """A bucket on an S3 server of this machine, and fsspec set up to use it."""
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    server = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    s3 = server.ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    s3.start()
    options = {"endpoint_url": f"http://127.0.0.1:{port}", "key": "test", "secret": "test"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(fsspec.config.conf, "s3", options)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.filesystem("s3").mkdir("runs")
        yield "s3://runs"
    s3.stop()


@pytest.fixture(params=["memory", "s3"])
def url(request):
    root = "memory://runs" if request.param == "memory" else request.getfixturevalue("bucket")
    return f"{root}/{uuid.uuid4().hex}/run"


@pytest.fixture
def remote(url, small_chunks):
    spec = small_spec()
    arrays = make_arrays(spec)
    arrays["states/resid_post"][:] = np.nan  # nothing but fill values is written, too
    write_run(url, spec, arrays)
    return SimpleNamespace(url=url, spec=spec, arrays=arrays)


def small_spec(**changes):
    """All kinds of arrays but readouts, in few files: the server is slow."""
    return make_spec(**{"readout_top_k": 0, "attention_prompts": (1,), **changes})


def block_of(spec, arrays, block, writer):
    start, stop = writer.block_range(block)
    columns = {k: a for k, a in arrays.items() if not k.startswith("attention/")}
    patterns = {i: arrays[f"attention/{i}/pattern"] for i in writer.patterns_of(block)}
    return {k: tokens_of(a, spec, k, start, stop) for k, a in columns.items()}, patterns


def test_a_run_anywhere_reads_as_one_on_disk_and_has_its_bytes(remote, tmp_path, small_chunks):
    run = open_stored(remote.url)
    assert run.complete
    assert (run.path, run.name) == (remote.url, "run")
    for key, array in remote.arrays.items():
        np.testing.assert_array_equal(run.tree[key], array)
    np.testing.assert_array_equal(run.state(1, [20, 3]), remote.arrays["loop/state"][1, [20, 3]])
    assert run.tokens["text"].values[0] == " t0"
    local = write_run(tmp_path / "run", remote.spec, remote.arrays)
    there, here = RunLocation(remote.url), RunLocation(local)
    for block in range(run.n_blocks):
        assert run.block_hash(block) == open_stored(local).block_hash(block)
        name = f"blocks/{block:06d}.json"
        assert there.read_bytes(name) == here.read_bytes(name)
    with xr.open_datatree(there.files.zarr_store(read_only=True), engine="zarr") as tree:
        np.testing.assert_array_equal(tree["loop/state"], remote.arrays["loop/state"])


def test_analyses_are_stored_and_replaced_anywhere(remote):
    run = open_stored(remote.url)
    for value in (1.0, 2.0):
        for name in ("verdicts", "lab/spectra"):
            run.write_analysis(name, xr.Dataset({"gap": ("token", [value] * 3)}), version=1)
    found = open_stored(remote.url)
    assert found.analyses == ["lab/spectra", "verdicts"]
    assert found.tree["analysis/lab/spectra/gap"].values.tolist() == [2.0] * 3
    assert found.analysis("lab/spectra")["gap"].values.tolist() == [2.0] * 3
    assert found.analysis("verdicts")["gap"].values.tolist() == [2.0] * 3
    assert found.analysis("nothing") is None


def test_an_interrupted_run_anywhere_is_gone_on_with_and_damage_is_named(url, small_chunks):
    spec = small_spec()
    arrays = make_arrays(spec)
    with RunWriter(url, spec) as writer:
        writer.write_block(1, *block_of(spec, arrays, 1, writer))
    run = open_stored(url)
    assert (run.complete, run.committed) == (False, {1})
    np.testing.assert_array_equal(run.state(tokens=slice(8, 16)), arrays["loop/state"][:, 8:16])
    with pytest.raises(CorruptRunError, match=r"not recorded yet: block 2 \(tokens 16 to 20\)"):
        run.state(tokens=[9, 17])
    with pytest.raises(RunExistsError, match=r"pass overwrite=True .* or resume=True"):
        RunWriter(url, spec)
    with RunWriter(url, spec, resume=True) as writer:
        for block in (0, 2):
            writer.write_block(block, *block_of(spec, arrays, block, writer))
    assert open_stored(url).complete
    location = RunLocation(url)
    assert location.list("blocks") == ["000000.json", "000001.json", "000002.json"]
    report = verify(url)
    assert (report.ok, report.checked, report.uncommitted) == (True, 3, ())
    file = "states/k/c/1/1/0/0/0/0"
    content = bytearray(location.read_bytes(file))
    content[7] ^= 1
    location.write_atomic(file, bytes(content))
    assert [str(damage) for damage in verify(url).damaged] == [
        f"block 1: {file} does not match its checksum"
    ]
    with pytest.raises(CorruptRunError, match=r"'states/k' at restart 1, token 8:12, layer 0"):
        open_stored(url).site("k")


def test_a_run_elsewhere_is_replaced_only_once_the_new_one_is_whole(remote):
    spec = small_spec(seed=2)
    with RunWriter(remote.url, spec, overwrite=True) as writer:
        assert writer.location.path == f"{remote.url}.partial"
        assert open_stored(remote.url).attrs["seed"] == 1
        for block in range(writer.n_blocks):
            writer.write_block(block, *block_of(spec, remote.arrays, block, writer))
    assert open_stored(remote.url).attrs["seed"] == 2
    assert verify(remote.url).ok
    with pytest.raises(NotARunError):
        open_stored(f"{remote.url}.partial")


def test_what_another_program_stored_is_left_alone(url):
    location = RunLocation(url)
    location.write_atomic("photo.jpg", b"x")
    with pytest.raises(RunExistsError, match="is not a looplens run, so it is left alone"):
        RunWriter(url, make_spec(), overwrite=True)
    assert location.list("") == ["photo.jpg"]
    with pytest.raises(NotARunError, match=r"no run at .*run/none"):
        open_stored(f"{url}/none")


def test_of_two_that_create_a_file_one_succeeds(url, monkeypatch):
    location = RunLocation(url)
    assert location.create_exclusive("blocks/000000.claim", b"first")
    assert not RunLocation(url).create_exclusive("blocks/000000.claim", b"second")
    if url.startswith("s3"):
        # Both looked before either wrote: then the server decides.
        with monkeypatch.context() as patch:
            patch.setattr(location.files._fs, "exists", lambda path: False)
            assert not location.create_exclusive("blocks/000000.claim", b"third")
    assert location.read_bytes("blocks/000000.claim") == b"first"
    location.remove("blocks/000000.claim")
    location.remove("blocks/000000.claim")
    assert location.list("blocks") == []


def test_a_scheme_that_cannot_be_used_is_named(monkeypatch):
    with pytest.raises(InputError, match=r"no kind of storage 's4'.*Did you mean 's3'"):
        open_stored("s4://bucket/run")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(importlib.import_module("fsspec.registry")._registry, "s3", raising=False)
    with pytest.raises(InputError, match=r"s3://\.\.\. needs the package s3fs: pip install s3fs"):
        open_stored("s3://bucket/run")


def test_a_bucket_that_does_not_exist_is_said_to_be(bucket):
    with pytest.raises(NotARunError, match="no run at s3://nowhere/run"):
        open_stored("s3://nowhere/run")
    with pytest.raises(StoreError, match=r"s3://nowhere/run cannot be reached .*bucket exists"):
        RunWriter("s3://nowhere/run", make_spec())


def test_the_setting_of_sizes_does_not_matter_to_a_reader(remote, monkeypatch):
    monkeypatch.setattr(schema, "CHUNK_BYTES", 2**20)
    run = open_stored(remote.url)
    np.testing.assert_array_equal(run.state(0, 9), remote.arrays["loop/state"][0, 9])
