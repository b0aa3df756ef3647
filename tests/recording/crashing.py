"""Recordings in processes of their own, to be killed; `python tests/recording/crashing.py 50`.

Each attempt is a real process, killed with SIGKILL at a random moment. After every kill the blocks
that are committed must read as in an uninterrupted run, and in the end all files must be the same.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from looplens.errors import NotARunError
from looplens.store import open_stored

# Of several lengths, so that most blocks share a prompt with the next one.
PROMPTS = ["".join(str((i * j) % 10) for j in range(1, 4 + i * 7 % 27)) for i in range(1, 41)]
OPTIONS: dict[str, Any] = {
    "iterations": 12,
    "restarts": 2,
    "attention": [0, 7, 20, 39],
    "sites": ("resid_post", "k"),
    "block_tokens": 16,
    "progress": False,
}


def make_model() -> Any:
    import torch

    from looplens.models import LoopedConfig, LoopedTransformer, char_tokenizer

    torch.set_num_threads(1)
    torch.manual_seed(0)
    cfg = LoopedConfig(
        d_model=32, n_heads=4, d_mlp=48, d_vocab=10, n_ctx=32, n_prelude=1, n_core=2, n_coda=1
    )
    return LoopedTransformer(cfg, char_tokenizer("0123456789"), name="tiny").eval()


def record_it(out: str, options: dict[str, Any]) -> None:
    """Record, in this process."""
    import looplens as ll

    ll.record(make_model(), PROMPTS, out=out, **OPTIONS | options)


def started(out: Path, **options: Any) -> Any:
    """Start a process that records."""
    # A server that has everything imported and never ran anything: forks of it start at once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["looplens.recording.recorder", "looplens.run", "crashing"])
    process = context.Process(target=record_it, args=(str(out), options))
    process.start()
    return process


def files_of(path: Path) -> dict[str, bytes]:
    """Return all files of a run, without the moment when it was created."""
    found = {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file()}
    root = json.loads(found["zarr.json"])
    del root["attributes"]["created"]
    return found | {"zarr.json": json.dumps(root).encode()}


def check_committed(path: Path, whole: Path) -> int:
    """Compare what is committed with an uninterrupted run; return how many blocks that is."""
    try:
        run = open_stored(path)
    except NotARunError:
        return 0  # killed before there was a run
    there = np.flatnonzero(run.committed_tokens)
    if len(there):
        expected = open_stored(whole)
        np.testing.assert_array_equal(run.state(tokens=there), expected.state(tokens=there))
        np.testing.assert_array_equal(run.site(tokens=there), expected.site(tokens=there))
    return len(run.committed)


def kill_until_done(out: Path, whole: Path, seconds: float, rng: random.Random) -> list[int]:
    """Record with kills at random moments until it is done; return the blocks seen after each."""
    seen = []
    while True:
        process = started(out, resume=True)
        process.join(rng.uniform(0.02, seconds))
        done = process.exitcode
        if done is None:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            done = process.exitcode
        if done == 0:
            return seen
        assert done == -signal.SIGKILL, f"the recording failed by itself ({done})"
        seen.append(check_committed(out, whole))


def soak(kills: int, seed: int = 0) -> None:
    """Kill so many times, over as many runs as that takes."""
    rng = random.Random(seed)
    directory = Path(tempfile.mkdtemp())
    started(directory / "first").join()  # starts the server of processes too
    before = time.perf_counter()
    process = started(directory / "whole")
    process.join()
    assert process.exitcode == 0
    seconds = time.perf_counter() - before
    expected, killed, runs = files_of(directory / "whole"), 0, 0
    while killed < kills:
        out = directory / f"run{runs}"
        # Short lives and long ones, so that kills fall on every part of a recording.
        seen = kill_until_done(out, directory / "whole", seconds * rng.uniform(0.2, 1.2), rng)
        assert files_of(out) == expected, f"seed {seed}, run {runs}: other bytes"
        killed, runs = killed + len(seen), runs + 1
        print(f"run {runs}: {len(seen)} kills after {seen} blocks; {killed} of {kills}", flush=True)
        shutil.rmtree(out)
    shutil.rmtree(directory)
    print(f"{killed} kills over {runs} runs, each completed to the same bytes")


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:]]
    soak(*numbers or [50])
