from __future__ import annotations

from pathlib import Path

import pytest

from looplens.testing import synthetic_run


@pytest.fixture(scope="session")
def synthetic_run_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run with known regimes. Shared by all tests: read it, do not change it."""
    return synthetic_run(tmp_path_factory.mktemp("runs") / "synthetic")
