"""Where the predictions of a prompt change, and whether they were right before and after.

The changes are those of :func:`looplens.analysis.prediction_changes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from looplens import analysis
from looplens.plots import _labels, _marks, _palette, _select, _theme

MOST_TOKENS = 240
"""Rows that are drawn at once; of a longer prompt those around the selected token."""

_MOST_SYMBOLS = 1500
_KINDS = (
    ("to right", "triangle-up", 2),
    ("from right", "x", 1),
    ("wrong to wrong", "circle", 3),
    ("no answer known", "circle-open", 0),
)


def flips(
    run: Any,
    prompt: int,
    restart: int = 0,
    *,
    token: int | None = None,
    iteration: int | None = None,
    theme: str = "light",
) -> _theme.Figure:
    """Show where the predictions after the tokens of a prompt change.

    Parameters
    ----------
    run : looplens.Run
        A run with readouts.
    prompt, restart : int
        Which prompt and which draw of the initial state.
    token : int or None
        Global number of a token whose row is framed; of a long prompt the rows around it are shown.
    iteration : int or None
        Where the cursor stands; None keeps it out of sight.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        Above, how many predictions change at each iteration; below, tokens by iterations with a
        symbol for every change, darker where the prediction is right.

    Raises
    ------
    InputError
        If there is no such prompt, token or restart.
    AnalysisError
        If the run has no readout.

    References
    ----------
    Zhu et al., arXiv 2510.25741 (agreement of predictions between steps).
    """
    prompt, restart = _select.prompt(run, prompt), _select.restart(run, restart)
    span = run.token_range(prompt)
    shown, note = _select.window(span, token, MOST_TOKENS)
    return flips_figure(
        analysis.prediction_changes(run, shown, restart),
        labels=_labels.token_labels(run, shown, position=True),
        token=token,
        iteration=iteration,
        subtitle=_labels.subtitle(run, f"prompt {prompt}", f"restart {restart}", note),
        theme=theme,
    )


def flips_figure(
    changes: xr.Dataset,
    *,
    labels: Sequence[str],
    token: int | None = None,
    iteration: int | None = None,
    subtitle: str = "",
    theme: str = "light",
) -> _theme.Figure:
    """Draw a dataset of :func:`looplens.analysis.prediction_changes`.

    Parameters
    ----------
    changes : Dataset
        ``text``, ``changed``, ``right`` (token, iteration) and ``changes`` (iteration).
    labels : sequence of str
        One a token.
    token, iteration, subtitle, theme
        See :func:`flips`.
    """
    colours = _theme.palette(theme)
    rows = len(labels)
    height = int(np.clip(250 + _labels.PIXELS_PER_ROW * rows, 320, 560))
    made = _theme.figure(
        title="Where predictions change", subtitle=subtitle, theme=theme, height=height
    )
    make_subplots(
        rows=2,
        cols=1,
        shared_xaxes=True,
        row_heights=[0.2, 0.8],
        vertical_spacing=0.04,
        figure=made,
    )
    times = changes["iteration"].values
    made.add_trace(
        go.Bar(
            name="changes",
            x=times,
            y=changes["changes"].values,
            marker={"color": colours.muted},
            showlegend=False,
            hovertemplate="iteration %{x}<br>%{y} predictions change<extra></extra>",
        ),
        row=1,
        col=1,
    )
    right, changed = changes["right"].values, changes["changed"].values
    _add_cells(made, changes, list(labels), colours)
    kinds = _kinds(right, changed)
    for kind, (name, symbol, colour) in enumerate(_KINDS):
        where = np.argwhere(kinds == kind)
        if len(where):
            made.add_trace(
                _scatter(len(where))(
                    name=f"{name} ({len(where)})",
                    x=times[where[:, 1]],
                    y=where[:, 0],
                    mode="markers",
                    marker={
                        "symbol": symbol,
                        "size": 7 if len(where) < _MOST_SYMBOLS else 4,
                        "color": colours.categories[colour],
                    },
                    hoverinfo="skip",
                ),
                row=2,
                col=1,
            )
    for axis in ("", "2"):
        _marks.add_line(made, iteration, colours, axis=axis)
    numbers = changes["token"].values
    _marks.add_row(made, slice(int(numbers[0]), int(numbers[-1]) + 1), token, colours, axis="2")
    positions, texts = _labels.row_ticks(labels, 0.7 * (height - 150))
    made.update_xaxes(range=[times[0] - 0.5, times[-1] + 0.5], showgrid=False)
    made.update_xaxes(title="iteration", row=2, col=1)
    made.update_yaxes(title="changes", nticks=3, rangemode="tozero", row=1, col=1)
    made.update_yaxes(
        title="token",
        tickvals=positions,
        ticktext=texts,
        range=[rows - 0.5, -0.5],
        showgrid=False,
        row=2,
        col=1,
    )
    made.update_layout(
        legend={"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom"},
        margin={"t": 124},
        bargap=0.1,
    )
    return made


def _scatter(points: int) -> Any:
    return go.Scattergl if points > _theme.WEBGL_POINTS else go.Scatter


def _kinds(right: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """Return for every cell the place in `_KINDS`, -1 where nothing changes."""
    before = np.full(right.shape, np.nan)
    before[:, 1:] = right[:, :-1]
    kind = np.select([np.isnan(right), right == 1, before == 1], [3, 0, 1], default=2)
    return np.where(changed, kind, -1)


def _add_cells(
    made: _theme.Figure, changes: xr.Dataset, labels: list[str], colours: _theme.Palette
) -> None:
    """Draw the cells behind the symbols: right, wrong, or without a right answer."""
    right, texts = changes["right"].values, changes["text"].values
    of_text = {text: _labels.written(text) for text in np.unique(texts.astype(str))}
    words = {0: "wrong", 1: "right"}
    hover = [
        [
            f"{label}: {of_text[text]}" + (f", {words[int(is_right)]}" if is_right >= 0 else "")
            for text, is_right in zip(row, of_row, strict=True)
        ]
        for label, row, of_row in zip(labels, texts, right, strict=True)
    ]
    light = colours.from_paper[1][1]
    made.add_trace(
        go.Heatmap(
            name="predictions",
            z=np.where(np.isnan(right), -1, right),
            x=changes["iteration"].values,
            y=np.arange(len(labels)),
            text=np.array(hover, dtype=object),
            zmin=-1,
            zmax=1,
            colorscale=_palette.steps((colours.missing, colours.paper, light)),
            showscale=False,
            hovertemplate="iteration %{x}<br>%{text}<extra></extra>",
        ),
        row=2,
        col=1,
    )
    if (right == 1).any():
        made.add_trace(
            go.Scatter(
                name="right",
                x=[None],
                y=[None],
                mode="markers",
                marker={"symbol": "square", "size": 12, "color": light},
            ),
            row=2,
            col=1,
        )
