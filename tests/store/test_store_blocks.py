from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from store_help import make_arrays, make_prompts, make_spec, tokens_of

from looplens.errors import CorruptRunError, InputError, SchemaVersionError, StoreError
from looplens.store import RunWriter, open_stored
from looplens.store.files.local import LocalFiles
from looplens.store.files.location import RunLocation
from looplens.store.format.blocks import (
    block_ranges,
    prompts_of_block,
    read_record,
    split_blocks,
)
from looplens.store.writing.claims import process_started


def write_block(writer, arrays, block):
    start, stop = writer.block_range(block)
    parts = {
        key: tokens_of(array, writer.spec, key, start, stop)
        for key, array in arrays.items()
        if not key.startswith("attention")
    }
    own = sorted(writer.patterns_of(block))
    writer.write_block(block, parts, {i: arrays[f"attention/{i}/pattern"] for i in own})


def contents(path):
    """All files of a run but for the time of its creation."""
    files = {f.relative_to(path).as_posix(): f.read_bytes() for f in path.rglob("*") if f.is_file()}
    root = json.loads(files["zarr.json"])
    root["attributes"].pop("created")
    return files | {"zarr.json": root}


def whole_run(path, spec, arrays, order=range(3)):
    with RunWriter(path, spec) as writer:
        for block in order:
            write_block(writer, arrays, block)
    return path


@pytest.fixture
def spec():
    return make_spec()


@pytest.fixture
def arrays(spec):
    return make_arrays(spec)


# Which block has what


def test_prompts_belong_to_the_block_they_start_in():
    lengths = [5, 0, 3, 22, 0, 3, 0]
    first = np.cumsum(lengths) - lengths
    found = prompts_of_block(first, lengths, 8, 33)
    assert [(b.start, b.stop) for b in found] == [(0, 8), (8, 16), (16, 24), (24, 32), (32, 33)]
    assert [list(b.own) for b in found] == [[0, 1, 2], [3], [], [4, 5], [6]]
    assert [b.crossing for b in found] == [None, 3, None, 5, None]
    assert [b.entering for b in found] == [None, None, 3, 3, 5]


@pytest.mark.parametrize("seed", range(20))
def test_blocks_cover_every_prompt_once_and_every_token(seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 30, rng.integers(1, 40))
    lengths[0] += 1
    first, total = np.cumsum(lengths) - lengths, int(lengths.sum())
    size = int(2 ** rng.integers(0, 6))
    blocks = prompts_of_block(first, lengths, size, total)
    assert [i for b in blocks for i in b.own] == list(range(len(lengths)))
    for block in blocks:
        reaching = (first < block.stop) & (first + lengths > block.start) & (lengths > 0)
        within = set(np.flatnonzero(reaching).tolist())
        sources = {i for i in block.own if lengths[i]} | ({block.entering} - {None})
        assert within == sources
        over = {i for i in block.own if first[i] + lengths[i] > block.stop}
        assert over == {block.crossing} - {None}
    for workers in (1, 2, 3, 7):
        parts = [split_blocks(len(blocks), i, workers) for i in range(workers)]
        assert [b for part in parts for b in part] == list(range(len(blocks)))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_there_is_no_worker_beyond_the_last():
    for worker, workers in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(InputError, match=rf"no worker {worker} of {workers}.*counted from 0"):
            split_blocks(5, worker, workers)


def test_a_block_is_a_power_of_two_of_about_128_mib():
    prompts = make_prompts([64] * 64)
    layout = make_spec(
        prompts=prompts, iterations=64, d_model=128, sites=("resid_post",), attention_prompts=(),
        block_tokens=None,
    ).layout  # fmt: skip
    per_block = sum(v.nbytes for v in layout.variables().values()) / layout.n_blocks
    assert 2**26 < per_block <= 2**27
    assert layout.block_tokens == 512
    for variable in layout.variables().values():
        axis = variable.token_axis
        assert variable.file_shape[axis] == layout.block_tokens
        assert layout.block_tokens % variable.chunks[axis] == 0
        assert np.prod(variable.chunks) * 4 <= 2**20
    assert make_spec(block_tokens=9).layout.block_tokens == 16
    assert make_spec(block_tokens=10**9).layout.block_tokens == 32
    assert block_ranges(make_spec().layout) == [(0, 8), (8, 16), (16, 21)]


