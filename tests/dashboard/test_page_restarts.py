"""The page Restarts: what its panels call, and what follows the scrubber in a browser."""

from __future__ import annotations

import pytest
from dashboard_driver import selected, view_of
from looplens_dashboard.pages import restarts

from looplens import plots

PANELS = {panel.name: panel for panel in restarts.PAGE.panels}
FOLLOW = [panel for panel in restarts.PAGE.panels if panel.follows]


@pytest.fixture(scope="module")
def view(run_path):
    return view_of(run_path)


def called(view, name, query=""):
    return PANELS[name].call(view, selected(view, f"/restarts?{query}"))


def test_panels_are_calls_of_the_selection(view):
    query = "token=12&layer=1&iteration=0"
    assert called(view, "restarts", query).text() == (
        "plots.restarts(run, token=12, layer=1, iteration=1)"  # states after a layer begin there
    )
    assert called(view, "restarts", "token=12&iteration=0").text() == (
        "plots.restarts(run, token=12, iteration=0)"
    )
    assert called(view, "restart-gaps", query).text() == (
        "plots.restart_gaps(run, prompt=1, iteration=0, token=12)"
    )
    assert called(view, "path-independence").text() == "plots.path_independence(run)"


@pytest.mark.parametrize("name", PANELS)
def test_every_panel_is_drawn_and_answers_a_question(view, name):
    panel = PANELS[name]
    assert panel.answers.endswith("?")
    assert "iteration" not in panel.depends_on
    figure = called(view, name, "token=3&iteration=7").draw(view.run)
    lines = [shape.x0 for shape in figure.layout.shapes if shape.name == plots.CURSOR]
    assert set(lines) == ({7} if panel.follows else set())


@pytest.mark.parametrize("name", ["restarts", "restart-gaps", "path-independence", "basins"])
def test_a_run_with_one_restart_says_what_to_record(bare_client, name):
    drawn = bare_client.panel(name, "/restarts")
    assert "restarts=" in str(drawn["message"])
    assert "hidden" in drawn["figure"]


@pytest.mark.browser
def test_cursors_and_the_row_of_the_token_follow_in_the_browser(visit, address):
    visit.open(f"{address}restarts?token=3&iteration=5")
    asked = visit.updates
    for _ in range(3):
        visit.page.keyboard.press("ArrowRight")
    visit.wait_for_query(iteration="8")
    lines = "graph.layout.shapes.filter((s) => s.name === 'cursor').map((s) => s.x0)"
    for name, count in (("restarts", 1), ("restart-gaps", 2)):
        visit.eventually(lambda name=name: visit.graph(name, lines), [8] * count)
    cursor = "Array.from(graph.data.find((t) => (t.meta || {}).role === 'cursor').x)"
    path = "graph.data.filter((t) => (t.meta || {}).role === 'trajectory').map((t) => t.x[8])"
    visit.eventually(lambda: visit.graph("restarts", cursor) == visit.graph("restarts", path), True)
    assert visit.updates == asked
    visit.page.keyboard.press("]")
    visit.wait_for_query(token="4")
    row = "graph.layout.shapes.find((s) => s.name === 'row').y0"
    visit.eventually(lambda: visit.graph("restart-gaps", row), 3.5)
    assert visit.complaints == []
