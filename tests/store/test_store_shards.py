"""The bytes of large arrays, against Zarr's own reading and writing of them."""

from __future__ import annotations

import threading
import uuid

import numpy as np
import pytest
import zarr

from looplens.errors import RunExistsError
from looplens.store.files.codecs import PYTHON_CODECS, fast_codecs, pipeline
from looplens.store.files.location import RunLocation
from looplens.store.format.schema import VariableSpec
from looplens.store.reading.arrays import StoredArray

SHAPE = (2, 21, 3, 4)


def variable(dtype="float32", chunk=4, shard=8):
    return VariableSpec(
        path="states/a",
        dims=("restart", "token", "layer", "d_model"),
        shape=SHAPE,
        chunks=(1, chunk, 1, 4),
        shards=None if shard is None else (1, shard, 1, 4),
        dtype=dtype,
        long_name="numbers",
    )


def build(path, spec):
    location = RunLocation(path)
    assert location.prepare(resume=True) is False
    location.create_group("", {"schema_version": 2, "looplens_version": "0"})
    location.create_group("states")
    location.create_array(spec)
    location.consolidate()
    return location


def numbers(dtype, seed=0):
    values = np.random.default_rng(seed).integers(-50, 50, SHAPE).astype(dtype)
    values[0, 8:12, 1] = np.nan if dtype != "int32" else -1  # a whole chunk of fill values
    return values


def write(location, spec, values):
    step = (spec.shards or spec.chunks)[1]
    written = {}
    for start in range(0, SHAPE[1], step):
        region = [slice(0, n) for n in SHAPE]
        region[1] = slice(start, min(start + step, SHAPE[1]))
        written |= location.write(spec, tuple(region), values[tuple(region)])
    return written


@pytest.mark.parametrize("codecs", [PYTHON_CODECS, fast_codecs()], ids=["python", "rust"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int32"])
@pytest.mark.parametrize("shard", [8, None])
def test_zarr_reads_what_is_written_and_the_other_way_round(tmp_path, codecs, dtype, shard):
    spec, values = variable(dtype, shard=shard), numbers(dtype)
    ours = build(tmp_path / "ours", spec)
    ours.publish()
    for key, found in write(ours, spec, values).items():
        assert ours.checksum(key) == found
        assert ours.size(key) == found[0]
    with pipeline(codecs):
        array = zarr.open_array(ours.files.zarr_store(read_only=True), path="states/a", mode="r")
        np.testing.assert_array_equal(array[...], values)
    theirs = build(tmp_path / "theirs", spec)
    theirs.publish()
    with pipeline(codecs):
        array = zarr.open_array(theirs.files.zarr_store(), path="states/a", mode="r+")
        array[...] = values
    # The Rust codecs leave out files of nothing but fill values, which would count as damage.
    if shard is not None or codecs == PYTHON_CODECS:
        read = StoredArray(theirs, "states/a").variable()
        np.testing.assert_array_equal(read.values, values)
        np.testing.assert_array_equal(read.isel(token=[20, 3], layer=1), values[:, [20, 3], 1])


def test_the_same_numbers_have_the_same_bytes_and_others_another_checksum(tmp_path):
    spec = variable()
    found = []
    for name, values in (
        ("a", numbers("float32")),
        ("b", np.moveaxis(np.moveaxis(numbers("float32"), 2, 0).copy(), 0, 2)),  # other strides
        ("c", np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32)),
    ):
        location = build(tmp_path / name, spec)
        location.publish()
        found.append(write(location, spec, values))
    assert found[0] == found[1]
    assert not set(found[0].values()) & set(found[2].values())
    for key in found[0]:
        assert (tmp_path / "a" / key).read_bytes() == (tmp_path / "b" / key).read_bytes()


def test_a_region_that_is_not_of_whole_files_is_refused(tmp_path):
    spec = variable()
    location = build(tmp_path / "run", spec)
    location.publish()
    region = (slice(0, 2), slice(4, 12), slice(0, 3), slice(0, 4))
    with pytest.raises(ValueError, match="written in whole files"):
        location.shard_files(spec, region)


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_of_those_that_create_a_run_one_does_and_the_others_join_it(tmp_path, kind):
    path = tmp_path / "run" if kind == "local" else f"memory://{uuid.uuid4().hex}/run"
    first, second = build(path, variable()), build(path, variable())
    with pytest.raises(Exception, match="no run at"):
        RunLocation(path).root_attributes()
    assert [first.publish(), second.publish()] == [True, False]
    assert first.path == second.path == RunLocation(path).path
    late = RunLocation(path)
    assert late.prepare(resume=True) is True
    with pytest.raises(RunExistsError, match="resume=True"):
        RunLocation(path).prepare()
    if kind == "local":
        assert [file.name for file in tmp_path.iterdir()] == ["run"]


def test_of_those_that_put_a_run_in_place_one_does(tmp_path):
    build(tmp_path / "run", variable()).publish()
    finished = []
    for _ in range(4):
        location = RunLocation(tmp_path / "run")
        if not location.prepare(overwrite=True, resume=True):
            location.create_group("", {"schema_version": 2, "looplens_version": "new"})
            location.consolidate()
            location.publish()
        finished.append(location)
    threads = [threading.Thread(target=location.take_place) for location in finished]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [file.name for file in tmp_path.iterdir()] == ["run"]
    for location in finished:
        assert location.root_attributes()["looplens_version"] == "new"
