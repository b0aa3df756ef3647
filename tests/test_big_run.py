"""The large run of the benchmarks is a run like any other, though its files are links."""

from __future__ import annotations

import numpy as np
import pytest

import looplens
from looplens import analysis
from looplens.analysis.running.incremental import current
from looplens.store.reading.verifying import verify

_big_run = pytest.importorskip("benchmarks._big_run")


def test_the_large_run_is_whole_and_its_results_are_current(tmp_path, monkeypatch):
    for name, value in {"PIECE_TOKENS": 512, "TIMES": 3, "D_MODEL": 24, "ITERATIONS": 32}.items():
        monkeypatch.setattr(_big_run, name, value)
    path = _big_run.big_run(tmp_path)
    run, piece = looplens.open_run(path, lazy=True), looplens.open_run(tmp_path / "piece")
    assert verify(path).ok
    assert run.complete
    assert run.n_tokens == 3 * piece.n_tokens
    assert run.analyses == piece.analyses
    assert all(current(run, analysis.ANALYZERS[name]) is not None for name in run.analyses)
    again = slice(512, 1024)
    np.testing.assert_array_equal(run.state(tokens=again), piece.state())
    for name, variable in (("classify", "regime"), ("convergence", "relative_step")):
        np.testing.assert_array_equal(
            analysis.get(run, name)[variable].isel(token=again), piece.results(name)[variable]
        )
    # What is stored of the other tokens is what would be computed of them.
    fresh = analysis.ANALYZERS["convergence"].compute(run)["settling_iteration"]
    np.testing.assert_allclose(
        fresh.values, analysis.get(run, "convergence")["settling_iteration"].values
    )
    assert set(analysis.get(run, "classify")["regime"].values.ravel()) == set(analysis.REGIMES)
    links = [file.stat().st_nlink for file in (path / "states").rglob("*") if file.is_file()]
    assert max(links) >= 3
    assert _big_run.big_run(tmp_path) == path  # it is there already
