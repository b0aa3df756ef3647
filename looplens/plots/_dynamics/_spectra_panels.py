"""The panels of the figure of spectra: the complex plane, rates, and periods."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from looplens.plots import _theme

_BAND = 0.05  # relative difference of rates that the band allows
_LEAST_RATE = 1e-3
_RATE_TICKS = [0.001, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2]
_CLOSE_TICKS = [*_RATE_TICKS, 0.05, 0.07, 0.15, 0.25, 0.4, 0.6, 0.8, 0.9, 1.1, 1.2, 3, 5]


def _symbol(style: _theme.RegimeStyle) -> str:
    """Return a symbol that can be filled."""
    return "x" if style.symbol.startswith("x") else style.symbol


def add_plane(
    made: go.Figure,
    part: xr.Dataset,
    names: list[str],
    mark: int | None,
    style: _theme.RegimeStyle,
    colours: _theme.Palette,
) -> None:
    """Draw the upper half of the complex plane, with the unit circle."""
    arc = np.linspace(0, np.pi, 181)
    line = {"color": colours.axis, "width": 1.5}
    circle = go.Scatter(x=np.cos(arc), y=np.sin(arc), mode="lines", line=line, hoverinfo="skip")
    circle.name = "unit circle: motion lasts"
    made.add_trace(circle, 1, 1)
    real, imag = (part[f"eigenvalue_{half}"].values for half in ("real", "imag"))
    every = real + 1j * np.abs(imag)
    around = part["multiplier_real"].values + 1j * np.abs(part["multiplier_imag"].values)
    at = [str(word) for word in part["at"].values]
    tokens = part["token"].values
    for name, values, marker in (
        (
            "other eigenvalues",
            every[:, 1:],
            {"symbol": "circle-open", "size": 5, "color": colours.muted, "opacity": 0.7},
        ),
        (
            "leading eigenvalue",
            every[:, :1],
            {"symbol": _symbol(style), "size": 10, "color": style.colour, "opacity": 0.85},
        ),
        (
            "Floquet multiplier of the cycle",
            around[:, :1],
            {"symbol": "square-open", "size": 9, "color": colours.categories[3], "line_width": 2},
        ),
    ):
        rows, places = np.nonzero(np.isfinite(values))
        if not len(rows):
            continue
        shown = values[rows, places]
        # Of one motion that many tokens share, all multipliers may lie in one place.
        made.add_trace(
            go.Scatter(
                x=shown.real,
                y=shown.imag,
                mode="markers",
                name=name,
                text=[f"{names[row]}<br>{at[row]}" for row in rows],
                customdata=np.abs(shown),
                marker=marker,
                hovertemplate="%{text}<br>%{x:.4f} ± %{y:.4f} i<br>modulus %{customdata:.4f}"
                "<extra></extra>",
                meta={"tokens": tokens[rows].tolist()},
            ),
            1,
            1,
        )
    if mark is not None:
        _ring(made, [every[mark, 0].real], [every[mark, 0].imag], colours, 1, 1, named=True)
    points = np.concatenate([every.ravel(), around[:, 0]])
    points = points[np.isfinite(points)]
    left, right = min(-1.08, 1.08 * points.real.min()), max(1.08, 1.08 * points.real.max())
    top = max(1.08, 1.08 * points.imag.max())
    made.update_xaxes(title="real part", range=[left, right], constrain="domain", row=1, col=1)
    made.update_yaxes(
        title="imaginary part",
        range=[-0.06 * top, top],
        scaleanchor="x",
        constrain="domain",
        row=1,
        col=1,
    )


def add_rates(
    made: go.Figure,
    part: xr.Dataset,
    names: list[str],
    mark: int | None,
    style: _theme.RegimeStyle,
    colours: _theme.Palette,
) -> None:
    """Draw rates against the predicted one, with the band in which they agree."""
    predicted = part["predicted_rate"].values
    kinds = (
        ("rate in the recording", "recorded_rate", "circle-open", colours.muted, 6),
        ("measured rate", "measured_rate", "triangle-up", style.colour, 9),
        ("rate when run again", "replayed_rate", "diamond-open", colours.text, 10),
    )
    drawn = []
    for name, variable, symbol, colour, size in kinds:
        if variable not in part:  # a result of an earlier version
            continue
        values = part[variable].values
        known = np.isfinite(predicted) & np.isfinite(values) & (predicted > 0) & (values > 0)
        if not known.any():
            continue
        drawn += [predicted[known], values[known]]
        made.add_trace(
            go.Scatter(
                x=predicted[known],
                y=values[known],
                mode="markers",
                name=name,
                text=[names[row] for row in np.flatnonzero(known)],
                marker={"symbol": symbol, "size": size, "color": colour, "opacity": 0.85},
                hovertemplate="%{text}<br>predicted %{x:.4f}<br>"
                + name
                + " %{y:.4f}<extra></extra>",
                meta={"tokens": part["token"].values[known].tolist()},
            ),
            2,
            1,
        )
    made.update_xaxes(title="predicted rate", row=2, col=1)
    made.update_yaxes(title="rate", row=2, col=1)
    if not drawn:
        turning = bool(np.isfinite(part["detected_period"].values).any())
        _say(made, "no rate is predicted:<br>the motion does not return", 0.2 if turning else 0.5)
        return
    every = np.concatenate(drawn)
    low, high = max(every.min() / 1.25, _LEAST_RATE), every.max() * 1.25
    ends = np.array([low, high])
    band = go.Scatter(
        x=np.concatenate([ends, ends[::-1]]),
        y=np.concatenate([ends * (1 + _BAND), ends[::-1] * (1 - _BAND)]),
        fill="toself",
        mode="lines",
        line={"width": 0},
        fillcolor=colours.grid,
        opacity=0.7,
        name="equal, within 5\u202f%",
        hoverinfo="skip",
    )
    made.add_trace(band, 2, 1)
    made.data = (made.data[-1], *made.data[:-1])  # behind the markers
    if mark is not None and np.isfinite(part["measured_rate"].values[mark] * predicted[mark]):
        _ring(made, [predicted[mark]], [part["measured_rate"].values[mark]], colours, 2, 1)
    ticks = _RATE_TICKS if high > 3 * low else _CLOSE_TICKS
    axis = {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
    limits = np.log10(ends).tolist()
    made.update_xaxes(**axis, range=limits, row=2, col=1)
    made.update_yaxes(**axis, range=limits, row=2, col=1)


def add_periods(
    made: go.Figure,
    part: xr.Dataset,
    names: list[str],
    mark: int | None,
    style: _theme.RegimeStyle,
    colours: _theme.Palette,
) -> None:
    """Draw the detected period against the predicted one."""
    predicted, seen = part["predicted_period"].values, part["detected_period"].values
    known = np.isfinite(predicted) & np.isfinite(seen)
    made.update_xaxes(title="predicted period (iterations)", row=2, col=2)
    made.update_yaxes(title="detected period", row=2, col=2)
    if not known.any():
        _say(made, "no period is predicted", 0.82)
        return
    every = np.concatenate([predicted[known], seen[known]])
    ends = np.array([every.min() / 1.4, every.max() * 1.4])
    made.add_trace(
        go.Scatter(
            x=ends,
            y=ends,
            mode="lines",
            line={"color": colours.axis, "width": 1.5, "dash": "dash"},
            showlegend=False,
            hoverinfo="skip",
        ),
        2,
        2,
    )
    made.add_trace(
        go.Scatter(
            x=predicted[known],
            y=seen[known],
            mode="markers",
            name="period",
            showlegend=False,
            text=[names[row] for row in np.flatnonzero(known)],
            marker={"symbol": _symbol(style), "size": 9, "color": style.colour, "opacity": 0.85},
            hovertemplate="%{text}<br>predicted %{x:.3g}<br>detected %{y:.3g}<extra></extra>",
            meta={"tokens": part["token"].values[known].tolist()},
        ),
        2,
        2,
    )
    if mark is not None and known[mark]:
        _ring(made, [predicted[mark]], [seen[mark]], colours, 2, 2)
    axis = {"type": "log", "tickvals": [2, 4, 8, 16, 32, 64, 128, 256]}
    axis["range"] = np.log10(ends).tolist()
    made.update_xaxes(**axis, row=2, col=2)
    made.update_yaxes(**axis, row=2, col=2)


def _ring(
    made: go.Figure,
    x: list[float],
    y: list[float],
    colours: _theme.Palette,
    row: int,
    col: int,
    *,
    named: bool = False,
) -> None:
    marker = {"symbol": "circle-open", "size": 18, "color": colours.text, "line": {"width": 2}}
    made.add_trace(
        go.Scatter(
            x=x,
            y=y,
            mode="markers",
            name="this token",
            marker=marker,
            showlegend=named,
            hoverinfo="skip",
        ),
        row,
        col,
    )


def _say(made: go.Figure, text: str, x: float) -> None:
    made.add_annotation(text=text, x=x, y=0.2, xref="paper", yref="paper", showarrow=False)
