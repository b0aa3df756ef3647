import pytest

from looplens.run import open_run
from looplens.testing.runs import synthetic_run


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """Three prompts of eight tokens with known regimes, two restarts, two layers."""
    opened = open_run(synthetic_run(tmp_path_factory.mktemp("plots") / "run"))
    opened.analyze()
    return opened


@pytest.fixture(scope="session")
def lonely_run(tmp_path_factory):
    """One restart, one layer, no attention."""
    path = tmp_path_factory.mktemp("plots") / "lonely"
    return open_run(synthetic_run(path, prompts=1, restarts=1, n_layers=1, attention=False))
