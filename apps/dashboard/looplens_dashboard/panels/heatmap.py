"""The convergence heat map of a prompt; a click on a cell selects its token and iteration."""

from __future__ import annotations

import plotly.graph_objects as go

from looplens import plots
from looplens_dashboard.panels.frame import add_cursor, figure_panel, thin_ticks
from looplens_dashboard.selection import Selection
from looplens_dashboard.view import View

_PLOT_HEIGHT = 240


def make(view: View, selection: Selection) -> go.Figure:
    """Draw the heat map with the selected row outlined; the browser moves the outline."""
    view.results("convergence")
    figure = plots.convergence_heatmap(
        view.run, selection.prompt, selection.restart, theme=selection.theme
    )
    first = view.limits.first_tokens[selection.prompt]
    row = selection.token - first
    figure.add_shape(
        type="rect",
        name="row",
        xref="x domain",
        yref="y",
        x0=0,
        x1=1,
        y0=row - 0.5,
        y1=row + 0.5,
        line={"color": plots.palette(selection.theme).accent, "width": 2},
    )
    add_cursor(figure, selection)
    thin_ticks(figure, "yaxis")
    # Settling marks no taller than about a row of a card.
    rows = len(view.limits.tokens_of(selection.prompt))
    size = min(8, max(3, _PLOT_HEIGHT // rows))
    figure.update_traces(marker_size=size, selector={"type": "scatter"})
    figure.update_layout(legend_itemsizing="constant")
    # A click means the cell under it, not a settling mark that is near.
    figure.update_layout(meta={"first_token": first}, hoverdistance=4)
    return figure


PANEL = figure_panel(
    name="heatmap",
    title="Convergence",
    keys=("prompt", "restart", "theme"),
    make=make,
)
