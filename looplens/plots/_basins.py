"""In which basin every restart of every token of a prompt ends, and how far basins lie apart.

A basin has a colour and a symbol. Numbers come from the analysis ``basins``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from looplens import analysis
from looplens.plots import _heatmap, _labels, _select, _theme

_MOST_STYLES = 6  # basins with a style of their own


def basins(run: Any, prompt: int, *, theme: str = "light") -> _theme.Figure:
    """Show the basins of one prompt.

    Parameters
    ----------
    run : looplens.Run
        A run with at least two restarts.
    prompt : int
        Number of the prompt.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        Left, tokens against restarts with a mark for the basin; right, for tokens with several
        basins, the distance of the nearest two, beside the distance that counts as apart.

    Raises
    ------
    InputError
        If the prompt does not exist.
    AnalysisError
        If the run holds only one restart, or not all iterations.
    """
    prompt = _select.prompt(run, prompt)
    results = analysis.get(run, "basins")
    tokens = run.token_range(prompt)
    ways = float(results["prompt_basin_count"].isel(prompt=prompt))
    names = ["basin", "phase_shift", "basin_separation", "basin_tolerance", "undecided"]
    results = results[names].isel(token=tokens).load()
    parts = [f"prompt {prompt}", f"{run.restarts} restarts"]
    if np.isfinite(ways):
        parts.append(f"decided tokens together end in {ways:g} way{'s' if ways > 1 else ''}")
    if (results["undecided"].values == 1).any():
        parts.append("open diamonds are not decided yet")
    return basins_figure(
        results,
        labels=_labels.token_labels(run, tokens),
        subtitle=_labels.subtitle(run, *parts),
        theme=theme,
    )


def basins_figure(
    results: xr.Dataset, *, labels: list[str], subtitle: str = "", theme: str = "light"
) -> _theme.Figure:
    """Draw basins from labelled arrays.

    Parameters
    ----------
    results : Dataset
        ``basin`` and ``phase_shift`` (token, restart); ``basin_separation``, ``basin_tolerance``
        and ``undecided`` (token).
    labels : list of str
        One label a token.
    subtitle, theme : str
        Words and template.
    """
    colours = _theme.palette(theme)
    pixels = _heatmap.plot_height(len(labels))
    made = _theme.figure(
        title="Basins of restarts", subtitle=subtitle, theme=theme, height=pixels + 190
    )
    make_subplots(
        rows=1,
        cols=2,
        shared_yaxes=True,
        column_widths=[0.62, 0.38],
        horizontal_spacing=0.06,
        figure=made,
    )
    _add_marks(made, results, labels, colours)
    _add_distances(made, results, labels, colours)
    positions, texts = _labels.row_ticks(labels, pixels)
    made.update_yaxes(range=[len(labels) - 0.5, -0.5])
    made.update_yaxes(title="token", tickvals=positions, ticktext=texts, col=1)
    restarts = results.sizes["restart"]
    made.update_xaxes(title="restart", range=[-0.5, restarts - 0.5], col=1)
    if restarts <= 16:
        made.update_xaxes(tickvals=list(range(restarts)), col=1)
    made.update_layout(
        legend={"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"}, margin={"t": 110}
    )
    return made


def _add_marks(
    made: _theme.Figure, results: xr.Dataset, labels: list[str], colours: _theme.Palette
) -> None:
    """Mark the basin of every token and restart."""
    basin = results["basin"].transpose("token", "restart").values
    shift = results["phase_shift"].transpose("token", "restart").values
    style = np.minimum(basin, _MOST_STYLES - 1)
    kind = go.Scattergl if basin.size > _theme.WEBGL_POINTS else go.Scatter
    for number in range(_MOST_STYLES):
        rows, columns = np.nonzero(style == number)
        if not rows.size:
            continue
        several = number == _MOST_STYLES - 1 and (basin > style).any()
        hover = [
            f"{labels[row]}<br>restart {column}<br>basin {basin[row, column]:g}"
            + (f"<br>{_phase(shift[row, column])}" if np.isfinite(shift[row, column]) else "")
            for row, column in zip(rows, columns, strict=True)
        ]
        made.add_trace(
            kind(
                x=columns,
                y=rows,
                mode="markers",
                name=f"basin {number}" + (" and further" if several else ""),
                marker={
                    "symbol": _theme.TOKEN_SYMBOLS[number],
                    "color": colours.categories[number],
                    "size": 9,
                },
                text=hover,
                hovertemplate="%{text}<extra></extra>",
            ),
            row=1,
            col=1,
        )


def _phase(shift: float) -> str:
    if abs(shift) < 0.05:
        return "in phase with the first restart there"
    side = "ahead of" if shift > 0 else "behind"
    return f"{_labels.number(abs(shift))} iterations {side} the first restart there"


def _add_distances(
    made: _theme.Figure, results: xr.Dataset, labels: list[str], colours: _theme.Palette
) -> None:
    """Draw how far basins are apart, and from which distance restarts count as apart."""
    rows = np.arange(len(labels))
    separation = results["basin_separation"].values
    undecided = results["undecided"].values == 1
    tolerance = results["basin_tolerance"].values
    for name, values, marker in (
        (
            "apart from here on",
            tolerance,
            {"symbol": "line-ns-open", "size": 9, "color": colours.muted},
        ),
        (
            "nearest two basins",
            np.where(undecided, np.nan, separation),
            {"symbol": "diamond", "size": 9, "color": colours.accent},
        ),
        (
            "nearest two, undecided",
            np.where(undecided, separation, np.nan),
            {"symbol": "diamond-open", "size": 9, "color": colours.accent},
        ),
    ):
        known = np.isfinite(values)
        if not known.any():
            continue
        made.add_trace(
            go.Scatter(
                x=values[known],
                y=rows[known],
                mode="markers",
                name=name,
                marker=marker,
                text=[labels[row] for row in rows[known]],
                hovertemplate=f"%{{text}}<br>{name} %{{x:.3g}}<extra></extra>",
            ),
            row=1,
            col=2,
        )
    axis = _labels.decade_axis(separation, tolerance)
    made.update_xaxes(title="distance over the norm", row=1, col=2, **axis)
