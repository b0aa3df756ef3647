"""The most probable tokens after every iteration: a table of words that has the time across it.

The table is that of :func:`looplens.analysis.token_readout`; this module only writes it down.
"""

from __future__ import annotations

import html
from itertools import pairwise
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from looplens import analysis
from looplens.plots import _labels, _marks, _select, _theme

_MOST_RANKS = 10
_WIDTH, _LETTER = 440, 8  # of the table and of a letter, pixels, roughly
_ROW = 34
_DARK = 0.45  # probability above which a cell is darker, on dark paper lighter, than its words


def predictions(
    run: Any,
    token: int,
    restart: int = 0,
    *,
    iteration: int | None = None,
    theme: str = "light",
) -> _theme.Figure:
    """Show the most probable tokens after every iteration, and how sure the model is.

    Parameters
    ----------
    run : looplens.Run
        A run with readouts.
    token, restart : int
        Which trajectory.
    iteration : int or None
        Where the cursor stands; None keeps it out of sight.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        A table with one row a rank and one column an iteration; colour is the probability. A token
        that keeps its rank is written once, where there is room for it. The right answer is framed.
        Below, the entropy of the prediction.

    Raises
    ------
    InputError
        If there is no such token or restart.
    AnalysisError
        If the run has no readout.

    References
    ----------
    Geiping et al., arXiv 2502.05171, section 6; Lu et al., arXiv 2507.02199 (as summarised
    elsewhere).
    """
    token, restart = _select.token(run, token), _select.restart(run, restart)
    found = analysis.token_readout(run, token, restart)
    answer = found.attrs.get("target_text")
    right = "" if answer is None else f"right answer {_labels.written(answer)}"
    return predictions_figure(
        found,
        iteration=iteration,
        subtitle=_labels.of_prompt(run, token, f"restart {restart}", right),
        theme=theme,
    )


def predictions_figure(
    readout: xr.Dataset, *, iteration: int | None = None, subtitle: str = "", theme: str = "light"
) -> _theme.Figure:
    """Draw a dataset of :func:`looplens.analysis.token_readout`.

    Parameters
    ----------
    readout : Dataset
        ``token_id``, ``text``, ``probability`` (iteration, rank) and ``entropy`` (iteration).
    iteration, subtitle, theme
        See :func:`predictions`.
    """
    held = readout.sizes["rank"]
    if held > _MOST_RANKS:
        readout = readout.isel(rank=slice(_MOST_RANKS))
        subtitle = f"{subtitle} · the {_MOST_RANKS} best of {held} that were recorded"
    ids, probability = readout["token_id"].values.T, readout["probability"].values.T
    texts = [[_labels.written(text) for text in row] for row in readout["text"].values.T]
    times, ranks = readout["iteration"].values, len(ids)
    colours = _theme.palette(theme)
    made = _theme.figure(
        title="Most probable tokens after each iteration",
        subtitle=subtitle,
        theme=theme,
        height=int(np.clip(240 + _ROW * ranks, 320, 560)),
    )
    made = _rows(made, ranks)
    made.add_trace(
        go.Heatmap(
            name="predictions",
            z=np.round(probability.astype(np.float64), 6),
            x=times,
            y=np.arange(1, ranks + 1),
            text=np.array(texts, dtype=object),
            customdata=ids,
            zmin=0,
            zmax=1,
            colorscale=[list(stop) for stop in colours.from_paper],
            colorbar={
                "title": {"text": "probability"},
                "tickformat": ".0%",
                "len": 0.7,
                "y": 1,
                "yanchor": "top",
            },
            hovertemplate="iteration %{x}, rank %{y}<br>%{text} %{z:.2%}<br>token id %{customdata}"
            "<extra></extra>",
            hoverongaps=False,
            ygap=2,
        ),
        row=1,
        col=1,
    )
    _add_words(made, ids, texts, probability, _edges(times), colours)
    target = readout.attrs.get("target")
    if target is not None and (ids == target).any():
        _add_frames(made, ids == target, _edges(times), colours)
    made.add_trace(
        go.Scatter(
            name="entropy",
            x=times,
            y=readout["entropy"].values,
            mode="lines",
            line={"color": colours.text, "width": 2},
            showlegend=False,
            hovertemplate="iteration %{x}<br>entropy %{y:.3g} nats<extra></extra>",
        ),
        row=2,
        col=1,
    )
    for axis in ("", "2"):
        _marks.add_line(made, iteration, colours, axis=axis)
    edges = _edges(times)
    made.update_xaxes(range=[edges[0], edges[-1]], showgrid=False)
    made.update_xaxes(title="iteration", row=2, col=1)
    made.update_yaxes(title="rank", range=[ranks + 0.5, 0.5], dtick=1, showgrid=False, row=1, col=1)
    made.update_yaxes(title="entropy", rangemode="tozero", nticks=3, row=2, col=1)
    made.update_layout(
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"}, margin={"t": 104}
    )
    return made


