"""The page Live: choose a model, type a prompt, record, look, keep it or throw it away.

Its insides are put in place by a callback of its own, since they belong to no run: the first one
can be recorded here.
"""

from __future__ import annotations

from typing import Any

from dash import html
from dash.development.base_component import Component

from looplens_dashboard.pages.live.recording import register
from looplens_dashboard.panels.panel import Page, Panel


def body(_view: Any, _selection: Any) -> Component:
    """Return the place that the callback fills."""
    return html.Div("Looking for models…", id="live-place", className="live")


PANEL = Panel(
    name="live",
    title="Record",
    answers="What does a model do on a prompt of my own?",
    body=body,
    register=register,
    span=12,
    wide=12,
    height=None,
)

PAGE = Page(name="live", title="Live", panels=(PANEL,), of_run=False)
