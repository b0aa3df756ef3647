import pytest

from looplens import reports
from looplens.run import open_run
from looplens.testing.runs import synthetic_run


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    opened = open_run(synthetic_run(tmp_path_factory.mktemp("reports") / "full run"))
    opened.analyze()
    return opened


@pytest.fixture(scope="session")
def report(run):
    return reports.build(run)


@pytest.fixture(scope="session")
def lonely_run(tmp_path_factory):
    """What a hasty user records: one restart, one layer, no attention, twelve iterations."""
    path = tmp_path_factory.mktemp("reports") / "lonely"
    return open_run(
        synthetic_run(path, prompts=1, restarts=1, n_layers=1, iterations=12, attention=False)
    )
