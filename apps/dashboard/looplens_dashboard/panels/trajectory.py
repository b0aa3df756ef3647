"""The path of the selected token through the principal components, in two or three dimensions."""

from __future__ import annotations

import plotly.graph_objects as go
from dash.development.base_component import Component

from looplens import plots
from looplens_dashboard.controls import segmented, select
from looplens_dashboard.panels.frame import figure_panel
from looplens_dashboard.selection import LOOP_STATE, Selection
from looplens_dashboard.view import View


def make(view: View, selection: Selection) -> go.Figure:
    """Draw the trajectory; its trace ``cursor`` is moved by the browser."""
    view.results("pca")
    # States after a layer exist from iteration 1 on; iteration 0 is a loop state.
    first = 0 if selection.layer is None and view.run.all_iterations else 1
    figure = plots.trajectory(
        view.run,
        selection.token,
        restart=selection.restart,
        layer=selection.layer,
        dims=selection.dims,
        iteration=max(first, selection.iteration),
        theme=selection.theme,
    )
    # A zoom holds for one trajectory; how a scene is turned holds for all.
    shown = (selection.token, selection.restart, selection.layer, selection.dims)
    figure.update_layout(uirevision="/".join(map(str, shown)), scene_uirevision="camera")
    return figure


def controls(view: View) -> list[Component]:
    """Return the selectors of the states and of the dimensions."""
    layers = [(LOOP_STATE, "loop state")]
    layers += [(str(layer), f"after layer {layer}") for layer in view.limits.state_layers]
    return [
        select("layer", "States", layers),
        segmented("dims", "Dimensions", [("2", "2-D"), ("3", "3-D")]),
    ]


PANEL = figure_panel(
    name="trajectory",
    title="Trajectory",
    keys=("token", "restart", "layer", "dims", "theme"),
    make=make,
    controls=controls,
)
