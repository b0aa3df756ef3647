"""The app below a cell of a notebook: a real kernel, and its output in the frame of a page."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import nbformat
import pytest
from looplens_dashboard import starting
from nbclient import NotebookClient

import looplens

CELLS = (
    "import looplens\nrun = looplens.open_run({path!r})\napp = run.app(height=640)",
    "again = run.app(height=640)\nprint(again is app, app.url, app.is_running)",
    "app",
    "app.stop()\nprint(app)",
)


@pytest.fixture(scope="module")
def kernel(run_path: Path) -> Iterator[NotebookClient]:
    """A notebook of which the first cell was run."""
    cells = [nbformat.v4.new_code_cell(text.format(path=str(run_path))) for text in CELLS]
    client = NotebookClient(nbformat.v4.new_notebook(cells=cells), timeout=120)
    with client.setup_kernel():
        client.execute_cell(client.nb.cells[0], 0)
        yield client


@pytest.fixture
def notebook_page(kernel: NotebookClient) -> Iterator[str]:
    """A page elsewhere on this machine that shows the output of the first cell."""
    shown = kernel.nb.cells[0].outputs[0]["data"]["text/html"]

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(shown.encode())

        def log_message(self, *_arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.mark.browser
def test_a_notebook_shows_the_app_in_a_frame(chromium: Any, notebook_page: str) -> None:
    page = chromium.new_page()
    page.goto(notebook_page)
    frame = page.frame_locator("iframe")
    frame.locator("#trajectory-panel, #regimes-panel").first.wait_for()
    frame.locator("[data-page=trajectories]").click()
    frame.locator("#trajectory-panel .js-plotly-plot .plot-container").wait_for()
    assert page.locator("iframe").get_attribute("height") == "640"
    page.close()


def test_the_same_app_is_shown_again_and_stops_when_told(kernel: NotebookClient) -> None:
    said = [
        kernel.execute_cell(kernel.nb.cells[number], number)["outputs"] for number in range(1, 4)
    ]
    text = next(output["text"] for output in said[0] if output["output_type"] == "stream")
    assert text.startswith("True http://127.0.0.1:")
    assert text.strip().endswith("True")
    assert said[1][0]["data"]["text/plain"].startswith("<looplens app at http://127.0.0.1:")
    assert said[2][0]["text"].strip().endswith(", stopped>")


def test_outside_of_a_notebook_it_is_served_until_interrupted(
    run_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(starting, "serve_http", lambda app, **options: asked.append(options))
    assert not starting.in_notebook()
    looplens.open_run(run_path).app(access="twelve characters")
    looplens.open_run(run_path).app(port=0, open_browser=True)
    assert [options["port"] for options in asked] == [8050, 0]
    assert asked[0]["access"] == "twelve characters"
    assert asked[1]["open_browser"] is True
