"""Every other figure of the run, one at a time, for the selected token, prompt and layer."""

from __future__ import annotations

import plotly.graph_objects as go
from dash.development.base_component import Component

from looplens.analysis import ANALYZERS
from looplens_dashboard.controls import select
from looplens_dashboard.panels.frame import figure_panel
from looplens_dashboard.selection import Selection
from looplens_dashboard.view import FILLED, View


def make(view: View, selection: Selection) -> go.Figure:
    """Draw the chosen figure; it does not follow the scrubber, which stands where it stood."""
    values = {name: getattr(selection, name) for name in FILLED}
    values["iteration"] = max(1, selection.iteration)
    return view.draw(selection.figure, {**values, "theme": selection.theme})


def adjust(figure: go.Figure) -> None:
    """Put the legend below plots that have titles above them, which it would hide."""
    titled = any(
        note.yref == "paper" and note.y is not None and note.y >= 0.99
        for note in figure.layout.annotations
    )
    if titled:
        figure.update_layout(legend={"y": -0.2, "yanchor": "top"})


def controls(view: View) -> list[Component]:
    """Return the list of figures."""
    options = [(name, title(name)) for name in view.limits.figures]
    return [select("figure", "Figure", options, width=270, searchable=True)]


def title(name: str) -> str:
    """Return the title of the analysis that a figure shows, or its name as words."""
    return ANALYZERS[name].title if name in ANALYZERS else name.replace("_", " ").capitalize()


PANEL = figure_panel(
    name="analyses",
    title="Analyses",
    keys=("figure", "prompt", "token", "restart", "layer", "head", "theme"),
    make=make,
    controls=controls,
    adjust=adjust,
    titled=True,
)
