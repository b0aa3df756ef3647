"""The page Restarts."""

from __future__ import annotations

from looplens_dashboard.panels.call import figure_call
from looplens_dashboard.panels.panel import Page, Panel

RESTARTS = Panel(
    name="restarts",
    title="Restarts",
    answers="Does the end depend on the initial state?",
    keys=("token", "layer"),
    call=lambda _view, selection: figure_call(
        "restarts", token=selection.token, layer=selection.layer
    ),
)

PAGE = Page(name="restarts", title="Restarts", panels=(RESTARTS,))
