"""The page Layers & attention."""

from __future__ import annotations

from looplens_dashboard.panels.call import figure_call
from looplens_dashboard.panels.panel import Page, Panel

SIMILARITY = Panel(
    name="similarity",
    title="Similarity",
    answers="Which layers do the same at which iterations?",
    keys=("prompt",),
    call=lambda _view, selection: figure_call("similarity", prompt=selection.prompt),
)

PAGE = Page(name="layers", title="Layers & attention", panels=(SIMILARITY,))