# Same bytes


def test_the_order_of_blocks_interruptions_and_the_number_of_writers_leave_no_trace(
    tmp_path, spec, arrays
):
    whole = contents(whole_run(tmp_path / "whole", spec, arrays))
    assert contents(whole_run(tmp_path / "backwards", spec, arrays, (2, 0, 1))) == whole

    with RunWriter(tmp_path / "stopped", spec) as first:
        write_block(first, arrays, 1)
    assert not open_stored(tmp_path / "stopped").complete
    one = RunWriter(tmp_path / "stopped", spec, resume=True)
    two = RunWriter(tmp_path / "stopped", spec, resume=True)
    assert one.committed == two.committed == {1}
    write_block(one, arrays, 2)
    write_block(two, arrays, 0)
    assert one.committed == {1, 2}
    assert one.refresh() == {0, 1, 2}
    assert two.finish()
    assert one.finish()
    assert contents(tmp_path / "stopped") == whole


def test_what_a_killed_writer_leaves_behind_is_written_again(tmp_path, spec, arrays):
    whole = contents(whole_run(tmp_path / "whole", spec, arrays))
    script = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from store_help import make_arrays, make_spec
from test_store_blocks import write_block
from looplens.store import RunWriter
writer = RunWriter({str(tmp_path / "run")!r}, make_spec())
arrays = make_arrays(make_spec())
write_block(writer, arrays, 0)
Path.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
write_block(writer, arrays, 1)  # is killed while it commits
"""
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -9
    run = tmp_path / "run"
    left = sorted(os.listdir(run / "blocks"))
    assert left[0].startswith(".000001.json")
    assert left[1:] == ["000000.json", "000001.claim"]
    torn = run / "loop/state/c/1/1/0/0"
    torn.write_bytes(torn.read_bytes()[:40])
    with RunWriter(run, spec, resume=True) as writer:
        assert writer.committed == {0}
        for block in (1, 2):
            write_block(writer, arrays, block)
    assert contents(run) == whole


def test_going_on_with_a_finished_run_changes_nothing(tmp_path, spec, arrays):
    path = whole_run(tmp_path / "run", spec, arrays)
    before = contents(path), (path / "zarr.json").read_bytes()
    for overwrite in (False, True):
        with RunWriter(path, spec, resume=True, overwrite=overwrite) as writer:
            assert writer.committed == {0, 1, 2}
            with pytest.raises(StoreError, match="block 1 is already committed"):
                write_block(writer, arrays, 1)
    assert (contents(path), (path / "zarr.json").read_bytes()) == before


def test_a_replacement_is_gone_on_with_beside_the_run_that_it_replaces(tmp_path, spec, arrays):
    old = whole_run(tmp_path / "run", make_spec(seed=9), make_arrays(spec, seed=9))
    with RunWriter(old, spec, overwrite=True) as writer:
        write_block(writer, arrays, 0)
    assert open_stored(old).attrs["seed"] == 9
    one = RunWriter(old, spec, overwrite=True, resume=True)
    two = RunWriter(old, spec, overwrite=True, resume=True)
    assert one.committed == two.committed == {0}
    write_block(one, arrays, 1)
    write_block(two, arrays, 2)
    assert one.finish()
    assert two.finish()  # the other one has moved the run meanwhile
    run = open_stored(old)
    assert run.complete
    np.testing.assert_array_equal(run.state(), arrays["loop/state"])
    assert sorted(os.listdir(tmp_path)) == ["run"]
    assert contents(old) == contents(whole_run(tmp_path / "whole", spec, arrays))


# What is gone on with


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 5}, r'seeds is \{"seed": 1\} in the run, but \{"seed": 5\} here'),
        ({"dtype": "float16"}, r"dtype is float32 stored as float32 in the run, but .* as float16"),
        ({"model": {"name": "b"}}, r"model is tiny in the run, but b here"),
        ({"model": {"name": "tiny", "weights_digest": "f00"}}, r"but tiny, weights f00 here"),
        ({"prompts": make_prompts((5, 1, 7, 9))}, r"4 prompts of 21 tokens.* of 22 tokens"),
        ({"settings": {"batch_size": 3}}, r'settings is \{\} in the run.*\{"batch_size": 3\}'),
        ({"layers": (1,), "kept_iterations": (2, 3, 4)},
         r"layers is 0\.\.1 in the run, but 1 here; kept_iterations is 1\.\.4 in the run, but 2"),
        ({"block_tokens": 4}, r"block_tokens is 8 in the run, but 4 here"),
    ],
)  # fmt: skip
def test_another_recording_is_not_gone_on_with(tmp_path, spec, changes, message):
    RunWriter(tmp_path / "run", spec)
    with pytest.raises(InputError, match=message):
        RunWriter(tmp_path / "run", make_spec(**changes), resume=True)


def test_a_run_of_another_version_is_not_gone_on_with(tmp_path, spec):
    RunWriter(tmp_path / "run", spec)
    RunLocation(tmp_path / "run").update_root_attributes({"schema_version": 1})
    with pytest.raises(SchemaVersionError):
        RunWriter(tmp_path / "run", spec, resume=True)


def test_a_damaged_commit_record_says_what_to_do(tmp_path, spec, arrays):
    path = whole_run(tmp_path / "run", spec, arrays)
    location = RunLocation(path)
    record = read_record(location, 2)
    assert (record.start, record.stop, record.non_finite) == (16, 21, {})
    assert all(location.checksum(file) == entry for file, entry in record.files.items())
    assert "attention/2/pattern/c/0/0/0/0/0/0" in read_record(location, 0).files
    (path / "blocks/000002.json").write_text('{"block": 2}')
    with pytest.raises(CorruptRunError, match=r"000002\.json is damaged.*Remove that file and go"):
        read_record(location, 2)
    (path / "blocks/000002.json").unlink()
    with pytest.raises(CorruptRunError, match="block 2 is not recorded yet"):
        read_record(location, 2)


# Claims


def leave_claim(path, block, **holder):
    path.joinpath("blocks").mkdir(exist_ok=True)
    holder = {"host": socket.gethostname(), "pid": 1, "process_started": "x", "token": "t"} | holder
    path.joinpath(f"blocks/{block:06d}.claim").write_text(json.dumps(holder))


def test_one_block_has_one_writer(tmp_path, spec, arrays):
    one = RunWriter(tmp_path / "run", spec)
    two = RunWriter(tmp_path / "run", spec, resume=True, takeover=True)
    one.claim(1)
    one.claim(1)
    message = rf"block 1 is being written by process {os.getpid()} on host {socket.gethostname()}"
    with pytest.raises(StoreError, match=message):
        two.claim(1)
    with pytest.raises(StoreError, match=message):
        write_block(two, arrays, 1)
    one.release(1)
    write_block(two, arrays, 1)
    with pytest.raises(StoreError, match="block 1 is already committed"):
        one.claim(1)
    assert one.committed == {1}
    with pytest.raises(InputError, match=r"no block 3: this run has 3, counted 0 to 2"):
        one.claim(3)
    with one:
        one.claim(2)
    assert os.listdir(tmp_path / "run/blocks") == ["000001.json"]


def test_the_claim_of_a_process_that_is_gone_is_taken_over(tmp_path, spec, arrays):
    writer = RunWriter(tmp_path / "run", spec)
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert process_started(ended.pid) is None
    leave_claim(tmp_path / "run", 0, pid=ended.pid)
    leave_claim(tmp_path / "run", 1, pid=os.getpid())  # the number is used again
    (tmp_path / "run/blocks/000002.claim").write_text("")
    for block in range(3):
        write_block(writer, arrays, block)
    assert writer.finish()


def test_the_claim_of_another_machine_needs_a_word(tmp_path, spec):
    writer = RunWriter(tmp_path / "run", spec)
    leave_claim(tmp_path / "run", 0, host="elsewhere", pid=77)
    with pytest.raises(
        StoreError, match=r"claimed by process 77 on host elsewhere, .*takeover=True \(--takeover"
    ):
        writer.claim(0)
    with RunWriter(tmp_path / "run", spec, resume=True, takeover=True) as sure:
        sure.claim(0)
        with pytest.raises(StoreError, match="is being written"):
            writer.claim(0)


def test_of_those_that_find_an_abandoned_claim_one_takes_it(tmp_path, spec, monkeypatch):
    writers = [RunWriter(tmp_path / "run", spec, resume=True) for _ in range(2)]
    leave_claim(tmp_path / "run", 0)
    # The second one comes while the first is about to replace the claim.
    replace = LocalFiles.write_atomic
    refused = []

    def while_replacing(self, key, content):
        if key.endswith(".claim"):
            with pytest.raises(StoreError, match="is being written") as caught:
                writers[1].claim(0)
            refused.append(caught)
        replace(self, key, content)

    monkeypatch.setattr(LocalFiles, "write_atomic", while_replacing)
    writers[0].claim(0)
    assert len(refused) == 1
    with pytest.raises(StoreError, match="is being written"):
        writers[1].claim(0)
    assert os.listdir(tmp_path / "run/blocks") == ["000000.claim"]


# The disk


def test_a_full_disk_costs_one_block(tmp_path, spec, arrays, monkeypatch):
    writer = RunWriter(tmp_path / "run", spec)
    write_block(writer, arrays, 1)
    write = LocalFiles.write

    def full(self, key, parts, nbytes):
        if key.startswith("readout/entropy"):
            (self.path / key).parent.mkdir(parents=True, exist_ok=True)
            (self.path / key).write_bytes(b"torn")
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, key, parts, nbytes)

    with monkeypatch.context() as patch:
        patch.setattr(LocalFiles, "write", full)
        with pytest.raises(
            StoreError,
            match=r"block 2 could not be written \(.*No space left.*It needs 0\.0 MiB, and .* MiB "
            r"are free.*committed are kept\. Make room, then go on with resume=True",
        ):
            write_block(writer, arrays, 2)
    files = {f.relative_to(tmp_path / "run") for f in (tmp_path / "run").rglob("c/*/2/**")}
    assert not [f for f in files if (tmp_path / "run" / f).is_file()]
    assert os.listdir(tmp_path / "run/blocks") == ["000001.json"]
    with writer:
        for block in (0, 2):
            write_block(writer, arrays, block)
    assert contents(tmp_path / "run") == contents(whole_run(tmp_path / "whole", spec, arrays))


def test_blocks_that_are_not_whole_are_refused(tmp_path, spec, arrays):
    writer = RunWriter(tmp_path / "run", spec)
    tokens = {
        key: tokens_of(array, spec, key, 0, 8)
        for key, array in arrays.items()
        if not key.startswith("attention")
    }
    patterns = {i: arrays[f"attention/{i}/pattern"] for i in (0, 2)}
    for block, given, maps, message in (
        (0, tokens, {0: patterns[0]}, r"patterns of the prompts \[0, 2\], but those of \[0\] were"),
        (0, tokens, {**patterns, 2: patterns[0]}, r"attention/2/pattern must have the shape"),
        (1, tokens, patterns, r"patterns of the prompts none, but those of \[0, 2\] were"),
        (2, tokens, {}, r"loop/state must have the shape \(2, 5, 5, 6\)"),
        (0, {"loop/state": tokens["loop/state"]}, patterns, "are written together"),
    ):
        with pytest.raises(InputError, match=message):
            writer.write_block(block, given, maps)
    assert not writer.location.list("blocks")


@pytest.mark.parametrize("url", ["memory://looplens-blocks/run"])
def test_an_object_store_takes_blocks_too(spec, arrays, url):
    with RunWriter(url, spec) as writer:
        write_block(writer, arrays, 0)
    with RunWriter(url, spec, resume=True) as writer:
        assert writer.committed == {0}
        for block in (1, 2):
            write_block(writer, arrays, block)
    np.testing.assert_array_equal(open_stored(url).state(), arrays["loop/state"])
    shutil.rmtree(url, ignore_errors=True)
