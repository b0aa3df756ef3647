"""What holds on every page: its link restores it, a reader without a mouse can use it, it fits."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from dashboard_driver import PAGES, Visit

pytestmark = pytest.mark.browser

PLACE = "run=whole&prompt=1&token=11&also=9,12&restart=1&layer=1&head=1&iteration=7"
AUDIT = (Path(__file__).parent / "page_audit.js").read_text(encoding="utf-8").partition("\n() =>")
TALL = {"width": 1280, "height": 4000}
LINKED = ("trajectories", "layers", "readout", "compare")
"""Pages with something of their own in the link, or that the scrubber moves in its own way."""
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
  const plain = (values) => values && values.length !== undefined && typeof values !== 'string'
    ? Array.from(values, plain) : Number.isNaN(values) ? null : values;
  const traces = graph._fullData.map(({x, y, z, visible}) => [...[x, y, z].map(plain), visible]);
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


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return the panels that are not the same in two pages, and what of them is not."""
    return [
        f"{name}, {number}: {_first(part, there)}"
        for name, parts in one.items()
        for number, (part, there) in enumerate(zip(parts, other.get(name, []), strict=False))
        if part != there
    ] + sorted(set(one) ^ set(other))


def _first(one: Any, other: Any) -> str:
    """Return the first parts of two views that are not the same."""
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return next(_first(a, b) for a, b in zip(one, other, strict=True) if a != b)
    return f"{str(one)[:200]} / {str(other)[:200]}"


def audited(visit: Visit, width: int) -> list[str]:
    """Return what the page owes to its readers."""
    visit.page.set_viewport_size({"width": width, "height": 1000})
    visit.settle()
    return visit.page.evaluate(f"() =>{AUDIT[2]}")


@pytest.mark.parametrize("name", PAGES)
def test_readers_without_a_mouse_and_with_less_contrast_are_served(
    visit: Visit, address: str, name: str
) -> None:
    page = visit.open(f"{address}{name}?{PLACE}").page
    assert page.get_attribute("html", "lang") == "en"
    # What is focused with the keyboard is seen to be.
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    focused = "getComputedStyle(document.activeElement)"
    assert page.evaluate(f"{focused}.outlineStyle !== 'none' || {focused}.boxShadow !== 'none'")
    assert audited(visit, 1280) == []
    page.get_by_text("Dark", exact=True).click()
    visit.wait_for_query(theme="dark")
    visit.drawn()
    assert audited(visit, 1920) == []
    visit.page.set_viewport_size({"width": 1280, "height": 1000})
    assert visit.complaints == []


def choose_and_zoom(visit: Visit) -> None:
    """Take another value of the first lists of the page, and zoom into every figure."""
    page = visit.page
    for choice in page.locator("main .mantine-Select-input").all()[:2]:
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
            Plotly.relayout(graph, {'scene.camera.eye': {x: 1.5, y: -0.4, z: 0.9}});
          } else {
            const to = {};
            Object.entries(full).forEach(([name, axis]) => {
              if (!/^xaxis\\d*$/.test(name) || axis.type === 'category') return;
              const [low, high] = axis.range;
              to[name + '.range'] = [low + 0.2 * (high - low), low + 0.7 * (high - low)];
            });
            Plotly.relayout(graph, to);
          }
        })"""
    )
    visit.settle()


@pytest.mark.parametrize("name", LINKED)
def test_a_view_is_scrubbed_linked_and_saved(
    visit: Visit, chromium: Any, address: str, name: str, tmp_path: Path
) -> None:
    visit.page.set_viewport_size(TALL)  # what is scrolled away is not moved
    page = visit.open(f"{address}{name}?{PLACE}&theme=dark").page
    asked = len(visit.requests)
    page.keyboard.press("Home")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Space")
    page.wait_for_function("Number(document.getElementById('iteration-number').textContent) > 12")
    page.keyboard.press("Space")
    visit.settle()
    assert visit.requests[asked:] == []  # neither scrubbing nor playing asks the server

    choose_and_zoom(visit)
    again = Visit(chromium.new_page())
    again.page.set_viewport_size(TALL)
    again.open(page.evaluate("location.origin + looplens.address()"))
    seen = rounded(page.evaluate(STATE))
    with contextlib.suppress(AssertionError):
        visit.eventually(lambda: differing(seen, rounded(again.page.evaluate(STATE))), [])
    assert "\n".join(differing(seen, rounded(again.page.evaluate(STATE)))) == ""
    assert again.query == visit.query

    with again.page.expect_download() as saved:
        again.page.click("#save-page")
    file = tmp_path / "saved.html"
    saved.value.save_as(file)
    alone = Visit(again.page.context.new_page())
    alone.page.goto(file.as_uri())
    alone.page.wait_for_selector("html[data-drawn]")
    shown = "[...document.querySelectorAll('[data-panel]')].map((panel) => [panel.dataset.panel, "
    shown += "Boolean(looplens.graph(panel.dataset.panel)), "
    shown += "[...panel.querySelectorAll('.message')].map((one) => one.innerText).join()])"
    alone.eventually(lambda: alone.page.evaluate(shown), page.evaluate(shown))
    assert visit.complaints + again.complaints + alone.complaints == []
    again.page.close()
    alone.page.close()
