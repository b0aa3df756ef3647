"""Curves above a heat map of a prompt: its own, and that of the run with a band around it."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from looplens.plots import _theme

_MAP, _CURVES = (0.0, 0.7), (0.76, 1.0)  # heights of the map and of the curves


def add_curves(
    made: _theme.Figure,
    iterations: np.ndarray,
    of_prompt: np.ndarray,
    of_run: np.ndarray,
    title: str,
    axis: dict[str, Any],
    theme: str,
) -> None:
    """Draw curves above the map of a prompt, on the same iterations.

    Parameters
    ----------
    made : Figure
        A figure of :mod:`looplens.plots._heatmap`.
    iterations : ndarray, shape (iterations,)
        Of the curves and of the map.
    of_prompt : ndarray, shape (iterations,)
        The curve of the prompt.
    of_run : ndarray, shape (1, iterations) or (3, iterations)
        That of the run; of three, the first and the last are the ends of a band.
    title : str
        Of their axis.
    axis : dict
        Settings of their axis.
    theme : str
        Theme of the figure.
    """
    colours = _theme.palette(theme)
    logarithmic = axis.get("type") == "log"

    positive = of_run[of_run > 0]
    least = float(positive.min()) if logarithmic and positive.size else -np.inf

    def curve(values: np.ndarray, name: str, **look: Any) -> None:
        drawn = np.maximum(values, least)  # no logarithm of an exact 0
        made.add_trace(
            go.Scatter(
                x=iterations,
                y=drawn,
                name=name,
                yaxis="y2",
                **{
                    "mode": "lines",
                    "hovertemplate": f"{name}<br>iteration %{{x}}<br>%{{y:.3g}}<extra></extra>",
                    **look,
                },
            )
        )

    if len(of_run) == 3:
        edge = {"line": {"width": 0}, "hoverinfo": "skip", "hovertemplate": None}
        curve(of_run[0], "lower end", **edge, showlegend=False)
        fill = {"fill": "tonexty", "fillcolor": _faint(colours.muted)}
        curve(of_run[2], "80 % of the run", **edge, **fill)
    middle = of_run[len(of_run) // 2]
    curve(middle, "run", line={"color": colours.muted, "width": 2, "dash": "dash"})
    curve(of_prompt, "prompt", line={"color": colours.categories[0], "width": 2})
    made.update_layout(
        yaxis={"domain": _MAP},
        yaxis2={"domain": _CURVES, "anchor": "x", "title": {"text": title}, **axis},
    )
    made.update_traces(
        colorbar={"len": _MAP[1], "y": 0, "yanchor": "bottom"}, selector={"type": "heatmap"}
    )


def _faint(colour: str) -> str:
    """Return a colour that lets what is below it through."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.25)"
