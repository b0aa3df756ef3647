"""The addresses that give a panel, or a page, to take out of the app.

``/export/<page>/<panel>.csv``, ``.json`` or ``.py``, and ``/export/<page>/page.html``, with the
query of a view behind them. The answer is of exactly that view: what the run does not have is an
error.
"""

from __future__ import annotations

import logging
import re
from typing import Any
from urllib.parse import quote

from dash import Dash
from flask import Response, request

from looplens.errors import LoopLensError
from looplens_dashboard.exporting.data import as_csv, as_json
from looplens_dashboard.exporting.page import as_page
from looplens_dashboard.panels.panel import Panel
from looplens_dashboard.selection import Selection, texts
from looplens_dashboard.view import View

KINDS = {
    "csv": "text/csv",
    "json": "application/json",
    "py": "text/x-python",
}
"""What a panel can be given as."""

_log = logging.getLogger(__name__)


def register(app: Dash, shell: Any) -> None:
    """Add the addresses to an app.

    Parameters
    ----------
    app : dash.Dash
        The app.
    shell : Shell
        Its pages and runs.
    """

    def export(page: str, name: str, kind: str) -> Response:
        try:
            return _answer(shell, page, name, kind)
        except LoopLensError as error:
            return _told(str(error), 400)
        except Exception as error:
            _log.exception("%s could not be exported.", name)
            return _told(f"It could not be made ({type(error).__name__}: {error}).", 500)

    app.server.add_url_rule("/export/<page>/<name>.<kind>", "export", export, methods=["GET"])


def _answer(shell: Any, page: str, name: str, kind: str) -> Response:
    if page not in shell.pages:
        return _told(f"There is no page {page!r}.", 404)
    of_page = {panel.name: panel for panel in (*shell.pages[page].panels, *shell.bar_panels)}
    panel = of_page.get(name)
    whole = (name, kind) == ("page", "html")
    if not whole and (panel is None or panel.call is None or kind not in KINDS):
        return _told(f"There is no {name}.{kind} of the page {page!r}.", 404)
    query = request.query_string.decode("utf-8", errors="replace")
    wanted, notes = texts(f"/{page}?{query}")
    zoom = wanted.pop("zoom", "")
    view, selection, more = shell.select(wanted)
    if notes or more:
        return _told(" ".join([*notes, *more]), 400)
    if whole:
        shown = as_page(shell.pages[page], shell.bar_panels, view, selection, zoom)
        return _file(shown, "text/html", f"{view.name} {page}.html")
    assert panel is not None
    return _file(_data(panel, view, selection, kind), KINDS[kind], f"{view.name} {name}.{kind}")


def _data(panel: Panel, view: View, selection: Selection, kind: str) -> str:
    assert panel.call is not None
    call = panel.call(view, selection)
    code = call.code(view.run, selection.theme)
    if kind == "py":
        return code
    figure = view.draw(call, selection.theme)
    if kind == "csv":
        return as_csv(figure)
    facts = {"panel": panel.name, "answers": panel.answers, "run": view.name, "python": code}
    return as_json(figure, **facts)


def _file(text: str, mimetype: str, name: str) -> Response:
    """Return a file to be saved; spaces and odd characters of its name become hyphens."""
    plain = re.sub(r"[^\w.-]+", "-", name).strip("-")
    response = Response(text, mimetype=mimetype)
    response.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(plain)}"
    return response


def _told(message: str, status: int) -> Response:
    return Response(message, status, mimetype="text/plain")
