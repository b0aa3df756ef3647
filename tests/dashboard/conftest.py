"""Synthetic runs, clients of their app, and a headless browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dashboard_driver import Client, Visit, serving

from looplens.run import Run, open_run
from looplens.testing.runs import synthetic_run


@pytest.fixture(scope="session")
def run_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_run(tmp_path_factory.mktemp("runs") / "whole", iterations=32)


@pytest.fixture(scope="session")
def run(run_path: Path) -> Run:
    return open_run(run_path)


@pytest.fixture(scope="session")
def bare_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one restart and without attention."""
    path = tmp_path_factory.mktemp("runs") / "bare"
    return synthetic_run(path, prompts=1, iterations=32, restarts=1, attention=False)


@pytest.fixture(scope="session")
def client(run_path: Path) -> Client:
    return Client(run_path)


@pytest.fixture(scope="session")
def bare_client(bare_path: Path) -> Client:
    return Client(bare_path)


@pytest.fixture(scope="session")
def address(run_path: Path, bare_path: Path) -> Iterator[str]:
    """Serve two runs, whole (the first) and bare, on a free port of this machine."""
    with serving(run_path, bare_path) as served:
        yield served


@pytest.fixture
def visit(chromium: Any) -> Iterator[Visit]:
    page = chromium.new_page()
    yield Visit(page)
    page.close()
