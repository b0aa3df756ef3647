"""Which answers can still change: how often the way that is left fits into the margin.

Draws what :func:`looplens.dynamics.certificate` has found for a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from looplens.plots import _labels, _theme

_STYLE = {  # by status: what it is called, its symbol, and which of the categories colours it
    "certified": ("certified", "circle", 0),
    "holds": ("holds in the search", "circle-open", 2),
    "may change": ("may change", "x", 1),
    "not shrinking": ("steps do not shrink", "triangle-down-open", 3),
}

_WIDTH = 600  # pixels that the tokens share


def certificate_figure(
    results: xr.Dataset,
    *,
    labels: Sequence[str] | None = None,
    subtitle: str = "",
    theme: str = "light",
) -> _theme.Figure:
    """Draw the certificates of a prompt.

    Parameters
    ----------
    results : Dataset
        Of :func:`looplens.dynamics.certificate`: ``status``, ``safety``, ``remaining`` (token).
    labels : sequence of str, optional
        One a token; their numbers by default.
    subtitle, theme : str
        Words and template.

    Returns
    -------
    Figure
        How many times the way that is left each answer survives, on a logarithmic axis; above 1 it
        stays. Tokens whose steps do not shrink stand at the bottom, without a number.
    """
    colours = _theme.palette(theme)
    names = [_labels.escape(label) for label in labels or map(str, results["token"].values)]
    texts = [f"{place} {name}" for place, name in enumerate(names)] if labels else names
    made = _theme.figure(
        title="Can the answer still change?", subtitle=subtitle, theme=theme, height=400
    )
    status, safety = results["status"].values, results["safety"].values.astype(np.float64)
    positive = safety[np.isfinite(safety) & (safety > 0)]
    low = min(0.1, float(positive.min(initial=1.0)))
    high = max(10.0, float(positive.max(initial=1.0)))
    for name, (title, symbol, number) in _STYLE.items():
        places = np.flatnonzero(status == name)
        if not len(places):
            continue
        made.add_trace(
            go.Scatter(
                x=places,
                y=np.clip(np.nan_to_num(safety[places], nan=low / 2), low / 2, high),
                mode="markers",
                name=title,
                showlegend=True,
                customdata=[[_labels.number(safety[at]), texts[at]] for at in places],
                marker={"symbol": symbol, "size": 11, "color": colours.categories[number]},
                hovertemplate="%{customdata[1]}<br>%{customdata[0]} times<extra></extra>",
            )
        )
    made.add_hline(y=1, line={"color": colours.muted, "dash": "dash", "width": 1.5})
    positions, shown = _labels.row_ticks(texts, _WIDTH)
    made.update_xaxes(title="token", tickvals=positions, ticktext=shown, tickangle=-45)
    exponents, powers = _labels.decade_ticks(np.floor(np.log10(low)), np.ceil(np.log10(high)))
    made.update_yaxes(
        title="margin / way that is left",
        type="log",
        range=[np.log10(low / 2) - 0.2, np.log10(high) + 0.2],
        tickvals=[10.0**exponent for exponent in exponents],
        ticktext=powers,
    )
    made.update_layout(
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"},
        margin={"t": 100},
    )
    return made
