"""How long a user waits: for ``import looplens``, for ``looplens --help``, for a run to open."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks._rows import Row, interleaved
from benchmarks._runs import write_run

TOKENS = 1_000_000


def rows(*, quick: bool = False) -> list[Row]:
    """Measure all three."""
    return [*starting(3 if quick else 9), opening(10_000 if quick else TOKENS)]


def starting(repeats: int) -> list[Row]:
    """Measure against a bare interpreter."""

    def python(code: str) -> object:
        return subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)

    start = "import sys; sys.argv = ['looplens', '--help']; from looplens.cli import main\n"
    seconds = interleaved(
        {
            "bare": lambda: python("pass"),
            "import": lambda: python("import looplens"),
            "help": lambda: python(start + "try: main()\nexcept SystemExit: pass"),
        },
        repeats=repeats,
    )
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    return [
        Row(
            name="import looplens, over a bare interpreter",
            value=middle["import"] - middle["bare"],
            unit="s",
            goal=0.2,
            peers={"bare interpreter": middle["bare"]},
        ),
        Row(
            name="looplens --help",
            value=middle["help"],
            unit="s",
            goal=0.6,
            peers={"bare interpreter": middle["bare"]},
        ),
    ]


def opening(tokens: int) -> Row:
    """Open a run with many tokens, each time in a process that has just imported everything."""
    code = (
        "import sys, time, looplens.run, looplens.store\n"
        "started = time.perf_counter()\n"
        "run = looplens.run.open_run(sys.argv[1])\n"
        "assert run.tokens.sizes['token'] == run.n_tokens and run.prompts.sizes['prompt']\n"
        "print(time.perf_counter() - started)"
    )
    folder = Path(tempfile.mkdtemp())
    try:
        states = np.random.default_rng(0).standard_normal((64, 5, 8), dtype=np.float32)
        path = write_run(folder / "run", tokens, states)

        def fresh() -> float:
            found = subprocess.run(
                [sys.executable, "-c", code, str(path)], check=True, stdout=subprocess.PIPE
            )
            return float(found.stdout)

        seconds = [fresh() for _ in range(5)]
    finally:
        shutil.rmtree(folder)
    return Row(
        name=f"open a run with {tokens:.0e} tokens and read its tables, everything imported",
        value=statistics.median(seconds),
        unit="s",
        goal=1.0,
        peers={"slowest of 5, s": max(seconds)},
        limit="the tables of prompts and tokens are decoded whole.",
    )
