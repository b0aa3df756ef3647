"""Path independence: the selected token from every initial state, and how far apart they end."""

from __future__ import annotations

import plotly.graph_objects as go

from looplens import plots
from looplens.errors import AnalysisError
from looplens_dashboard.panels.frame import add_cursor, figure_panel
from looplens_dashboard.selection import Selection
from looplens_dashboard.view import View


def make(view: View, selection: Selection) -> go.Figure:
    """Draw the overlay of the restarts and the decay of their distance."""
    if view.run.restarts < 2:
        raise AnalysisError(
            "This run was recorded from one initial state, so whether the answer depends on it "
            "cannot be seen. Record with restarts=2 or more, for example "
            "looplens.record(model, prompts, out, restarts=4)."
        )
    view.results("pca")
    view.results("path_independence")
    figure = plots.restarts(view.run, selection.token, selection.layer, theme=selection.theme)
    add_cursor(figure, selection, xref="x2", yref="y2 domain")
    return figure


PANEL = figure_panel(
    name="restarts",
    title="Path independence",
    keys=("token", "layer", "theme"),
    make=make,
)
