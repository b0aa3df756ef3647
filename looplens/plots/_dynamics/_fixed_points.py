"""Fixed points of the tokens of a prompt: whether iteration comes back to them, and how far away.

The numbers are those of :func:`looplens.dynamics.fixed_points`, which needs the live model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from looplens.plots import _labels, _theme
from looplens.plots._dynamics import _stored

_KINDS = {  # by the place of the point and its stability: symbol, and which of the categories
    (True, True): ("{first}, stable", "circle", 0),
    (True, False): ("{first}, unstable", "diamond", 1),
    (False, True): ("another, stable", "circle-open", 0),
    (False, False): ("another, unstable", "diamond-open", 1),
}
_MEAN, _SEEN = "nearest to the mean", "held there for later tokens"
_NONE = "no verified fixed point"
_TICKS = [0.001, 0.01, 0.1, 0.2, 0.5, 1, 2, 5, 10, 100]  # of the spectral radius
_CLOSE_TICKS = [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.5, 1.7, 2, 2.5]
_WIDTH = 620  # pixels that the tokens share
_WHY = {
    "degenerate": "at rounding, but a root near by does not follow",
    "outside": "only far outside of the trajectory",
    "none": "none was found",
    "no context": "an earlier token has none",
}


def fixed_points(run: Any, token: int | None = None, *, theme: str = "light") -> _theme.Figure:
    """Show the fixed points of all tokens of a prompt that were examined.

    Parameters
    ----------
    run : looplens.Run
        A run with a stored ``dynamics/fixed_points``.
    token : int or None
        Token number in the run, marked in the figure; None for the first that was examined.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        Above, the spectral radius of each point, on a logarithmic axis: iteration comes back to a
        point below 1 and leaves one above. Filled is the point nearest to the mean of the
        trajectory; where the whole sequence was solved from left to right, the one at which later
        tokens see it. Below, the distance of the recorded state from it, in units of its norm.

    Raises
    ------
    InputError
        If the run has no such token.
    AnalysisError
        If nothing is stored, or not of this token.
    """
    found, token = _stored.stored(run, "fixed_points", token)
    prompt = int(run.tokens["prompt"].values[token])
    found = found.isel(token=found["prompt"].values == prompt)
    numbers = found["token"].values.tolist()
    labels = _labels.token_labels(run, numbers, position=True)
    parts = [f"prompt {prompt}", f"restart {found.attrs['restart']}"]
    return fixed_points_figure(
        found, token, labels=labels, subtitle=_labels.subtitle(run, *parts), theme=theme
    )


def fixed_points_figure(
    result: xr.Dataset,
    token: int | None = None,
    *,
    labels: Sequence[str] | None = None,
    subtitle: str = "",
    theme: str = "light",
) -> _theme.Figure:
    """Draw a result of :func:`looplens.dynamics.fixed_points`.

    Parameters
    ----------
    result : Dataset
        Over ``token`` and ``point``.
    token : int or None
        Token number to mark.
    labels : sequence of str, optional
        One a token, safe inside a figure; token numbers by default.
    subtitle, theme : str
        Words and template.
    """
    colours = _theme.palette(theme)
    numbers = result["token"].values.tolist()
    names = list(labels) if labels is not None else [str(number) for number in numbers]
    scope = {"token": "others held still", "sequence": "whole sequence"}[result.attrs["scope"]]
    made = _theme.figure(
        title="Fixed points",
        subtitle=" · ".join(part for part in (subtitle, scope) if part),
        theme=theme,
        height=560,
    )
    made = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.07, figure=made)
    radius = result["radius"].transpose("token", "point").values
    distance = result["distance"].transpose("token", "point").values
    hover = _hover(result, names)
    radius = np.maximum(radius, 1e-4)  # zero has no logarithm; NaN stays
    first = np.arange(radius.shape[1]) == 0
    in_order = result.attrs["scope"] == "sequence" and result.attrs["causal"]
    words = _SEEN if in_order else _MEAN
    low = _drawn_low(distance)
    for (is_first, is_stable), (name, symbol, category) in _KINDS.items():
        here = np.isfinite(radius) & (first == is_first) & ((radius < 1) == is_stable)
        name = name.format(first=words)
        rows, places = np.nonzero(here)
        if not len(rows):
            continue
        for row, values in ((1, radius), (2, np.maximum(distance, low))):
            made.add_trace(
                go.Scatter(
                    x=rows,
                    y=values[here],
                    mode="markers",
                    name=name,
                    legendgroup=name,
                    showlegend=row == 1,
                    text=[hover[r][p] for r, p in zip(rows, places, strict=True)],
                    marker={
                        "symbol": symbol,
                        "size": 9,
                        "color": colours.categories[category],
                        "line": {"width": 1.5, "color": colours.categories[category]},
                    },
                    hovertemplate="%{text}<extra></extra>",
                    meta={"tokens": [numbers[r] for r in rows]},
                ),
                row=row,
                col=1,
            )
    lacking = np.flatnonzero(~np.isfinite(radius[:, 0]))
    axis = _radius_axis(radius)
    if len(lacking):
        bottom, top = axis["range"]
        edge = 10 ** (bottom + 0.06 * (top - bottom))
        made.add_trace(_missing(result, names, lacking, edge, colours), row=1, col=1)
    if len(lacking) == len(names):  # axes are drawn where there is a trace
        made.add_trace(go.Scatter(x=[None], y=[None], showlegend=False), row=2, col=1)
        made.add_annotation(
            text=f"{_NONE}: nothing to measure a distance from",
            x=0.5,
            y=0.5,
            xref="x2 domain",
            yref="y2 domain",
            showarrow=False,
            font={"color": colours.muted},
        )
    made.add_hline(y=1, line={"color": colours.muted, "dash": "dash", "width": 1.5}, row=1, col=1)
    if token is not None and token in numbers:
        made.add_vline(
            x=numbers.index(token), line={"color": colours.accent, "width": 1, "dash": "dot"}
        )
    positions, shown = _labels.row_ticks(names, _WIDTH)
    made.update_xaxes(range=[-0.7, len(names) - 0.3], tickvals=positions, ticktext=shown)
    made.update_xaxes(title="token", tickangle=-45, row=2, col=1)
    made.update_xaxes(showticklabels=False, row=1, col=1)
    made.update_yaxes(title="spectral radius", **axis, row=1, col=1)
    made.update_yaxes(
        title="distance / norm", **_labels.decade_axis(np.maximum(distance, low)), row=2, col=1
    )
    made.update_layout(
        legend={"orientation": "h", "x": 0, "y": -0.24, "yanchor": "top"}, margin={"b": 120}
    )
    return made


def _radius_axis(radius: np.ndarray) -> dict[str, Any]:
    """Return settings of the axis of the spectral radius, which has 1 on it."""
    known = np.append(radius[np.isfinite(radius)], 1.0)
    low, high = 0.75 * known.min(), 1.3 * known.max()
    ticks = _TICKS if high > 5 * low else _CLOSE_TICKS
    return {
        "type": "log",
        "range": [float(np.log10(low)), float(np.log10(high))],
        "tickvals": ticks,
        "ticktext": [_labels.number(tick) for tick in ticks],
    }


def _drawn_low(distance: np.ndarray) -> float:
    """Return where a distance of zero is drawn: it has no logarithm."""
    positive = distance[np.isfinite(distance) & (distance > 0)]
    return float(positive.min()) if len(positive) else 1e-7


def _missing(
    result: xr.Dataset, names: list[str], rows: np.ndarray, edge: float, colours: _theme.Palette
) -> go.Scatter:
    status = result["status"].values
    least, wanted = result["least_residual"].values, result["wanted_residual"].values
    text = [
        f"{names[row]}<br>{_WHY.get(str(status[row]), str(status[row]))}"
        f"<br>best residual {_labels.number(float(least[row]))}, "
        f"wanted {_labels.number(float(wanted[row]))}"
        for row in rows
    ]
    return go.Scatter(
        x=rows,
        y=np.full(len(rows), edge),
        mode="markers",
        name=_NONE,
        showlegend=True,
        text=text,
        marker={
            "symbol": "x-thin-open",
            "size": 10,
            "color": colours.muted,
            "line": {"width": 2, "color": colours.muted},
        },
        hovertemplate="%{text}<extra></extra>",
    )


def _hover(result: xr.Dataset, names: list[str]) -> list[list[str]]:
    """Return what is known of every point, in words."""
    wanted = ("eigenvalue_real", "eigenvalue_imag", "radius", "distance", "residual", "basin")
    columns = {name: result[name].transpose("token", "point").values for name in wanted}
    method = result["method"].transpose("token", "point").values
    starts = result.attrs["starts"]

    def words(row: int, place: int) -> str:
        real, imaginary, size, away, residual, basin = (
            columns[name][row, place] for name in wanted
        )
        turn = f" ± {_labels.number(float(imaginary))}i" if imaginary else ""
        lines = [
            names[row],
            f"leading eigenvalue {_labels.number(float(real))}{turn}, "
            f"modulus {_labels.number(float(size), digits=4)}",
            f"{_labels.number(float(away))} of its norm from the recorded state",
            f"residual {_labels.number(float(residual))} ({method[row, place]})",
        ]
        if starts and basin >= 0:
            lines.append(f"iteration takes {int(basin)} of {starts} random starts there")
        return "<br>".join(lines)

    return [[words(row, place) for place in range(method.shape[1])] for row in range(len(names))]
