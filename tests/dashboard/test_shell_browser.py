"""The shell in a real browser: what moves without the server, and what the address keeps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dashboard_driver import Visit, serving

from looplens import plots
from looplens.run import Run

pytestmark = pytest.mark.browser

CURSOR_AT = "graph.layout.shapes.find((shape) => shape.name === 'cursor').x0"
MARKERS = "(({x}) => [...x])(graph.data.find((trace) => (trace.meta || {}).role === 'cursor'))"


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
    page = chromium.new_page()
    visit = Visit(page).open(address + "trajectories?token=1&also=3&iteration=5")
    yield visit
    visit.page.close()


def test_scrubbing_moves_every_cursor_without_asking_the_server(opened: Visit, run: Run) -> None:
    visit = opened
    asked = len(visit.requests)
    for iteration in (12, 3):
        scrub_to(visit, iteration)
        figure = plots.trajectory(run, [1, 3], iteration=iteration)
        cursor = next(trace for trace in figure.data if (trace.meta or {}).get("role") == "cursor")
        assert len(cursor.x) == 2
        visit.eventually(lambda: visit.graph("trajectory", MARKERS), pytest.approx(list(cursor.x)))
    visit.wait_for_query(iteration="3")
    assert len(visit.requests) == asked
    assert visit.complaints == []


def test_keys_pressed_faster_than_the_page_can_draw_are_not_lost(
    visit: Visit, address: str
) -> None:
    page = visit.open(address + "restarts?iteration=5").slow_down(4).page
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
    for _ in range(5):  # each asks the server, which answers later than the next one is pressed
        page.keyboard.press("]")
    page.get_by_text("Dark", exact=True).click()
    page.keyboard.press("[")
    visit.wait_for_query(token="11", theme="dark")


def test_the_slider_playing_and_looping_move_the_iteration_without_the_server(
    opened: Visit,
) -> None:
    visit, page = opened, opened.page
    asked = len(visit.requests)
    box = page.locator("#scrubber").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.8, box["y"] + 5)
    page.wait_for_function("Math.abs(looplens.iteration - 26) <= 1")
    page.get_by_text("30/s").click()
    page.keyboard.press("Space")
    page.wait_for_function("looplens.iteration === 32")  # it stops at the end
    page.wait_for_selector("#play[aria-label=Play]")
    page.click("#loop")
    assert page.get_attribute("#loop", "aria-pressed") == "true"
    page.click("#play")
    page.wait_for_function("looplens.iteration > 20")
    page.wait_for_function("looplens.iteration < 10")  # from the end it goes on at the start
    page.click("#play")
    page.click("#loop")
    stopped = page.evaluate("looplens.iteration")
    page.wait_for_timeout(200)
    assert page.evaluate("looplens.iteration") == stopped
    assert len(visit.requests) == asked
    assert visit.complaints == []


def test_the_address_restores_the_whole_view_and_back_goes_back(
    visit: Visit, address: str, chromium: Any
) -> None:
    page = visit.open(address + "trajectories?iteration=9").page
    page.click("[data-token='4']")
    visit.wait_for_query(token="4")
    page.locator("[data-token='6']").click(modifiers=["Shift"])
    visit.wait_for_query(also="6")
    page.get_by_text("Dark", exact=True).click()
    page.keyboard.press("]")
    visit.wait_for_query(token="5", also="6", theme="dark", iteration="9")
    visit.drawn()
    page.evaluate("Plotly.relayout(looplens.graph('trajectory'), {'xaxis.range': [-1, 1.5]})")
    visit.settle()
    assert "trajectory~xaxis:-1,1.5" in visit.query["zoom"]

    again = Visit(chromium.new_page())
    again.open(page.url)
    visit.eventually(lambda: again.query, visit.query)
    for key in ("data", "layout.xaxis.range", "layout.shapes"):
        text = f"JSON.stringify(graph.{key})"
        again.eventually(
            lambda text=text: again.graph("trajectory", text), visit.graph("trajectory", text)
        )
    bar = "document.querySelector('.tokens').outerHTML"
    again.eventually(lambda: again.page.evaluate(bar), page.evaluate(bar))
    assert again.page.get_attribute("html", "data-mantine-color-scheme") == "dark"
    again.page.close()

    page.keyboard.press("3")
    page.wait_for_selector("#restarts-panel")
    page.wait_for_url("**/restarts?*token=5*")
    page.go_back()
    page.wait_for_selector("#trajectory-panel")
    visit.wait_for_query(token="5", iteration="9")
    assert visit.complaints + again.complaints == []


def test_another_run_is_shown_with_what_it_has(visit: Visit, address: str) -> None:
    page = visit.open(address + "restarts?token=12&iteration=7").page
    page.click(".selects input >> nth=0")
    page.get_by_role("option", name="bare", exact=True).click()
    visit.wait_for_query(run="bare", prompt="0", iteration="32")
    visit.drawn()
    assert "restarts=2 or more" in page.inner_text("#restarts-panel")
    assert page.inner_text("#iteration-last") == "32"
    assert visit.complaints == []


def test_everything_can_be_reached_with_the_keyboard(visit: Visit, address: str) -> None:
    page = visit.open(address + "overview?iteration=9").page
    page.keyboard.press("?")
    assert page.is_visible("#keys")
    assert "previous and next token" in page.inner_text("#keys")
    page.keyboard.press("Escape")
    assert not page.is_visible("#keys")
    page.keyboard.press("2")
    page.wait_for_selector("#trajectory-panel")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "(({id, dataset, tagName}) => dataset.page || dataset.token || dataset.export || id"
                " || tagName)(document.activeElement)"
            )
        )
    assert {"copy-link", "show-keys", "play", "loop", "restarts", "trajectory", "3"} <= reached
    page.focus("[data-export=trajectory]")
    page.keyboard.press("Enter")
    page.wait_for_selector("#export-menu:not([hidden])")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.dataset.as") == "svg"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.dataset.export") == "trajectory"


def test_nothing_leaves_this_machine_and_bad_addresses_are_explained(
    visit: Visit, address: str
) -> None:
    page = visit.open(address + "restarts?token=777&head=9&theme=dark").page
    assert "token='777' cannot be shown" in page.inner_text("#note")
    assert "head='9' cannot be shown" in page.inner_text("#note")
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
        page = visit.open(address + "trajectories?token=4").page
        for key, at in (("Home", 4), ("ArrowRight", 8), ("Shift+ArrowRight", 48), ("End", 64)):
            page.keyboard.press(key)
            visit.eventually(lambda: page.inner_text("#iteration-number"), str(at))
        page.keyboard.press("ArrowLeft")
        visit.eventually(lambda: page.inner_text("#iteration-number"), "60")
        thumb = "#scrubber [role=slider]"
        visit.eventually(lambda: page.get_attribute(thumb, "aria-valuenow"), "60")
        track = page.query_selector("#scrubber .mantine-Slider-track").bounding_box()
        page.mouse.click(track["x"] + track["width"] * 0.31, track["y"] + track["height"] / 2)
        visit.settle()
        slid = int(page.inner_text("#iteration-number"))
        assert slid % 4 == 0
        assert slid == pytest.approx(4 + 0.31 * 60, abs=4)
        visit.eventually(lambda: page.get_attribute(thumb, "aria-valuenow"), str(slid))
        visit.wait_for_query(iteration=str(slid))
        assert visit.complaints == []
