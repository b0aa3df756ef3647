"""The token in a real browser: the printed address, a link elsewhere, a copied link."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from dash import Dash, Input, Output, dcc, html
from looplens_dashboard.serving import running, secure

pytestmark = pytest.mark.browser

TOKEN = "a token of some length"


@pytest.fixture
def guarded() -> Iterator[str]:
    """Serve an app that shows its own query, behind a token."""
    app = Dash("small", serve_locally=True)
    app.layout = html.Div([dcc.Location(id="at"), html.Div(id="seen")])
    app.callback(Output("seen", "children"), Input("at", "search"))(lambda query: f"view {query}")
    secure(app)
    with running(app, access=TOKEN) as url:
        yield url


class _Elsewhere(BaseHTTPRequestHandler):
    """A page of another site: a link, and a frame that must stay empty."""

    def __init__(self, target: str, *arguments: Any) -> None:
        self.target = target
        super().__init__(*arguments)

    def do_GET(self) -> None:
        page = f'<a href="{self.target}">go</a><iframe src="{self.target}"></iframe>'
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, *_arguments: Any) -> None:
        pass


def test_the_token_is_taken_from_the_address_once(chromium: Any, guarded: str) -> None:
    address = guarded.partition("?")[0]
    context = chromium.browser.new_context()
    try:
        page = context.new_page()
        complaints: list[str] = []
        page.on("console", lambda line: complaints.append(line.text))
        page.goto(f"{address}?iteration=7&token=%22a%22")
        assert page.title() == "looplens"
        page.get_by_label("Access token").fill("not the right one")
        page.keyboard.press("Enter")
        page.get_by_text("That token is not the right one.").wait_for()
        page.get_by_label("Access token").fill(TOKEN)
        page.keyboard.press("Enter")
        page.get_by_text("view ?iteration=7&token=%22a%22").wait_for()
        assert TOKEN not in page.url
        assert page.evaluate("document.cookie") == ""

        # A link of another site opens the view; a frame there shows nothing.
        handler = partial(_Elsewhere, f"{address}?iteration=9")
        elsewhere = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        Thread(target=elsewhere.serve_forever, daemon=True).start()
        other = context.new_page()
        other.goto(f"http://localhost:{elsewhere.server_port}/")
        assert "view ?" not in other.frames[-1].content()
        other.get_by_text("go").click()
        other.get_by_text("view ?iteration=9").wait_for()
        elsewhere.shutdown()
        elsewhere.server_close()
        assert [line for line in complaints if "401" not in line] == []
    finally:
        context.close()
