"""The page Readout & exits."""

from __future__ import annotations

from looplens_dashboard.panels.call import figure_call
from looplens_dashboard.panels.panel import Page, Panel

EXITS = Panel(
    name="exits",
    title="Exit rules",
    answers="What would leaving the loop early cost?",
    call=lambda _view, _selection: figure_call("exits"),
)

PAGE = Page(name="readout", title="Readout & exits", panels=(EXITS,))
