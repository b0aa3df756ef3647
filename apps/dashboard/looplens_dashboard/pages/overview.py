"""The page Overview."""

from __future__ import annotations

from looplens_dashboard.pages import any_figure, numbers
from looplens_dashboard.panels.call import figure_call
from looplens_dashboard.panels.panel import Page, Panel

REGIMES = Panel(
    name="regimes",
    title="Regimes",
    answers="How many tokens settle, orbit or slide?",
    call=lambda _view, _selection: figure_call("regimes"),
)

PAGE = Page(name="overview", title="Overview", panels=(REGIMES, any_figure.PANEL, numbers.PANEL))
