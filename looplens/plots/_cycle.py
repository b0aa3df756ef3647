"""The cycle over the layers: every layer has its own limit, and an iteration visits them in turn.

Left, the states after each core layer in their common principal plane with the limits joined by
arrows; right, the matrix of distances between the limits. Both come from the array functions
``analysis.cycle`` and ``analysis.pca``; this module only draws them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from looplens import analysis
from looplens.errors import AnalysisError
from looplens.plots import _labels, _marks, _select, _theme


def cycle(
    run: Any,
    token: int,
    restart: int = 0,
    *,
    iteration: int | None = None,
    theme: str = "light",
) -> _theme.Figure:
    """Show the limits of one token at every core layer, and the way around them.

    Parameters
    ----------
    run : looplens.Run
        A run with ``resid_post`` of at least two core layers.
    token : int
        Global token number.
    restart : int
        Which draw of the initial state.
    iteration : int or None
        Where the cursor stands; None keeps it out of sight.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        Two panels: limits in the layers' common plane, and their distances relative to their norm.

    Raises
    ------
    InputError
        If the token or the restart does not exist.
    AnalysisError
        If the states after each layer were not recorded, there is only one layer, or the states are
        not finite.

    References
    ----------
    Blayney et al., arXiv 2604.11791, proposition 4.1 (every layer of the block has a fixed point of
    its own) and figure 5 (principal components of one token over all layers and iterations).
    """
    token, restart = _select.token(run, token), _select.restart(run, restart)
    if run.n_layers < 2:
        raise AnalysisError(
            "A cycle needs at least two core layers, and this model loops over "
            f"{run.n_layers}: its only limit is that of the loop state."
        )
    layers = run.recorded_layers
    _select.layer(run, layers[0])
    if len(layers) < 2:
        raise AnalysisError(
            f"A cycle needs at least two core layers, and this run keeps only layer {layers[0]} "
            f"of {run.n_layers}. Record with layers=None, or with several."
        )
    read = run.site("resid_post", restart=restart, tokens=token)
    states = read.transpose("layer", "iteration", ...).values
    if not np.isfinite(states).all():
        raise AnalysisError(f"The states of token {token} are not finite: no layer has a limit.")
    found = analysis.cycle(states)
    basis = analysis.pca(states, n_components=2)
    limits = (np.asarray(found.limits) - basis.mean) @ np.asarray(basis.components).T
    return cycle_figure(
        np.asarray(basis.projection),
        limits,
        np.asarray(found.distance),
        np.asarray(found.movement),
        explained=np.asarray(basis.explained_variance_ratio),
        layers=layers,
        iterations=read["iteration"].values,
        iteration=iteration,
        subtitle=_labels.of_prompt(run, token, f"restart {restart}"),
        theme=theme,
    )


def cycle_figure(
    paths: np.ndarray,
    limits: np.ndarray,
    distance: np.ndarray,
    movement: np.ndarray,
    *,
    explained: np.ndarray,
    layers: Sequence[int] | None = None,
    iterations: Sequence[int] | np.ndarray | None = None,
    iteration: int | None = None,
    subtitle: str = "",
    theme: str = "light",
) -> _theme.Figure:
    """Draw the cycle from arrays.

    Parameters
    ----------
    paths : ndarray, shape (layer, iteration, 2)
        States after each layer in the common plane.
    limits : ndarray, shape (layer, 2)
        Limits in the same plane.
    distance : ndarray, shape (layer, layer)
        Distance between limits relative to their norm.
    movement : ndarray, shape (layer,)
        How far each layer's state still moves at the end, relative to its norm.
    explained : ndarray, shape (2,)
        Share of the variance on each axis.
    layers, iterations : sequence of int, optional
        Their numbers; counted from 0 and from 1 by default.
    iteration : int or None
        Where the cursors stand, one a layer; None keeps them out of sight.
    subtitle, theme : str
        Words and template.
    """
    colours = _theme.palette(theme)
    numbers = list(range(len(limits)) if layers is None else layers)
    counted = np.arange(1, paths.shape[1] + 1) if iterations is None else np.asarray(iterations)
    made = _theme.figure(
        title="Cycle over the layers: one limit a layer", subtitle=subtitle, theme=theme, height=480
    )
    make_subplots(rows=1, cols=2, column_widths=[0.56, 0.44], horizontal_spacing=0.14, figure=made)
    for place, layer in enumerate(numbers):
        colour = colours.categories[place % len(colours.categories)]
        symbol = _theme.TOKEN_SYMBOLS[place % len(_theme.TOKEN_SYMBOLS)]
        made.add_trace(
            go.Scatter(
                **_marks.coordinates(paths[place]),
                mode="markers",
                name=f"after layer {layer}, each iteration",
                customdata=counted.tolist(),
                marker={"symbol": symbol, "size": 6, "color": colour, "opacity": 0.45},
                hovertemplate=f"layer {layer}<br>iteration %{{customdata}}<extra></extra>",
                legendgroup=str(layer),
                showlegend=False,
                meta={"role": "trajectory", "layer": int(layer)},
            ),
            row=1,
            col=1,
        )
        made.add_trace(
            go.Scatter(
                x=limits[place : place + 1, 0],
                y=limits[place : place + 1, 1],
                mode="markers+text",
                name=f"layer {layer} (still moves {_labels.number(movement[place], digits=2)})",
                text=[f"<b>{layer}</b>"],
                textfont={"color": "#ffffff" if theme == "light" else "#1f2430", "size": 12},
                marker={
                    "symbol": "circle",
                    "size": 24,
                    "color": colour,
                    "line": {"width": 2, "color": colours.paper},
                },
                hovertemplate=f"limit of layer {layer}<extra></extra>",
                legendgroup=str(layer),
            ),
            row=1,
            col=1,
        )
    _marks.add_cursor(made, go.Scatter, paths, counted, iteration, colours, 2)
    last = len(limits) - 1
    for place, limit in enumerate(limits):
        _add_arrow(made, limit, limits[(place + 1) % len(limits)], colours, place == last)
    _add_distances(made, distance, numbers, colours)
    made.update_xaxes(title=f"PC 1 ({_labels.percent(explained[0])} of variance)", row=1, col=1)
    made.update_yaxes(title=f"PC 2 ({_labels.percent(explained[1])} of variance)", row=1, col=1)
    made.update_layout(
        legend={
            "orientation": "h",
            "x": 0,
            "y": -0.2,
            "yanchor": "top",
            "itemsizing": "constant",
        },
        margin={"b": 104},
    )
    return made


def _add_arrow(
    made: _theme.Figure,
    tail: np.ndarray,
    head: np.ndarray,
    colours: _theme.Palette,
    closing: bool,
) -> None:
    """Draw one arrow; the one that closes the cycle passes the loop boundary and is lighter."""
    made.add_annotation(
        x=float(head[0]),
        y=float(head[1]),
        ax=float(tail[0]),
        ay=float(tail[1]),
        xref="x",
        yref="y",
        axref="x",
        ayref="y",
        text="",
        showarrow=True,
        arrowhead=2,
        arrowsize=1.2,
        arrowwidth=2,
        arrowcolor=colours.muted if closing else colours.text,
        opacity=0.7 if closing else 1.0,
        standoff=15,
        startstandoff=15,
    )


def _add_distances(
    made: _theme.Figure, distance: np.ndarray, numbers: list[int], colours: _theme.Palette
) -> None:
    """Draw the matrix of distances, with its numbers while they fit."""
    layers = len(distance)
    names = list(range(layers))
    made.add_trace(
        go.Heatmap(
            z=distance,
            x=names,
            y=names,
            zmin=0,
            colorscale=[list(stop) for stop in colours.sequential],
            colorbar={"title": {"text": "distance / |limit|"}, "x": 1.0, "xpad": 8},
            text=[[_labels.number(value, digits=2) for value in row] for row in distance],
            texttemplate="%{text}" if layers <= 8 else "",
            customdata=[[[row, column] for column in numbers] for row in numbers],
            hovertemplate=(
                "limits of layers %{customdata[0]} and %{customdata[1]}"
                "<br>relative distance %{z:.3g}<extra></extra>"
            ),
        ),
        row=1,
        col=2,
    )
    shared = {"title": "layer", "tickvals": names, "ticktext": numbers, "showgrid": False}
    made.update_xaxes(**shared, row=1, col=2)
    made.update_yaxes(**shared, autorange="reversed", row=1, col=2)
