"""How much limits differ between inputs and between restarts, by position.

Numbers come from the analysis ``input_dependence``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from looplens import analysis
from looplens.plots import _labels, _theme


def input_dependence(run: Any, *, theme: str = "light") -> _theme.Figure:
    """Show the variance of the limits between inputs and over restarts.

    Parameters
    ----------
    run : looplens.Run
        A run with at least two prompts and two restarts.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        Two curves over the position on a logarithmic axis. The farther the upper one is above the
        lower one, the more the input alone decides where a token ends.

    Raises
    ------
    AnalysisError
        If the run holds only one prompt or restart, or not all iterations.
    """
    results = analysis.get(run, "input_dependence")
    share = float(results["run_share"])
    parts = [f"{run.n_prompts} prompts × {run.restarts} restarts"]
    if np.isfinite(share):
        parts.append(f"{_labels.percent(share)} of the variance lies between inputs")
    return input_dependence_figure(results, subtitle=_labels.subtitle(run, *parts), theme=theme)


def input_dependence_figure(
    results: xr.Dataset, *, subtitle: str = "", theme: str = "light"
) -> _theme.Figure:
    """Draw input dependence from labelled arrays.

    Parameters
    ----------
    results : Dataset
        ``between``, ``within``, ``dependence_share`` and ``inputs`` (position).
    subtitle, theme : str
        Words and template.
    """
    colours = _theme.palette(theme)
    made = _theme.figure(
        title="Input dependence of the limits", subtitle=subtitle, theme=theme, height=420
    )
    position = results["position"].values
    hover = np.stack([results["inputs"].values, results["dependence_share"].values], axis=-1)
    drawn = []
    for variable, name, colour, symbol, dash in (
        ("between", "between inputs", colours.categories[0], "circle", "solid"),
        ("within", "between restarts of an input", colours.categories[1], "square", "dash"),
    ):
        values = np.asarray(results[variable].values, dtype=np.float64)
        drawn.append(np.where(values > 0, values, np.nan))  # no logarithm of an exact 0
        made.add_trace(
            go.Scatter(
                x=position,
                y=drawn[-1],
                name=name,
                mode="lines+markers",
                line={"color": colour, "width": 1.5, "dash": dash},
                marker={"symbol": symbol, "size": 6, "color": colour},
                customdata=hover,
                hovertemplate=(
                    f"position %{{x}}<br>{name} %{{y:.3g}}<br>share between inputs "
                    "%{customdata[1]:.4f} of %{customdata[0]} inputs<extra></extra>"
                ),
            )
        )
    made.update_xaxes(title="position in the prompt")
    made.update_yaxes(title="variance of the limits (squared norms)", **_labels.decade_axis(*drawn))
    made.update_layout(
        legend={"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"}, margin={"t": 104}
    )
    return made
