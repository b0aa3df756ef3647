"""The panels of the bench of an exit rule: curves over its thresholds, marks, and words.

What is drawn where is decided in :mod:`looplens.plots._exit_bench`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from looplens.analysis.measures.flops import GIGA
from looplens.plots import _labels, _theme

THRESHOLD = "threshold"
"""Name of the shapes at the chosen threshold, and of the words above the histogram."""

CURVES = (
    # variable, words, place of its colour, dash, symbol
    ("accuracy", "accuracy", 0, "solid", "circle"),
    ("agreement", "agreement", 2, "dash", "square"),
)
_MOST_TICKS = 6


def laid_out(made: _theme.Figure) -> _theme.Figure:
    """Lay out two rows that share the thresholds, and the histogram below them."""
    make_subplots(rows=3, cols=1, row_heights=[0.36, 0.26, 0.38], vertical_spacing=0.1, figure=made)
    made.update_yaxes(tickformat="~%", rangemode="tozero", title="share", row=1, col=1)
    made.update_yaxes(rangemode="tozero", title="iterations", nticks=4, row=2, col=1)
    made.update_yaxes(tickformat="~%", rangemode="tozero", title="leave", nticks=4, row=3, col=1)
    made.layout.yaxis.domain = [0.72, 1.0]
    made.layout.yaxis2.domain = [0.46, 0.69]
    made.layout.yaxis3.domain = [0.0, 0.22]
    made.update_xaxes(showticklabels=False, row=1, col=1)
    return made


def add_exits(
    made: _theme.Figure,
    policies: xr.Dataset,
    own: np.ndarray | None,
    own_name: str,
    words: list[str],
    colours: _theme.Palette,
) -> None:
    """Draw when the rule leaves: the mean, and one trajectory."""
    cost = ""
    more: dict[str, Any] = {}
    if "gflops" in policies:
        cost = "<br>%{customdata:.3s} operations a token"
        more = {"customdata": policies["gflops"].values * GIGA}
    curves = [("mean", policies["iterations"].values, colours.text, "solid", "circle", cost, more)]
    if own is not None:
        curves.append((own_name, own, colours.categories[1], "dot", "diamond", "", {}))
    for title, values, colour, dash, symbol, tail, extra in curves:
        made.add_trace(
            go.Scatter(
                name="mean exit" if title == "mean" else title,
                x=list(range(len(words))),
                y=values,
                text=words,
                mode="lines+markers",
                line={"color": colour, "dash": dash, "width": 2},
                marker={"symbol": symbol, "size": 7},
                hovertemplate=f"threshold %{{text}}<br>{title}: iteration %{{y:.3g}}{tail}"
                "<extra></extra>",
                meta={"role": THRESHOLD},
                **extra,
            ),
            row=2,
            col=1,
        )


def says(policies: xr.Dataset) -> list[str]:
    """Say in two lines what the rule does at each threshold."""
    known = {str(name): policies[name].values for name in (*policies, "threshold")}
    found = []
    for place in range(policies.sizes["policy"]):
        at = {
            name: _labels.number(float(known[name][place])) for name in ("threshold", "iterations")
        }
        first = f"threshold {at['threshold']}: leaves after {at['iterations']} iterations"
        if "gflops" in known:
            first += f", {_labels.number(float(known['gflops'][place]) * GIGA)} operations"
        second = [
            f"{variable} {_labels.percent(float(known[variable][place]))}"
            for variable, *_ in CURVES
            if variable in known
        ]
        second.append(f"to the last iteration {_labels.percent(float(known['at_end'][place]))}")
        found.append(f"{first}<br>{' · '.join(second)}")
    return found


def add_marks(made: _theme.Figure, stands: int, words: str, colours: _theme.Palette) -> None:
    """Add the line at the chosen threshold, which a browser can move, and the words."""
    for axis in ("", "2"):
        made.add_shape(
            type="line",
            name=THRESHOLD,
            xref=f"x{axis}",
            yref=f"y{axis} domain",
            x0=stands,
            x1=stands,
            y0=0,
            y1=1,
            line={"color": colours.accent, "width": 2, "dash": "dash"},
        )
    made.add_annotation(
        name=THRESHOLD,
        text=words,
        xref="paper",
        x=0,
        xanchor="left",
        yref="y3 domain",
        y=1.04,
        yanchor="bottom",
        showarrow=False,
        align="left",
        font={"size": 12, "color": colours.text},
    )


def ticks(words: list[str]) -> dict[str, Any]:
    """Return ticks at some of the thresholds, so that their labels do not touch."""
    step = -(-len(words) // _MOST_TICKS)
    places = list(range(0, len(words), step))
    return {
        "tickvals": places,
        "ticktext": [words[place] for place in places],
        "tickangle": 0,
    }
