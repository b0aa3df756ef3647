"""A heat map shared by the figures that have rows over iterations: logarithmic, or of shares.

plotly colours heat maps linearly, so the base-10 logarithm is drawn and the true value goes into
the hover text and the colour bar. Where the numbers come from is the caller's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from looplens.plots import _labels, _theme

_ROW_PIXELS = 20
_LEAST_PIXELS = 200
_MOST_PIXELS = 900
_MOST_LABELLED = 50_000


def plot_height(rows: int) -> int:
    """Return the height in pixels of a plot area with that many rows."""
    return int(np.clip(rows * _ROW_PIXELS, _LEAST_PIXELS, _MOST_PIXELS))


def log_values(values: np.ndarray) -> np.ndarray:
    """Return base-10 logarithms, with exact zeros drawn like the smallest positive value.

    A state that no longer moves at all has a step of exactly 0. That is the best converged
    cell there is and must not look like a missing one, which NaN (not finite) does.
    """
    values = np.asarray(values, dtype=np.float64)
    positive = values[np.isfinite(values) & (values > 0)]
    smallest = positive.min() if positive.size else 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithms = np.log10(np.where(values == 0, smallest, values))
    return np.where(np.isfinite(logarithms), logarithms, np.nan)


def log_heatmap(
    values: np.ndarray,
    iterations: np.ndarray,
    rows: Sequence[str],
    *,
    value_title: str,
    row_title: str,
    title: str,
    subtitle: str = "",
    theme: str = "light",
) -> _theme.Figure:
    """Draw rows over iterations with a logarithmic colour scale.

    Parameters
    ----------
    values : ndarray, shape (rows, iterations)
        Non-negative; NaN cells stay empty.
    iterations : ndarray, shape (iterations,)
        Iteration numbers of the columns.
    rows : sequence of str
        One label a row, drawn from the top down.
    value_title, row_title : str
        What the colour and the rows mean.
    title, subtitle, theme : str
        See :func:`looplens.plots._theme.figure`.

    Returns
    -------
    Figure
        With one heat map named ``"values"``; the row axis is numeric, 0 at the top.
    """
    values = np.asarray(values, dtype=np.float64)
    logarithms = log_values(values).astype(np.float32)  # half the size of the page
    finite = logarithms[np.isfinite(logarithms)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (-1.0, 0.0)
    if high - low < 1:  # less than a decade: widen it, so that the colour bar has ticks
        low, high = np.floor(low), np.ceil(high + 1e-9)
    exponents, texts = _labels.decade_ticks(low, high)
    return _heatmap(
        {
            "z": logarithms,
            "customdata": values.astype(np.float32),
            "zmin": low,
            "zmax": high,
            "colorscale": [list(stop) for stop in _theme.palette(theme).sequential],
            "colorbar": {"tickvals": exponents, "ticktext": texts},
        },
        "%{customdata:.3g}",
        iterations,
        rows,
        value_title=value_title,
        row_title=row_title,
        title=title,
        subtitle=subtitle,
        theme=theme,
    )


def share_heatmap(
    values: np.ndarray,
    iterations: np.ndarray,
    rows: Sequence[str],
    *,
    value_title: str,
    row_title: str,
    title: str,
    subtitle: str = "",
    theme: str = "light",
) -> _theme.Figure:
    """Draw rows over iterations with a colour scale of shares from 0 to 1; 1 is dark, as settled.

    Parameters
    ----------
    values : ndarray, shape (rows, iterations)
        Between 0 and 1; NaN cells stay empty.
    iterations, rows, value_title, row_title, title, subtitle, theme
        As for :func:`log_heatmap`.
    """
    colours = _theme.palette(theme)
    return _heatmap(
        {
            "z": np.asarray(values, dtype=np.float32),
            "zmin": 0,
            "zmax": 1,
            "colorscale": [[1 - stop, colour] for stop, colour in reversed(colours.sequential)],
            "colorbar": {"tickformat": ".0%"},
        },
        "%{z:.0%}",
        iterations,
        rows,
        value_title=value_title,
        row_title=row_title,
        title=title,
        subtitle=subtitle,
        theme=theme,
    )


def _heatmap(
    look: dict[str, Any],
    number: str,
    iterations: np.ndarray,
    rows: Sequence[str],
    *,
    value_title: str,
    row_title: str,
    title: str,
    subtitle: str,
    theme: str,
) -> _theme.Figure:
    """Draw rows over iterations; `look` has values and colours, `number` how a value is written."""
    # A label a cell is dear: long prompts go by the number of the row.
    named = look["z"].size <= _MOST_LABELLED
    pixels = plot_height(len(rows))
    made = _theme.figure(title=title, subtitle=subtitle, theme=theme, height=pixels + 170)
    colours = _theme.palette(theme)
    made.add_trace(
        go.Heatmap(
            name="values",
            x=np.asarray(iterations),
            y=np.arange(len(rows)),
            **({"text": [[label] * len(iterations) for label in rows]} if named else {}),
            **look | {"colorbar": {"title": {"text": value_title}, **look["colorbar"]}},
            hovertemplate=(
                ("%{text}" if named else f"{row_title} %{{y}}")
                + f"<br>iteration %{{x}}<br>{value_title} {number}<extra></extra>"
            ),
            hoverongaps=False,
            ygap=1 if len(rows) <= 30 else 0,
        )
    )
    positions, labels = _labels.row_ticks(rows, pixels)
    made.update_yaxes(
        title=row_title,
        tickvals=positions,
        ticktext=labels,
        range=[len(rows) - 0.5, -0.5],
        showgrid=False,
    )
    # Cells end half way to their neighbours, which may be several iterations away.
    steps = np.diff(iterations) if len(iterations) > 1 else np.ones(1)
    ends = [iterations[0] - steps[0] / 2, iterations[-1] + steps[-1] / 2]
    made.update_xaxes(title="iteration", range=ends, showgrid=False)
    made.update_layout(plot_bgcolor=colours.missing, margin={"t": 104, "b": 60})
    return made


def add_row_markers(
    made: _theme.Figure, positions: np.ndarray, *, name: str, theme: str, hover: Sequence[Any]
) -> None:
    """Mark one iteration in each row, where it is defined.

    Parameters
    ----------
    made : Figure
        A figure of :func:`log_heatmap`.
    positions : ndarray, shape (rows,)
        Iteration to mark; NaN rows get no mark.
    name : str
        Legend entry.
    theme : str
        Theme of the figure.
    hover : sequence
        Text a row.
    """
    positions = np.asarray(positions, dtype=np.float64)
    defined = np.flatnonzero(np.isfinite(positions)).tolist()
    few = len(positions) <= 60
    made.add_trace(
        go.Scatter(
            name=name,
            x=positions[defined],
            y=defined,
            text=[hover[row] for row in defined],
            mode="markers",
            marker={
                "symbol": "circle",
                "size": 8 if few else 5,
                "color": "#ffffff",
                "line": {"width": 2 if few else 1, "color": "#1f2430"},
            },
            hovertemplate="%{text}<extra></extra>",
            showlegend=True,
        )
    )
    made.update_layout(
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.0, "yanchor": "bottom"}
    )
