"""The panels of all analyses: every figure for the selection, and the numbers of a token."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from dashboard_driver import Client, Visit
from looplens_dashboard.view import SHOWN, figures

from looplens import plots
from looplens.run import open_run


def test_every_figure_is_shown_somewhere_and_says_what_it_lacks(client: Client) -> None:
    assert set(plots.FIGURES) == SHOWN | set(figures())
    assert next(iter(figures())) == "regimes"
    for name in client.limits.figures:
        sent = client.panel("analyses", "graph.figure", f"?figure={name}&token=4&layer=1")
        text = json.dumps(sent.get("analyses-message", {}).get("children"))
        assert "could not be drawn" not in text, (name, text)
        assert "analyses-graph" in sent or "not" in text, name


@pytest.mark.parametrize("query", ["?token=4&restart=1&figure=settling", "?figure=nonsense"])
def test_the_figure_is_a_part_of_the_address(client: Client, query: str) -> None:
    sent = client.select(query)
    if "nonsense" in query:
        assert "figure='nonsense' cannot be shown" in sent["note"]["children"]
        assert sent["selection"]["data"]["figure"] == "regimes"
    else:
        assert sent["selection"]["data"]["figure"] == "settling"


def test_numbers_of_a_token_are_those_that_are_stored(tmp_path: Path, bare_path: Path) -> None:
    path = shutil.copytree(bare_path, tmp_path / "run")
    empty = Client(path).panel("numbers", "table.children", "?token=1")
    assert "looplens analyze" in json.dumps(empty)
    run = open_run(path)
    run.analyze(["convergence", "classify"])
    shown = json.dumps(Client(path).panel("numbers", "table.children", "?token=1"))
    settled = float(run.results("convergence")["settling_iteration"][0, 1])
    assert f'"{settled:.4g}"' in shown
    assert "fixed point" in shown


def test_numbers_of_an_analysis_that_an_older_version_stored(
    tmp_path: Path, bare_path: Path
) -> None:
    run = open_run(shutil.copytree(bare_path, tmp_path / "run"))
    run.analyze("convergence")
    old = run.results("convergence").drop_vars("rate")
    run.write_analysis("convergence", old, version="0")
    shown = json.dumps(Client(run.path).panel("numbers", "table.children", "?token=1"))
    assert '"rate"' in shown


def test_the_caption_says_which_figure_it_is(client: Client) -> None:
    sent = client.panel("analyses", "graph.figure", "?figure=grouped&token=4")
    assert sent["analyses-caption"]["children"].startswith("Settling iteration")


def test_choosing_a_figure_draws_it(visit: Visit, address: str) -> None:
    page: Any = visit.open(f"{address}?figure=settling").page
    page.wait_for_selector("#analyses-graph .js-plotly-plot .plot-container")
    assert visit.query["figure"] == "settling"
    page.click("#analyses-panel input")
    page.get_by_role("option", name="Predictions", exact=True).click()
    visit.wait_for_query(figure="readout")
    visit.settle()
    visit.eventually(lambda: visit.graph("analyses", "graph.data.length > 2"), True)
    assert visit.complaints == []
