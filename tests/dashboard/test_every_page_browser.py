"""What holds on every page: its link restores it, a reader without a mouse can use it, it fits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dashboard_driver import PAGES, Visit
from looplens_dashboard import pages

pytestmark = pytest.mark.browser

PLACE = "run=whole&prompt=1&token=11&also=9,12&restart=1&layer=1&head=1&iteration=7"
AUDIT = (Path(__file__).parent / "page_audit.js").read_text(encoding="utf-8").partition("\n() =>")
OF_RUN = [page.name for page in pages.PAGES if page.of_run]
STATE = """
() => Object.fromEntries([...document.querySelectorAll('[data-panel]')].map((panel) => {
  const graph = looplens.graph(panel.dataset.panel);
  const written = panel.querySelectorAll('.caption, .message, .body');
  const words = [...written].map((one) => one.innerText);
  const values = [...panel.querySelectorAll('input')].map((one) => [one.value, one.checked]);
  if (!graph) return [panel.dataset.panel, [words, values]];
  const axes = Object.entries(graph._fullLayout)
    .filter(([name]) => /^([xy]axis|scene)\\d*$/.test(name))
    .map(([name, axis]) => [name, axis.range || axis.camera]);
  const traces = graph.data.map(({x, y, z, visible}) => [x, y, z, visible]);
  return [panel.dataset.panel, [words, values, axes, traces, graph.layout.shapes || []]];
}))
"""


def rounded(value: Any) -> Any:
    """Return a view with its numbers rounded: where one zoomed to is kept to six digits."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return {key: rounded(part) for key, part in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("name", OF_RUN)
def test_a_copied_link_restores_the_identical_view(
    visit: Visit, chromium: Any, address: str, name: str
) -> None:
    page = visit.open(f"{address}{name}?{PLACE}&theme=dark").page
    # Another value of every list of choices of the page, and a place in every figure.
    for choice in page.locator("main .mantine-Select-input").all()[:4]:
        choice.click()
        options = page.locator("[role=option]:visible")
        if options.count() > 1:
            options.nth(1).click()
        else:
            page.keyboard.press("Escape")
        visit.drawn()
    page.evaluate(
        """() => document.querySelectorAll('[data-panel]').forEach((panel) => {
          const graph = looplens.graph(panel.dataset.panel);
          if (!graph) return;
          const full = graph._fullLayout;
          if (full.scene) {
            const eye = {x: 1.5, y: -0.4, z: 0.9};
            Plotly.relayout(graph, {'scene.camera.eye': eye});
          } else if (full.xaxis && full.xaxis.range && full.xaxis.type !== 'category') {
            const [low, high] = full.xaxis.range;
            const to = [low + 0.2 * (high - low), low + 0.7 * (high - low)];
            Plotly.relayout(graph, {'xaxis.range': to});
          }
        })"""
    )
    page.keyboard.press("ArrowRight")
    visit.wait_for_query(iteration="8")
    visit.drawn()
    again = Visit(chromium.new_page())
    again.open(page.evaluate("location.origin + looplens.address()"))
    seen = json.dumps(rounded(page.evaluate(STATE)))
    visit.eventually(lambda: json.dumps(rounded(again.page.evaluate(STATE))), seen)
    assert again.query == visit.query
    assert visit.complaints + again.complaints == []
    again.page.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_readers_without_a_mouse_and_with_less_contrast_are_served(
    visit: Visit, address: str, name: str, theme: str
) -> None:
    page = visit.open(f"{address}{name}?{PLACE}&theme={theme}").page
    audit = f"() =>{AUDIT[2]}"
    for width in (1280, 1920):
        page.set_viewport_size({"width": width, "height": 1000})
        visit.settle()
        assert page.evaluate(audit) == []
    assert page.get_attribute("html", "lang") == "en"
    # What is focused with the keyboard is seen to be.
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    focused = "getComputedStyle(document.activeElement)"
    assert page.evaluate(f"{focused}.outlineStyle !== 'none' || {focused}.boxShadow !== 'none'")
    assert visit.complaints == []


@pytest.mark.parametrize("name", OF_RUN)
def test_scrubbing_and_playing_ask_the_server_nothing(
    visit: Visit, address: str, name: str
) -> None:
    page = visit.open(f"{address}{name}?{PLACE}").page
    asked = len(visit.requests)
    page.keyboard.press("Home")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Space")
    page.wait_for_timeout(700)
    page.keyboard.press("Space")
    visit.settle()
    assert int(page.inner_text("#iteration-number")) > 10
    assert visit.requests[asked:] == []
    assert visit.complaints == []


@pytest.mark.parametrize("name", OF_RUN)
def test_a_saved_page_shows_what_the_page_showed(
    visit: Visit, chromium: Any, address: str, name: str, tmp_path: Path
) -> None:
    page = visit.open(f"{address}{name}?{PLACE}").page
    with page.expect_download() as saved:
        page.click("#save-page")
    file = tmp_path / "saved.html"
    saved.value.save_as(file)
    alone = Visit(chromium.new_page())
    alone.page.goto(file.as_uri())
    alone.page.wait_for_selector("html[data-drawn]")
    shown = "[...document.querySelectorAll('[data-panel]')].map((panel) => [panel.dataset.panel, "
    shown += "Boolean(looplens.graph(panel.dataset.panel)), "
    shown += "[...panel.querySelectorAll('.message')].map((one) => one.innerText).join()])"
    alone.eventually(lambda: alone.page.evaluate(shown), page.evaluate(shown))
    assert visit.complaints + alone.complaints == []
    alone.page.close()
