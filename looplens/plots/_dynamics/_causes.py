"""Tokens that go on moving: which do so by themselves, which are driven, and by which other.

The numbers are those of :func:`looplens.dynamics.causes`, which needs the live model.
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

_KINDS = {  # cause: symbol, and which of the categories
    "own": ("diamond", 1),
    "both": ("star", 3),
    "driven": ("circle", 0),
    "together": ("square", 2),
    "comes to rest": ("circle-open", 2),
    "unexplained": ("x", 4),
}
_WIDTH = 640  # pixels that the tokens share
_LEAST = 1e-12  # amplitude that is drawn; less is rounding


def causes(run: Any, token: int | None = None, *, theme: str = "light") -> _theme.Figure:
    """Show why the tokens of a prompt move.

    Parameters
    ----------
    run : looplens.Run
        A run with a stored ``dynamics/causes``.
    token : int or None
        Token number in the run, marked in the figure; None for the first that was examined.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        Above, the amplitude of every token on a logarithmic axis, with a symbol for the cause;
        below, the largest modulus among the eigenvalues of its own block at its fixed point: by
        itself a token moves where that lies above 1. Dotted lines stand at tokens that drive.

    Raises
    ------
    InputError
        If the run has no such token.
    AnalysisError
        If nothing is stored, or not of this token.
    """
    found, token = _stored.stored(run, "causes", token)
    prompt = int(run.tokens["prompt"].values[token])
    found = found.isel(token=found["prompt"].values == prompt)
    labels = _labels.token_labels(run, found["token"].values.tolist(), position=True)
    return causes_figure(
        found, token, labels=labels, subtitle=_labels.subtitle(run, f"prompt {prompt}"), theme=theme
    )


def causes_figure(
    result: xr.Dataset,
    token: int | None = None,
    *,
    labels: Sequence[str] | None = None,
    subtitle: str = "",
    theme: str = "light",
) -> _theme.Figure:
    """Draw a result of :func:`looplens.dynamics.causes`.

    Parameters
    ----------
    result : Dataset
        Over ``token``.
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
    made = _theme.figure(title="Why tokens move", subtitle=subtitle, theme=theme, height=580)
    if not numbers:
        made.add_annotation(
            text="no token moves", x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False
        )
        return made
    made = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08, figure=made)
    words = np.array([str(word) for word in result["cause"].values])
    amplitude = np.maximum(result["amplitude"].values, _LEAST)
    radius = np.maximum(result["radius"].values, 1e-3)
    for word, (symbol, category) in _KINDS.items():
        rows = np.flatnonzero(words == word)
        if not len(rows):
            continue
        colour = colours.categories[category]
        for place, values in ((1, amplitude), (2, radius)):
            made.add_trace(
                go.Scatter(
                    x=rows,
                    y=values[rows],
                    mode="markers",
                    name=word,
                    legendgroup=word,
                    showlegend=place == 1,
                    text=[_said(result, row, names[row], numbers, names) for row in rows.tolist()],
                    marker={
                        "symbol": symbol,
                        "size": 13 if word in ("own", "both") else 8,
                        "color": colour,
                        "line": {"width": 1, "color": colour},
                    },
                    hovertemplate="%{text}<extra></extra>",
                    meta={"tokens": [numbers[row] for row in rows]},
                ),
                row=place,
                col=1,
            )
    for driver in sorted(set(result["driver"].values.tolist()) & set(numbers)):
        made.add_vline(
            x=numbers.index(driver),
            line={"color": colours.muted, "width": 1.5, "dash": "dot"},
            layer="below",
        )
    if token is not None and token in numbers:
        made.add_vline(x=numbers.index(token), line={"color": colours.text, "width": 1})
    made.add_hline(y=1, line={"color": colours.muted, "dash": "dash", "width": 1.5}, row=2, col=1)
    places, shown = _labels.row_ticks(names, _WIDTH)
    made.update_xaxes(range=[-0.7, len(names) - 0.3], tickvals=places, ticktext=shown)
    made.update_xaxes(title="token", tickangle=-45, row=2, col=1)
    made.update_xaxes(showticklabels=False, row=1, col=1)
    made.update_yaxes(title="amplitude, relative", **_labels.log_axis(amplitude), row=1, col=1)
    ticks = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10]
    made.update_yaxes(title="spectral radius", type="log", tickvals=ticks, row=2, col=1)
    made.update_layout(
        legend={"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"}, margin={"t": 104}
    )
    return made


def _said(
    result: xr.Dataset, row: Any, name: str, numbers: Sequence[int], names: Sequence[str]
) -> str:
    """Return what a marker says when it is pointed at."""
    part = result.isel(token=row)
    lines = [name, f"{part['cause'].item()}: amplitude {float(part['amplitude']):.2g}"]
    driver = int(part["driver"])
    if driver >= 0:
        by = names[numbers.index(driver)] if driver in numbers else f"token {driver}"
        lines.append(f"driven by {by} by {float(part['drive']):.2g}")
    lines.append(f"radius of its own block {float(part['radius']):.4g}")
    return "<br>".join(lines)
