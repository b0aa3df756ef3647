"""Taking things out of the app in a real browser: files, and a saved page without a server."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from dashboard_driver import Visit, serving
from looplens_dashboard import create_app
from looplens_dashboard.serving import Server

pytestmark = pytest.mark.browser

CURSOR_AT = "graph.layout.shapes.find((shape) => shape.name === 'cursor').x0"


def test_a_panel_is_saved_as_picture_data_and_python(
    visit: Visit, address: str, run_path: Path
) -> None:
    page = visit.open(address + "trajectories?token=4&iteration=7").page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    for kind, start in (("png", b"\x89PNG"), ("svg", b"<svg"), ("csv", b"plot,"), ("json", b"{")):
        page.click("[data-export=trajectory]")
        with page.expect_download() as saved:
            page.click(f"#export-menu [data-as={kind}]")
        assert saved.value.suggested_filename.endswith(f"trajectory.{kind}")
        content = Path(saved.value.path()).read_bytes()
        assert content.startswith(start)
    assert json.loads(content)["run"] == run_path.name
    page.click("[data-export=trajectory]")
    page.click("#export-menu [data-as=py]")
    page.get_by_text("Python copied").wait_for()
    code = page.evaluate("navigator.clipboard.readText()")
    assert "figure = plots.trajectory(run, tokens=[4], iteration=7)" in code
    page.click("#copy-link")
    page.get_by_text("Link copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == page.evaluate(
        "location.origin + looplens.address()"
    )
    assert visit.complaints == []


def test_a_saved_page_is_the_same_view_and_its_scrubber_moves_it(
    visit: Visit, address: str, chromium: Any, tmp_path: Path
) -> None:
    page = visit.open(address + "trajectories?token=4&also=6&iteration=7&theme=dark").page
    page.evaluate("Plotly.relayout(looplens.graph('trajectory'), {'xaxis.range': [-1, 1.5]})")
    visit.settle()
    with page.expect_download() as saved:
        page.click("#save-page")
    file = tmp_path / saved.value.suggested_filename
    saved.value.save_as(file)
    assert file.name == "whole-trajectories.html"

    alone = Visit(chromium.new_page())
    alone.page.goto(file.as_uri())
    alone.page.wait_for_selector("html[data-drawn]")
    for key in ("data.length", "data[0].x", "layout.xaxis.range", "layout.shapes"):
        text = f"JSON.stringify(Array.from([graph.{key}].flat()))"
        alone.eventually(
            lambda text=text: alone.graph("trajectory", text), visit.graph("trajectory", text)
        )
    assert alone.page.get_attribute("html", "data-mantine-color-scheme") == "dark"
    alone.page.keyboard.press("Shift+ArrowRight")
    alone.eventually(lambda: alone.graph("steps", CURSOR_AT), 17)
    assert alone.page.input_value("#scrubber") == "17"
    alone.page.click("[data-token='5']")
    assert "needs the app" in alone.page.inner_text("#said")
    assert [url for url in alone.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert visit.complaints + alone.complaints == []
    alone.page.close()


def test_what_cannot_be_saved_is_said(visit: Visit, address: str) -> None:
    page = visit.open(address + "dynamics").page
    page.evaluate(
        "document.querySelector('[data-export=spectra]').click();"
        "document.querySelector('#export-menu [data-as=csv]').click()"
    )
    page.get_by_text("looplens dynamics").and_(page.locator("#said")).wait_for()


def test_a_server_that_stops_is_noticed_and_one_that_returns_too(
    visit: Visit, run_path: Path
) -> None:
    app = create_app(run_path)
    server = Server(app, port=0).start()
    page = visit.open(server.address + "trajectories?token=4").page
    server.stop()
    page.keyboard.press("]")
    page.locator("#answering").get_by_text("The app does not answer").wait_for()
    assert page.locator("#trajectory-panel .js-plotly-plot").is_visible()
    server = Server(app, port=server.port).start()
    page.wait_for_function("document.getElementById('answering').hidden")
    page.keyboard.press("]")
    visit.eventually(lambda: "token" in visit.query, True)
    server.stop()


def test_another_run_cannot_be_reached_by_any_address(visit: Visit, run_path: Path) -> None:
    with serving(run_path) as address:
        page = visit.open(f"{address}overview?run=../bare").page
        assert "There is no run '../bare' here" in page.inner_text("#note")
        assert visit.query["run"] == "whole"


def test_a_run_that_cannot_be_opened_says_so_and_another_can_be_chosen(
    visit: Visit, run_path: Path, tmp_path: Path
) -> None:
    for name in ("good", "bad"):
        shutil.copytree(run_path, tmp_path / name)
    (tmp_path / "bad" / "zarr.json").write_text("{")
    with serving(tmp_path) as address:
        page = visit.open(f"{address}trajectories?run=bad").page
        assert "bad/zarr.json cannot be read" in page.inner_text("#content [role=alert]")
        assert page.input_value("#bar input >> nth=0") == "bad"
        page.click("#bar input >> nth=0")
        page.get_by_role("option", name="good", exact=True).click()
        page.wait_for_selector("#trajectory-panel .js-plotly-plot")
        visit.wait_for_query(run="good")
        assert visit.complaints == []


def test_folders_without_a_run_say_what_to_do(visit: Visit, tmp_path: Path) -> None:
    with serving(tmp_path) as address:
        page = visit.open(f"{address}restarts").page
        assert "Record one into it" in page.inner_text("#content")
        page.keyboard.press("8")
        page.wait_for_selector("#live-place")
        assert visit.complaints == []
