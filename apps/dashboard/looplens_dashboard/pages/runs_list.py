"""The runs of the workspace: what each of them is, how large, and which regimes it holds."""

from __future__ import annotations

import json

from dash import html
from dash.development.base_component import Component

from looplens import plots
from looplens_dashboard.entries import Entry
from looplens_dashboard.panels.panel import Panel
from looplens_dashboard.selection import Selection
from looplens_dashboard.view import View

SECONDS = 0.1
"""How long a look at the list may spend on sizes and regimes that are not known yet."""

_HEAD = ("Run", "Model", "Recorded", "Prompts", "Tokens", "Restarts", "Iterations", "Core", "Disk")


def body(view: View, selection: Selection) -> Component:
    """Return a table with a line for every run; a click on its name shows it."""
    workspace = view.views.workspace
    entries = workspace.entries(seconds=SECONDS)
    rows = [_row(entry, view.key, selection.theme) for entry in entries]
    notes = [html.P(note, className="table-note") for note in workspace.notes]
    if any(entry.problem is None and entry.size is None for entry in entries):
        notes.append(
            html.P(
                "“…” is not counted yet: open this page again in a moment.", className="table-note"
            )
        )
    head = html.Thead(html.Tr([html.Th(name, scope="col") for name in (*_HEAD, "Regimes")]))
    return html.Div([html.Table([head, html.Tbody(rows)], className="runs"), *notes])


def _row(entry: Entry, current: str, theme: str) -> Component:
    is_current = entry.key == current
    name = html.Button(
        entry.key,
        className="link",
        title=entry.path,
        **{
            "data-pick": json.dumps({"run": entry.key}),
            "aria-current": "true" if is_current else "false",
        },
    )
    first = html.Th(name, scope="row")
    if entry.problem is not None:
        return html.Tr([first, html.Td(entry.problem, colSpan=len(_HEAD), className="warn")])
    cells = (
        entry.model,
        entry.created[:16].replace("T", " "),
        f"{entry.prompts:,}",
        f"{entry.tokens:,}" + ("" if entry.complete else " (incomplete)"),
        f"{entry.restarts:,}",
        f"{entry.iterations:,}",
        f"{entry.layers} × {entry.d_model:,}",
        "…" if entry.size is None else size_text(entry.size),
    )
    return html.Tr(
        [first, *map(html.Td, cells), html.Td(_regimes(entry, theme))],
        className="current" if is_current else None,
    )


def _regimes(entry: Entry, theme: str) -> list[Component] | str:
    """Return a count of each regime that the run holds, most first."""
    if entry.regimes is None:
        return "…" if entry.size is None else "not analysed"
    styles = plots.palette(theme).regimes
    shown = sorted(entry.regimes.items(), key=lambda item: -item[1])
    return [
        html.Span(
            [
                html.Span(
                    className="dot",
                    style={"background": styles[name].colour} if name in styles else {},
                ),
                f"{count:,} {styles[name].label if name in styles else name}",
            ],
            className="count",
        )
        for name, count in shown
    ]


def size_text(size: int) -> str:
    """Write a number of bytes: ``87 MB``, ``35 GB``."""
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"


PANEL = Panel(
    name="runs",
    title="Runs",
    answers="Which runs are there, what was recorded in them, and what was found?",
    body=body,
    span=12,
    wide=12,
    height=None,
)
