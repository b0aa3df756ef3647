"""Real deaths: SIGKILL at random moments, a full disk, two processes on one block."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from crashing import (
    OPTIONS,
    PROMPTS,
    check_committed,
    files_of,
    kill_until_done,
    make_model,
    started,
)

import looplens as ll
from looplens.errors import InputError, StoreError


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted recording."""
    out = tmp_path_factory.mktemp("whole") / "run"
    ll.record(make_model(), PROMPTS, out=out, **OPTIONS)
    return out


def test_a_killed_recording_goes_on_to_the_same_bytes(whole, tmp_path):
    started(tmp_path / "first").join()
    before = time.perf_counter()
    started(tmp_path / "second").join()
    seconds = time.perf_counter() - before
    kills = 0
    for seed in range(20):
        out = tmp_path / f"run{seed}"
        kills += len(kill_until_done(out, whole, seconds * 0.8, random.Random(seed)))
        assert files_of(out) == files_of(whole)
        if kills >= 5:
            return
    pytest.fail(f"only {kills} of 20 recordings were killed in time")


def test_a_block_has_one_writer_until_that_is_dead(whole, tmp_path):
    out = tmp_path / "run"
    process = started(out)
    deadline = time.monotonic() + 60
    while not list(out.glob("blocks/*.claim")):
        assert process.is_alive(), "the recording was over before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(StoreError, match=rf"block \d+ is being written by process {process.pid}"):
        ll.record(make_model(), PROMPTS, out=out, resume=True, **OPTIONS)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert check_committed(out, whole) < 35
    ll.record(make_model(), PROMPTS, out=out, resume=True, **OPTIONS)
    assert files_of(out) == files_of(whole)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"prompts": PROMPTS[::-1]}, "prompts"),
        ({"sites": ("resid_post",)}, "sites"),
        ({"iterations": 11}, "iterations is 12 in the run, but 11 here"),
        ({"restarts": 3}, "restarts is 2 in the run, but 3 here"),
        ({"seed": 5}, "seeds"),
        ({"layers": 1}, "layers is 0..1 in the run, but 1 here"),
        ({"readout": False}, "readout_top_k"),
        ({"attention": False}, "attention_prompts"),
        ({"tokens": "last"}, "token_positions"),
        ({"reduce": "random:4"}, "reduction"),
        ({"block_tokens": 32}, "block_tokens is 16 in the run, but 32 here"),
        ({"model": None}, "model"),
    ],
)
def test_only_the_same_recording_is_gone_on_with(whole, changes, field):
    import torch

    model = make_model()
    options = {"prompts": PROMPTS, **OPTIONS, **changes}
    if "model" in options:
        del options["model"]
        with torch.no_grad():
            next(model.core[0].parameters()).mul_(1 + 1e-6)
    prompts = options.pop("prompts")
    with pytest.raises(InputError, match=field):
        ll.record(model, prompts, out=whole, resume=True, **options)


SCRIPT = """
import os, subprocess, sys
from pathlib import Path
sys.path.insert(0, {here!r})
from crashing import OPTIONS, PROMPTS, files_of, make_model
import looplens as ll
from looplens.errors import StoreError

disk, whole = Path({disk!r}), Path({whole!r})
try:
    ll.record(make_model(), PROMPTS, out=disk / "run", check_space=False, **OPTIONS)
except StoreError as error:
    print("refused:", error)
run = ll.open_run(disk / "run")
there = run.committed_tokens.nonzero()[0]
same = (run.state(tokens=there) == ll.open_run(whole).state(tokens=there)).all()
print("committed:", len(run.committed), bool(same), run.complete)
subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
ll.record(make_model(), PROMPTS, out=disk / "run", resume=True, **OPTIONS)
print("same bytes:", files_of(disk / "run") == files_of(whole))
"""


def test_a_full_disk_loses_nothing_that_was_committed(whole, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    size = sum(map(len, files_of(whole).values()))
    # Half of the run: files of a tmpfs take whole pages.
    mount = f"mount -t tmpfs -o size={size * 2 // 3 // 1024}k tmpfs {disk}"
    namespace = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    try:
        probe = subprocess.run([*namespace, mount], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no unshare on this system")
    if probe.returncode:
        pytest.skip(f"no disk of its own to fill: {probe.stderr.strip()}")
    here = str(Path(__file__).parent)
    script = SCRIPT.format(here=here, disk=str(disk), whole=str(whole))
    found = subprocess.run(
        [*namespace, f'{mount} && exec "$0" -c "$1"', sys.executable, script],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert found.returncode == 0, found.stderr
    refused, committed, same = found.stdout.splitlines()
    # A claim is a file too: it may be the one that finds no room.
    assert "could not be written" in refused or "could not be claimed" in refused
    assert "go on with resume=True" in refused
    blocks, equal, complete = committed.removeprefix("committed: ").split()
    assert 1 <= int(blocks) < 35
    assert (equal, complete) == ("True", "False")
    assert same == "same bytes: True"
