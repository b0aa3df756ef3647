"""The dashboard in a real browser: what moves without the server, and what the address keeps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dashboard_driver import Visit, serving

from looplens import plots
from looplens.run import Run

pytestmark = pytest.mark.browser

CURSOR_AT = "graph.layout.shapes.find((shape) => shape.name === 'cursor').x0"
MARKER = (
    "(({x, y}) => [x[0], y[0]])(graph.data.find((trace) => (trace.meta || {}).role === 'cursor'))"
)
TOP_ROW = "document.querySelector('#readout-table tr').textContent"


def scrub_to(visit: Visit, iteration: int) -> None:
    """Press Home, then step to the iteration with the keys."""
    visit.page.keyboard.press("Home")
    for _ in range(iteration // 10):
        visit.page.keyboard.press("Shift+ArrowRight")
    for _ in range(iteration % 10):
        visit.page.keyboard.press("ArrowRight")
    visit.page.wait_for_function(
        f"document.getElementById('iteration-number').textContent === '{iteration}'"
    )
    visit.settle()


@pytest.fixture(scope="module")
def opened(chromium: Any, address: str) -> Iterator[Visit]:
    """One open page for the tests that leave its selection alone, or say which one they need."""
    visit = Visit(chromium.new_page()).open(address + "?token=1&head=1&iteration=5")
    yield visit
    visit.page.close()


def test_scrubbing_moves_every_panel_without_asking_the_server(opened: Visit, run: Run) -> None:
    visit = opened
    asked = visit.updates
    rows = {}
    for iteration in (12, 3):
        scrub_to(visit, iteration)
        for name in ("heatmap", "steps", "restarts"):
            visit.eventually(lambda name=name: visit.graph(name, CURSOR_AT), iteration)
        expected = plots.trajectory(run, 1, iteration=iteration).data[-1]
        place = pytest.approx([expected.x[0], expected.y[0]])
        visit.eventually(lambda: visit.graph("trajectory", MARKER), place)
        shown = np.array(visit.graph("attention", "graph.data[0].z"), dtype=float)
        expected = plots.attention(run, 0, iteration, head=1).data[0].z
        np.testing.assert_allclose(shown, expected, atol=1e-5)
        rows[iteration] = visit.page.evaluate(TOP_ROW)
    assert rows[12] != rows[3]
    scrub_to(visit, 0)
    assert "nothing has been read out yet" in visit.page.inner_text("#readout-table")
    visit.wait_for_query(iteration="0")
    assert visit.updates == asked
    assert visit.complaints == []


def test_keys_pressed_faster_than_the_page_can_draw_are_not_lost(
    visit: Visit, address: str
) -> None:
    page = visit.open(address + "?iteration=5").slow_down(6).page
    for key in ("Home", "Shift+ArrowRight", *["ArrowRight"] * 8, "ArrowLeft"):
        page.keyboard.press(key)
    assert page.evaluate("looplens.iteration") == 17
    visit.eventually(lambda: page.inner_text("#iteration-number"), "17")
    visit.settle()
    thumb = "#scrubber [role=slider]"
    visit.eventually(lambda: page.get_attribute(thumb, "aria-valuenow"), "17")
    assert page.evaluate("looplens.iteration") == 17
    page.focus(thumb)
    page.keyboard.press("ArrowUp")
    visit.eventually(lambda: page.inner_text("#iteration-number"), "18")


def test_the_slider_and_playing_move_the_iteration_without_asking_the_server(
    opened: Visit,
) -> None:
    visit, page = opened, opened.page
    asked = visit.updates
    box = page.locator("#scrubber").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.8, box["y"] + 5)
    page.wait_for_function("Math.abs(looplens.iteration - 26) <= 1")
    visit.eventually(
        lambda: visit.graph("heatmap", CURSOR_AT) - page.evaluate("looplens.iteration"), 0
    )
    page.get_by_text("30/s").click()
    page.keyboard.press("Space")
    page.wait_for_function("looplens.iteration === 32")  # it stops at the end
    page.wait_for_selector("#play[aria-label=Play]")
    page.click("#play")  # from the end it starts again
    page.wait_for_function("looplens.iteration > 0 && looplens.iteration < 32")
    page.click("#play")
    stopped = page.evaluate("looplens.iteration")
    page.wait_for_timeout(200)
    assert page.evaluate("looplens.iteration") == stopped
    assert visit.updates == asked
    assert visit.complaints == []


def test_clicks_select_and_the_address_restores_the_view(
    visit: Visit, address: str, run: Run, chromium: Any
) -> None:
    page = visit.open(address + "?iteration=9").page
    before = visit.graph("trajectory", "graph.data[1].x")
    page.click("[data-token='4']")
    page.wait_for_selector("[data-token='4'][aria-pressed=true]")
    visit.settle()
    after = visit.graph("trajectory", "graph.data[1].x")
    assert after != before
    assert after == pytest.approx(list(plots.trajectory(run, 4).data[1].x))
    row = "graph.layout.shapes.find((shape) => shape.name === 'row').y0"
    visit.eventually(lambda: visit.graph("heatmap", row), 3.5)
    page.locator("#strip-panel").get_by_text("Settling", exact=True).click()
    page.get_by_text("Dark", exact=True).click()
    page.click("#next-prompt")
    page.wait_for_selector("[data-token='15'][aria-pressed=true]")
    page.keyboard.press("[")
    page.wait_for_selector("[data-token='14'][aria-pressed=true]")
    page.get_by_text("3-D", exact=True).click()
    expected = {
        "prompt": "1",
        "token": "14",
        "restart": "0",
        "layer": "state",
        "attention_layer": "0",
        "head": "mean",
        "colour": "settling",
        "dims": "3",
        "theme": "dark",
        "figure": "regimes",
        "iteration": "9",
    }
    visit.wait_for_query(**expected)
    visit.settle()
    assert visit.query == expected

    again = Visit(chromium.new_page())
    again.open(page.url)
    assert again.query == expected
    for name, key in (("trajectory", "data"), ("heatmap", "layout.shapes"), ("steps", "data")):
        text = f"JSON.stringify(graph.{key})"
        again.eventually(lambda: again.graph(name, text), visit.graph(name, text))  # noqa: B023
    selected = "document.querySelector('.tokens').outerHTML"
    again.eventually(lambda: again.page.evaluate(selected), page.evaluate(selected))
    assert again.page.get_attribute("html", "data-mantine-color-scheme") == "dark"
    again.page.close()
    assert visit.complaints + again.complaints == []


def test_a_cell_of_the_heat_map_selects_token_and_iteration(opened: Visit) -> None:
    visit, page = opened, opened.page
    point = visit.graph(
        "heatmap",
        "(({left, top}) => { const {xaxis, yaxis} = graph._fullLayout; return {"
        "x: left + xaxis._offset + xaxis.d2p(20), y: top + yaxis._offset + yaxis.d2p(2)}; })"
        "(graph.getBoundingClientRect())",
    )
    page.mouse.move(point["x"], point["y"])
    page.wait_for_timeout(150)  # plotly answers a click with what it found under the pointer last
    page.mouse.click(point["x"], point["y"])
    visit.wait_for_query(token="2", iteration="20")
    page.wait_for_selector("[data-token='2'][aria-pressed=true]")


def test_nothing_leaves_this_machine_and_bad_addresses_are_explained(
    visit: Visit, address: str
) -> None:
    page = visit.open(address + "?token=777&dims=9&theme=dark").page
    assert "token='777' cannot be shown" in page.inner_text("#note")
    assert "dims='9' cannot be shown" in page.inner_text("#note")
    assert visit.query["token"] == "7"
    elsewhere = [url for url in visit.requests if not url.startswith((address, "data:", "blob:"))]
    assert elsewhere == []
    assert visit.complaints == []
    # The policy of the page refuses what no script of ours asks for.
    refused = page.evaluate(
        "fetch('https://example.org/').then(() => 'sent', (error) => 'refused')"
    )
    assert refused == "refused"
    assert page.locator("[data-title*='loud'], input[type=file]").count() == 0


def test_the_scrubber_stands_only_where_the_run_keeps_something(
    visit: Visit, selected_run_path: Path
) -> None:
    """Every 4th of 64 iterations is kept: keys, playing and the slider move among them."""
    with serving(selected_run_path) as address:
        page = visit.page
        page.goto(address + "?token=4&attention_layer=3")
        page.wait_for_selector("#readout-table table")
        visit.settle()
        for key, at in (("Home", 4), ("ArrowRight", 8), ("Shift+ArrowRight", 48), ("End", 64)):
            page.keyboard.press(key)
            visit.eventually(lambda: page.inner_text("#iteration-number"), str(at))
        page.keyboard.press("ArrowLeft")
        visit.eventually(lambda: page.inner_text("#iteration-number"), "60")
        thumb = "#scrubber [role=slider]"
        visit.eventually(lambda: page.get_attribute(thumb, "aria-valuenow"), "60")
        assert page.evaluate(TOP_ROW)
        track = page.query_selector("#scrubber .mantine-Slider-track").bounding_box()
        page.mouse.click(track["x"] + track["width"] * 0.31, track["y"] + track["height"] / 2)
        visit.settle()
        slid = int(page.inner_text("#iteration-number"))
        assert slid % 4 == 0
        assert slid == pytest.approx(4 + 0.31 * 60, abs=4)
        visit.eventually(lambda: page.get_attribute(thumb, "aria-valuenow"), str(slid))
        visit.wait_for_query(iteration=str(slid))
        assert visit.complaints == []
