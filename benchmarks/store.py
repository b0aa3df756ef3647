"""Writing and reading a run against ``np.save`` and ``np.load`` of the same array."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

import looplens
from benchmarks._rows import Row, interleaved, ratios
from benchmarks._runs import PROMPT_TOKENS, prompt
from looplens.store import RunSpec, RunWriter

TOKENS, ITERATIONS, D_MODEL = 4096, 127, 128  # 268 MB of states


def rows(*, quick: bool = False) -> list[Row]:
    """Measure bandwidth, and the time of one token's trajectory."""
    tokens = TOKENS // 4 if quick else TOKENS
    states = np.random.default_rng(0).standard_normal(
        (1, tokens, ITERATIONS + 1, D_MODEL), dtype=np.float32
    )
    spec = RunSpec(
        prompts=[prompt()] * (tokens // PROMPT_TOKENS),
        iterations=ITERATIONS,
        n_layers=1,
        d_model=D_MODEL,
        sites=(),
    )
    folder = Path(tempfile.mkdtemp())
    run, file = folder / "run", folder / "states.npy"

    def write() -> None:
        with RunWriter(run, spec) as writer:
            for block in range(writer.n_blocks):
                start, stop = writer.block_range(block)
                writer.write_block(block, {"loop/state": states[:, start:stop]})

    def clear() -> None:
        shutil.rmtree(run, ignore_errors=True)
        file.unlink(missing_ok=True)

    repeats = 3 if quick else 9
    try:
        writing = interleaved(
            {"looplens": write, "numpy": lambda: np.save(file, states)}, repeats, after=clear
        )
        write()
        np.save(file, states)
        opened = looplens.open_run(run)
        np.testing.assert_array_equal(opened.state(tokens=slice(0, 64)), states[:, :64])
        reading = interleaved(
            {"looplens": lambda: opened.state().to_numpy(), "numpy": lambda: np.load(file)}, repeats
        )
        spent = []
        for token in np.random.default_rng(1).permutation(tokens)[:200]:
            started = time.perf_counter()
            opened.state(restart=0, tokens=int(token)).to_numpy()
            spent.append(time.perf_counter() - started)
    finally:
        shutil.rmtree(folder)

    def row(verb: str, peer: str, seconds: dict[str, list[float]], limit: str) -> Row:
        gigabytes = {
            name: states.nbytes / 1e9 / statistics.median(s) for name, s in seconds.items()
        }
        return Row(
            name=f"{verb} {states.nbytes / 1e6:.0f} MB of states, bandwidth of {peer} = 1",
            value=ratios(seconds, "looplens")["numpy"],
            unit="x",
            goal=0.5,
            at_least=True,
            peers={f"{name}, GB/s": value for name, value in gigabytes.items()},
            limit=limit,
        )

    return [
        row("write", "np.save", writing, "checksums of every chunk, and one file a block."),
        row("read", "np.load", reading, "checksums are verified on the way."),
        Row(
            name="read one token's trajectory (median of 200 tokens, from the page cache)",
            value=1e3 * statistics.median(spent),
            unit="ms",
            goal=5,
            peers={"slowest of 200, ms": 1e3 * max(spent)},
            limit="a whole chunk is read and verified for one token.",
        ),
    ]
