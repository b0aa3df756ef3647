"""What a second worker brings to the analyses: one Dask worker against two."""

from __future__ import annotations

import logging
import shutil
import statistics
import tempfile
from pathlib import Path

from distributed import Client, LocalCluster

import looplens
from benchmarks._rows import Row, interleaved, median_ratio
from benchmarks._runs import systems, write_run

ITERATIONS, D_MODEL, TOKENS = 64, 64, 8_192


def rows(*, quick: bool = False) -> list[Row]:
    """Run the suite where the arithmetic outweighs the reading."""
    folder = Path(tempfile.mkdtemp())
    try:
        path = write_run(
            folder / "run", TOKENS // 8 if quick else TOKENS, systems(ITERATIONS, D_MODEL)
        )
        with workers(1) as one, workers(2) as two:
            seconds = interleaved(
                {
                    "one": lambda: looplens.open_run(path).analyze(client=one),
                    "two": lambda: looplens.open_run(path).analyze(client=two),
                },
                1 if quick else 3,
            )
    finally:
        shutil.rmtree(folder)
    return [
        Row(
            name=f"standard suite on two local Dask workers (T = {ITERATIONS}, d_model {D_MODEL}, "
            "compute-bound), speed on one = 1",
            value=median_ratio(seconds, "one", "two"),
            unit="x",
            goal=1.7,
            at_least=True,
            peers={f"{name}, s": statistics.median(values) for name, values in seconds.items()},
            limit="what one process does for both: making the graph, and writing the results. "
            "On a machine with two cores the scheduler takes its time from the workers.",
        )
    ]


def workers(count: int) -> Client:
    """Start processes of one thread each, without a dashboard."""
    logging.getLogger("distributed").setLevel(logging.ERROR)
    cluster = LocalCluster(
        n_workers=count,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    return Client(cluster)
