"""The standard suite, against reading the states plus one batched Gram product."""

from __future__ import annotations

import shutil
import statistics
import tempfile
from pathlib import Path

import numpy as np

import looplens
from benchmarks._rows import Row, interleaved, median_ratio
from benchmarks._runs import systems, write_run

ITERATIONS, D_MODEL = 64, 512
RESTARTS = 2  # so that path independence is part of it
FEW, MANY = 2_000, 20_000
LIMIT = (
    "the detector of cycles: models with a free period are fitted to every trajectory that neither "
    "settles nor folds, which here are most."
)


def rows(*, quick: bool = False) -> list[Row]:
    """Measure 2,000 and 20,000 trajectories."""
    few, many = (500, 2_000) if quick else (FEW, MANY)
    folder = Path(tempfile.mkdtemp())
    pool = systems(ITERATIONS, D_MODEL)

    def make(path: Path, trajectories: int) -> looplens.Run:
        tokens = trajectories // RESTARTS
        return looplens.open_run(write_run(path, tokens, pool, restarts=RESTARTS))

    try:
        small = make(folder / "small", few)
        large = make(folder / "large", many)
        done: list[int] = []
        seconds = interleaved(
            {
                "few": lambda: small.analyze(),
                "few, read and product": lambda: read_and_multiply(small),
                "many": lambda: done.append(len(large.analyze())),
                "many, read and product": lambda: read_and_multiply(large),
            },
            1 if quick else 3,
            warm=False,
        )
    finally:
        shutil.rmtree(folder)
    each = statistics.median(seconds["many"]) / many
    return [
        Row(
            name=f"standard suite over {many} trajectories (T = {ITERATIONS}, d_model {D_MODEL}, "
            f"{done[-1]} analyses), reading them and one Gram product = 1",
            value=median_ratio(seconds, "many", "many, read and product"),
            unit="x",
            goal=2.0,
            peers={
                "reading and product, s": statistics.median(seconds["many, read and product"]),
                "suite, ms a trajectory": 1e3 * each,
            },
            limit=LIMIT,
        ),
        Row(
            name=f"a trajectory among {many}, among {few} = 1",
            value=median_ratio(seconds, "many", "few") * few / many,
            unit="x",
            goal=1.1,
            peers={"suite over the few, s": statistics.median(seconds["few"])},
            limit="what is kept for all tokens at once no longer fits the cache.",
        ),
    ]


def read_and_multiply(run: looplens.Run) -> float:
    """Read every state block by block, and take all inner products of each trajectory."""
    total = 0.0
    for block in run.blocks():
        states = run.state(tokens=block).to_numpy()
        products = np.matmul(states, states.swapaxes(-1, -2))
        total += float(products[..., 0, 0].sum())
    return total
