"""What a figure reads of a run that is opened for a viewer: what it shows, and no more."""

import inspect

import pytest

from looplens import open_run, plots
from looplens.errors import AnalysisError
from looplens.store.files.location import RunLocation
from looplens.store.reading import results
from looplens.testing import synthetic_run

TOKEN = 11
# Figures of one token or prompt; the others are of all tokens.
OF_A_PART = [
    name
    for name, figure in plots.FIGURES.items()
    if {"token", "tokens", "prompt"} & set(inspect.signature(figure).parameters)
    # Beside the prompt these show the run: a sample of it, or how the colours are spread.
    and name not in ("restart_gaps", "restart_agreement", "tokens")
]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A run of 480 tokens whose results lie in chunks of a few tokens."""
    path = synthetic_run(
        tmp_path_factory.mktemp("reads") / "run", prompts=60, iterations=16, attention=False
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "_CHUNK_BYTES", 2**8)
        open_run(path).analyze()
    return path


def draw(run, name):
    figure = plots.FIGURES[name]
    known = inspect.signature(figure).parameters
    chosen = {"token": TOKEN, "tokens": [TOKEN, TOKEN + 1], "prompt": TOKEN // 8, "iteration": 5}
    return figure(run, **{key: value for key, value in chosen.items() if key in known})


@pytest.mark.parametrize("name", plots.FIGURES)
def test_a_figure_is_the_same_of_a_run_that_is_read_lazily(path, name):
    try:
        expected = draw(open_run(path), name).to_json()
    except AnalysisError as error:
        expected = str(error)
    try:
        found = draw(open_run(path, lazy=True), name).to_json()
    except AnalysisError as error:
        found = str(error)
    assert found == expected


@pytest.mark.parametrize("name", OF_A_PART)
def test_a_figure_of_a_part_reads_a_part_of_the_results(path, name, monkeypatch):
    read: list[str] = []
    plain = RunLocation.read_bytes
    monkeypatch.setattr(
        RunLocation, "read_bytes", lambda self, key: read.append(key) or plain(self, key)
    )
    try:
        draw(open_run(path, lazy=True), name)
    except AnalysisError:
        pytest.skip("the run does not hold what it shows")
    of_tokens: dict[str, int] = {}
    for key in read:
        array, found, _ = key.partition("/c/")
        if found and array.startswith("analysis/"):
            of_tokens[array] = of_tokens.get(array, 0) + 1
    for array, chunks in of_tokens.items():
        total = sum(file.is_file() for file in (path / array / "c").rglob("*"))
        coordinate = array.rpartition("/")[2] in ("token", "prompt", "iteration")
        assert coordinate or total < 8 or chunks <= total / 4, (array, chunks, total)
