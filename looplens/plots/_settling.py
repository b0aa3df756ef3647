"""When tokens settle, against a number that came with them (difficulty, or position).

One point a trajectory, the median of every group as a line, and the tokens that never settle in a
band of their own above the last iteration. The settling iteration is that of ``convergence``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from looplens import analysis
from looplens.analysis import grouping
from looplens.plots import _labels, _select, _theme

_SPREAD = 0.28
_MOST_POINTS = 2000  # drawn as SVG: more take a browser longer than all other panels


def settling(
    run: Any, by: str | None = None, *, layer: int | None = None, theme: str = "light"
) -> _theme.Figure:
    """Show the settling iteration of every token against its difficulty or position.

    Parameters
    ----------
    run : looplens.Run
        The opened run.
    by : str or None
        Numeric column of the token table; None for ``difficulty``, or ``position`` without it.
    layer : int or None
        States after this core layer, or None for the loop state.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        Points (one a trajectory) and the median of each group.

    Raises
    ------
    InputError
        If the column or the layer does not exist.
    AnalysisError
        If the run does not hold the states.
    """
    layer = _select.layer(run, layer)
    groups = grouping.group_tokens(run, by)
    results = analysis.get(run, "convergence")
    if layer is None:
        values = results["settling_iteration"]
    else:
        values = results["layer_settling_iteration"].sel(layer=layer)
    return settling_figure(
        values,
        groups,
        iterations=run.iterations,
        labels=lambda tokens: _labels.token_labels(run, tokens, position=True),
        subtitle=_labels.subtitle(
            run,
            f"{run.n_tokens} tokens × {run.restarts} restart{'s' if run.restarts > 1 else ''}",
            "loop state" if layer is None else f"layer {layer}",
        ),
        theme=theme,
    )


def settling_figure(
    values: xr.DataArray,
    groups: grouping.Groups,
    *,
    iterations: int,
    labels: Callable[[np.ndarray], list[str]],
    subtitle: str = "",
    theme: str = "light",
) -> _theme.Figure:
    """Draw settling iterations against groups.

    Parameters
    ----------
    values : DataArray (restart, token)
        Settling iteration, NaN for a trajectory that never settles.
    groups : Groups
        Groups of tokens.
    iterations : int
        Number of iterations recorded.
    labels : callable
        Takes places on the token axis and returns a label for each: only what is drawn is labelled.
    subtitle, theme : str
        Words and template.
    """
    colours = _theme.palette(theme)
    threshold = values.attrs.get("tolerance", values.attrs.get("threshold"))
    if isinstance(threshold, int | float):
        meaning = f"first iteration from which every relative step is < {_labels.number(threshold)}"
        subtitle = f"{subtitle}<br>{meaning}" if subtitle else meaning
    flat = values.transpose(..., "token").values.reshape(-1, values.sizes["token"])
    restart, token = np.nonzero(np.broadcast_to(groups.number >= 0, flat.shape))
    # A page with hundreds of thousands of points is slow and shows no more than a part of them.
    every = max(1, -(-restart.size // _MOST_POINTS))
    restart, token = restart[::every], token[::every]
    if every > 1:
        subtitle += f"<br>one trajectory in {every} is drawn; medians are of all"
    made = _theme.figure(
        title=f"Settling iteration by {groups.by}", subtitle=subtitle, theme=theme, height=440
    )
    late = flat[restart, token]
    never = ~np.isfinite(late)
    band = iterations * 1.08
    # An even, repeatable spread sideways: random jitter would change the picture at every call.
    place = groups.number[token] + _SPREAD * _spread(groups.number[token])
    for name, chosen, heights, symbol in (
        ("one trajectory", ~never, late, "circle"),
        (f"never within {iterations} iterations", never, np.full(late.shape, band), "x-thin-open"),
    ):
        if not chosen.any():
            continue
        made.add_trace(
            go.Scatter(
                x=place[chosen],
                y=heights[chosen],
                mode="markers",
                name=name,
                text=labels(token[chosen]),
                customdata=restart[chosen],
                marker={
                    "symbol": symbol,
                    "size": 7,
                    "opacity": 0.6,
                    "color": colours.categories[0],
                    "line": {
                        "width": 1.5 if symbol != "circle" else 0,
                        "color": colours.categories[0],
                    },
                },
                hovertemplate=(
                    "%{text}<br>restart %{customdata}<br>"
                    + ("never settles" if symbol != "circle" else "settles at iteration %{y}")
                    + "<extra></extra>"
                ),
            )
        )
    medians = grouping.median_by_group(values, groups).values
    made.add_trace(
        go.Scatter(
            x=np.arange(len(medians)),
            y=medians,
            mode="lines+markers",
            name="median (never counted as latest)",
            line={"color": colours.accent, "width": 2.5},
            marker={"symbol": "diamond", "size": 10, "color": colours.accent},
            hovertemplate="median %{y}<extra></extra>",
        )
    )
    made.update_xaxes(
        title=groups.by,
        tickvals=list(range(len(groups.labels))),
        ticktext=list(groups.labels),
        range=[-0.6, len(groups.labels) - 0.4],
        showgrid=False,
    )
    top = band * 1.06 if never.any() else 1.06 * float(np.nanmax(late, initial=1.0))
    made.update_yaxes(title="settling iteration", range=[0, top])
    if never.any():
        step = next(
            size for size in (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**6) if iterations / size <= 8
        )
        ticks = list(range(0, iterations + 1, step))
        made.update_yaxes(tickvals=[*ticks, band], ticktext=[*map(str, ticks), "never"])
    made.update_layout(
        legend={"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"}, margin={"t": 122}
    )
    return made


def _spread(groups: np.ndarray) -> np.ndarray:
    """Return numbers in [-1, 1] that fill each group evenly (a low-discrepancy sequence)."""
    order = np.zeros(groups.shape)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        order[members] = 2 * ((np.arange(members.size) * 0.6180339887 + 0.5) % 1) - 1
    return order