def _rows(made: _theme.Figure, ranks: int) -> _theme.Figure:
    """Lay out the table over the slim curve below it."""
    make_subplots(
        rows=2,
        cols=1,
        shared_xaxes=True,
        row_heights=[max(0.62, ranks / (ranks + 3)), 1 - max(0.62, ranks / (ranks + 3))],
        vertical_spacing=0.06,
        figure=made,
    )
    return made


def _edges(times: np.ndarray) -> np.ndarray:
    """Return where cells begin and end: half way to their neighbours."""
    times = np.asarray(times, dtype=np.float64)
    steps = np.diff(times) if len(times) > 1 else np.ones(1)
    between = times[:-1] + steps[: len(times) - 1] / 2
    return np.concatenate([[times[0] - steps[0] / 2], between, [times[-1] + steps[-1] / 2]])


def _add_words(
    made: _theme.Figure,
    ids: np.ndarray,
    texts: list[list[str]],
    probability: np.ndarray,
    edges: np.ndarray,
    colours: _theme.Palette,
) -> None:
    """Write each token once for as long as it keeps its rank, where there is room."""
    pixels = _WIDTH / (edges[-1] - edges[0])
    places: dict[bool, list[tuple[float, int, str]]] = {False: [], True: []}
    for row, (of_rank, words) in enumerate(zip(ids, texts, strict=True)):
        breaks = [0, *(np.flatnonzero(np.diff(of_rank)) + 1).tolist(), len(of_rank)]
        for start, stop in pairwise(breaks):
            room = (edges[stop] - edges[start]) * pixels
            if of_rank[start] >= 0 and room >= _LETTER * len(html.unescape(words[start])):
                middle = (edges[start] + edges[stop]) / 2
                at = int(np.searchsorted(edges, middle)) - 1
                dark = bool(probability[row, min(max(at, start), stop - 1)] > _DARK)
                places[dark].append((middle, row + 1, words[start]))
    for dark, several in places.items():
        if several:
            x, y, written = zip(*several, strict=True)
            made.add_trace(
                go.Scatter(
                    name="words",
                    x=x,
                    y=y,
                    text=written,
                    mode="text",
                    textfont={"size": 13, "color": colours.paper if dark else colours.text},
                    hoverinfo="skip",
                    showlegend=False,
                ),
                row=1,
                col=1,
            )


def _add_frames(
    made: _theme.Figure, there: np.ndarray, edges: np.ndarray, colours: _theme.Palette
) -> None:
    """Frame the cells of the right answer."""
    x: list[float | None] = []
    y: list[float | None] = []
    for row, cells in enumerate(there, start=1):
        inside = np.concatenate([[0], cells.astype(int), [0]])
        for start, stop in np.flatnonzero(np.diff(inside)).reshape(-1, 2):
            left, right = float(edges[start]), float(edges[stop])
            x += [left, right, right, left, left, None]
            y += [row - 0.45, row - 0.45, row + 0.45, row + 0.45, row - 0.45, None]
    made.add_trace(
        go.Scatter(
            name="right answer",
            x=x,
            y=y,
            mode="lines",
            line={"color": colours.categories[2], "width": 2.5},
            hoverinfo="skip",
        ),
        row=1,
        col=1,
    )
