"""A page of the app as one HTML file: figures, tables, styles and scripts are all inside it.

The file loads nothing and needs no server. Its scrubber moves the same figures with the same
scripts as in the app; another token or run needs the app.
"""

from __future__ import annotations

import datetime
import json
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from markupsafe import Markup
from plotly.io.json import to_json_plotly

import looplens
from looplens import plots
from looplens.reports import plotlyjs, template_environment
from looplens_dashboard.exporting.components import as_html
from looplens_dashboard.panels.drawing import attempt, fitted
from looplens_dashboard.panels.panel import Page, Panel
from looplens_dashboard.selection import Selection
from looplens_dashboard.view import View

ASSETS = Path(__file__).parents[1] / "assets"
_SCRIPTS = ("address", "zoom", "player", "keys", "follow")  # the order is that of their use


def as_page(page: Page, bar: tuple[Panel, ...], view: View, selection: Selection, zoom: str) -> str:
    """Return a page as HTML.

    Parameters
    ----------
    page : Page
        Which; a panel that cannot be drawn says why, as in the app.
    bar : tuple of Panel
        Panels above the scrubber: the tokens.
    view, selection
        What is shown.
    zoom : str
        Where figures are zoomed to, as the address says it.
    """
    frames: dict[str, Any] = {}
    above = [_panel(panel, view, selection, frames) for panel in bar] if page.of_run else []
    panels = [_panel(panel, view, selection, frames) for panel in page.panels]
    state = {
        "selection": selection.values(),
        "iteration": selection.iteration,
        "kept": list(view.limits.kept_iterations),
        "last": int(view.limits.selectable[-1]),
        "zoom": zoom,
        "frames": frames,
        "config": plots.CONFIG,
    }
    return (
        template_environment("looplens_dashboard.exporting")
        .get_template("page.html.j2")
        .render(
            page=page,
            run=view.name,
            facts=_facts(view, selection),
            selection=selection,
            kept=",".join(map(str, view.limits.kept_iterations)),
            first=int(view.limits.selectable[0]),
            last=int(view.limits.selectable[-1]),
            above=Markup("".join(above)),
            panels=Markup("".join(panels)),
            state=Markup(_script_json(state)),
            styles=Markup(_styles()),
            plotlyjs=Markup(plotlyjs()),
            scripts=Markup(_scripts()),
            made=f"looplens {looplens.__version__} on "
            f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        )
    )


def _facts(view: View, selection: Selection) -> list[str]:
    """Say what is selected, as the bar of the app does."""
    layer = "loop state" if selection.layer is None else f"layer {selection.layer}"
    position = int(view.positions[selection.token])
    return [
        view.run.model_name,
        f"prompt {view.prompt_label(selection.prompt)}",
        f"token {position} {view.token_text(selection.token)}",
        f"restart {selection.restart}",
        layer,
        "mean of heads" if selection.head is None else f"head {selection.head}",
    ]


def _panel(panel: Panel, view: View, selection: Selection, frames: dict[str, Any]) -> str:
    """Return a panel as HTML, and put what the scrubber needs for it into ``frames``."""
    caption, code = "", ""
    call, trouble = attempt(lambda: panel.call(view, selection) if panel.call else None)
    if panel.body is not None and trouble is None:
        shown, trouble = attempt(lambda: panel.body(view, selection))
        inside = f'<div class="body">{as_html(shown, _figure)}</div>'
    elif trouble is None:
        drawn, trouble = attempt(lambda: fitted(panel, view, selection))
        if drawn is not None:
            inside, caption = _figure(drawn[0]), drawn[1]
    if trouble is None and panel.frames is not None:
        sent, trouble = attempt(lambda: panel.frames(view, selection))
        frames[panel.name] = sent
        caption = " · ".join(filter(None, (caption, (sent or {}).get("note"))))
    if trouble is not None:
        inside = as_html(trouble)
    elif call is not None:
        python = escape(call.code(view.run, selection.theme))
        code = f"<details><summary>Python</summary><pre>{python}</pre></details>"
    heading = (
        f'<header><h2 title="{escape(panel.answers)}">{escape(panel.title)}</h2>'
        f'<div class="caption">{escape(caption)}</div></header>'
    )
    style = f"--span: {panel.span}; --wide: {panel.wide}"
    if panel.height:
        style += f"; --height: {panel.height}px"
    return (
        f'<section id="{panel.name}-panel" class="card{"" if panel.height else " tall"}" '
        f'data-panel="{panel.name}" style="{style}" aria-label="{escape(panel.title)}">'
        f"{'' if panel.bare else heading}{inside}{code}</section>"
    )


def _figure(figure: Any) -> str:
    """Return the place of a figure with its data beside it; a script draws it."""
    data = figure.to_dict() if hasattr(figure, "to_dict") else figure
    return (
        '<div class="figure"><div class="graph"></div>'
        f'<script type="application/json">{_safe(to_json_plotly(data))}</script></div>'
    )


def _script_json(value: Any) -> str:
    return _safe(json.dumps(value, default=_listed))


def _listed(value: Any) -> Any:
    return value.tolist()


def _safe(text: str) -> str:
    """Return JSON in which nothing can end the script that it stands in."""
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


@cache
def _styles() -> str:
    return "\n".join(file.read_text(encoding="utf-8") for file in sorted(ASSETS.glob("*.css")))


@cache
def _scripts() -> str:
    """Return the scripts of the app that need no server: shared ones first, then the panels'."""
    left_out = {"answering", "choosing", "exports", "live", "routing"}
    known = [ASSETS / f"{name}.js" for name in _SCRIPTS]
    others = sorted(set(ASSETS.glob("*.js")) - set(known))
    files = [*known, *(file for file in others if file.stem not in left_out)]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)
