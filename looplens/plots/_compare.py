"""Two runs of the same prompts: what differs, by how much, and which tokens changed sides.

The numbers are those of a :class:`looplens.analysis.Comparison`; nothing is computed here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from looplens.errors import InputError, near_matches
from looplens.plots import _labels, _theme

_MOST_ROWS = 24
_ROW = 24


def compare_forest(comparison: Any, *, theme: str = "light") -> _theme.Figure:
    """Show the largest differences between two runs, with their intervals.

    Each row is a mean difference over tokens, b - a, in standard deviations of the tokens of both
    runs together, so that numbers of different units share an axis; ±2 is complete separation.
    Filled diamonds have an interval that leaves out 0.

    Parameters
    ----------
    comparison : looplens.analysis.Comparison
        Result of `looplens.analysis.compare`.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        At most 24 rows, the largest first; see `looplens.analysis.Comparison.largest`.
    """
    colours = _theme.palette(theme)
    rows = comparison.largest(_MOST_ROWS)
    names = comparison.labels
    made = _theme.figure(
        title="Differences between the runs",
        subtitle=_subtitle(
            comparison,
            f"{len(rows)} largest of {len(comparison.statistics)}",
            f"{_labels.percent(comparison.level)} intervals over prompts",
        ),
        theme=theme,
        height=170 + _ROW * max(4, len(rows)),
    )
    for clear, symbol, words in (
        (True, "diamond", "interval leaves out 0"),
        (False, "diamond-open", "interval includes 0, or there is none"),
    ):
        chosen = [row for row in rows if row.clear == clear]
        if not chosen:
            continue
        effect = np.array([row.effect for row in chosen])
        spread = np.array([row.spread for row in chosen])
        high = np.array([row.high for row in chosen]) / spread - effect
        low = effect - np.array([row.low for row in chosen]) / spread
        made.add_trace(
            go.Scatter(
                x=effect,
                y=[row.key for row in chosen],
                mode="markers",
                name=words,
                error_x={
                    "type": "data",
                    "array": np.nan_to_num(high),
                    "arrayminus": np.nan_to_num(low),
                    "thickness": 1.6,
                    "width": 4,
                },
                marker={
                    "symbol": symbol,
                    "size": 10,
                    "color": colours.categories[0] if clear else colours.muted,
                    "line": {"width": 1.6},
                },
                text=[_hover(row, names) for row in chosen],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    made.add_vline(x=0, line={"color": colours.axis, "width": 1})
    made.update_yaxes(
        categoryorder="array",
        categoryarray=[row.key for row in reversed(rows)],
        tickfont={"size": 11},
        range=[-0.6, len(rows) - 0.4],
    )
    made.update_xaxes(
        title="difference b − a, in standard deviations<br>(±2: the runs have nothing in common)"
    )
    made.update_layout(
        margin={"t": 104, "l": 240, "b": 70},
        showlegend=bool(rows),
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
    )
    if not rows:
        made.add_annotation(
            text="no statistic differs", x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False
        )
    return made


def _hover(row: Any, names: tuple[str, str]) -> str:
    unit = f" {row.units}" if row.units else ""
    return (
        f"<b>{_labels.escape(row.title)}</b><br>"
        f"{_labels.escape(names[0])}: {_labels.number(row.a)}{unit}<br>"
        f"{_labels.escape(names[1])}: {_labels.number(row.b)}{unit}<br>"
        f"difference {_labels.number(row.difference)} "
        f"[{_labels.number(row.low)}, {_labels.number(row.high)}]<br>{row.tokens} tokens"
    )


def compare_words(
    comparison: Any, name: str = "classify.regime", *, theme: str = "light"
) -> _theme.Figure:
    """Show which word each run has for the same token, such as its regime.

    Parameters
    ----------
    comparison : looplens.analysis.Comparison
        Result of `looplens.analysis.compare`.
    name : str
        One of its agreements.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        Share of the pairs of trajectories in each cell; the diagonal agrees.

    Raises
    ------
    InputError
        If the comparison has no such agreement.
    """
    colours = _theme.palette(theme)
    tables = {one.key: one for one in comparison.agreements if one.levels}
    if name not in tables:
        raise InputError(
            f"name must be one of {', '.join(tables) or 'none'}, got {name!r}."
            f"{near_matches(name, tables)}"
        )
    found = tables[name]
    words = [level.replace("_", " ") for level in found.levels]
    made = _theme.figure(
        title=f"{found.title[:1].upper()}{found.title[1:]}: one run against the other",
        subtitle=_subtitle(
            comparison,
            f"the same for {_labels.percent(found.share)}"
            f" [{_labels.percent(found.low)}, {_labels.percent(found.high)}]",
        ),
        theme=theme,
        width=620,
        height=190 + 62 * len(words),
    )
    made.add_trace(
        go.Heatmap(
            z=np.where(found.table > 0, found.table, np.nan),  # an empty cell is left blank
            x=words,
            y=words,
            colorscale=[list(stop) for stop in colours.sequential],
            zmin=0,
            zmax=1,
            text=[
                [_labels.percent(share) if share else "" for share in row] for row in found.table
            ],
            texttemplate="%{text}",
            xgap=2,
            ygap=2,
            colorbar={"title": {"text": "share"}, "tickformat": ".0%"},
            hovertemplate="%{y} in a, %{x} in b: %{text}<extra></extra>",
        )
    )
    made.update_xaxes(title=f"b: {_labels.escape(comparison.labels[1])}", showgrid=False)
    made.update_yaxes(
        title=f"a: {_labels.escape(comparison.labels[0])}", autorange="reversed", showgrid=False
    )
    return made


def compare_curve(comparison: Any, name: str, *, theme: str = "light") -> _theme.Figure:
    """Show a mean over tokens by iteration in both runs, and their difference with its interval.

    Parameters
    ----------
    comparison : looplens.analysis.Comparison
        Result of `looplens.analysis.compare`.
    name : str
        One of its curves, such as ``convergence.relative_step``.
    theme : {"light", "dark"}
        Template.

    Raises
    ------
    InputError
        If the comparison has no such curve.
    """
    colours = _theme.palette(theme)
    curves = {one.key: one for one in comparison.curves}
    if name not in curves:
        raise InputError(
            f"name must be one of {', '.join(curves) or 'none'}, got {name!r}."
            f"{near_matches(name, curves)}"
        )
    found = curves[name]
    both = np.isfinite(found.a).any()
    made = _theme.figure(
        title=f"{found.title[:1].upper()}{found.title[1:]}",
        subtitle=_subtitle(
            comparison, f"band: {_labels.percent(comparison.level)} interval of one iteration"
        ),
        theme=theme,
        height=420,
    )
    make_subplots(rows=1, cols=2 if both else 1, horizontal_spacing=0.17, figure=made)
    for row, (values, label, dash) in enumerate(
        ((found.a, comparison.labels[0], "solid"), (found.b, comparison.labels[1], "dash"))
    ):
        if both:
            made.add_trace(
                go.Scatter(
                    x=found.iteration,
                    y=values,
                    name=_labels.escape(label),
                    mode="lines",
                    line={"color": colours.categories[row], "width": 2.4, "dash": dash},
                ),
                row=1,
                col=1,
            )
    last = 2 if both else 1
    for bound, fill in ((found.low, None), (found.high, "tonexty")):
        made.add_trace(
            go.Scatter(
                x=found.iteration,
                y=bound,
                mode="lines",
                line={"width": 0},
                fill=fill,
                fillcolor=f"rgba{(*_rgb(colours.muted), 0.25)}",
                showlegend=False,
                hoverinfo="skip",
            ),
            row=1,
            col=last,
        )
    made.add_trace(
        go.Scatter(
            x=found.iteration,
            y=found.difference,
            name="b − a" if both else "share",
            mode="lines",
            line={"color": colours.text, "width": 2.4},
        ),
        row=1,
        col=last,
    )
    if both:
        made.add_hline(y=0, line={"color": colours.axis, "width": 1}, row=1, col=2)
        made.update_yaxes(title=found.units or "mean over tokens", row=1, col=1)
        if _labels.over_decades(found.a, found.b):
            made.update_yaxes(row=1, col=1, **_labels.log_axis(found.a, found.b))
        made.update_yaxes(title="difference b − a", row=1, col=2)
    else:
        made.update_yaxes(title="share of tokens", range=[0, 1.02], row=1, col=1)
    made.update_xaxes(title="iteration")
    made.update_layout(
        margin={"t": 104},
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "traceorder": "normal"},
    )
    return made


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[place : place + 2], 16) for place in (1, 3, 5))


def _subtitle(comparison: Any, *parts: str) -> str:
    a, b = (_labels.escape(label) for label in comparison.labels)
    counted = f"{comparison.n_prompts} prompts, {comparison.n_tokens} tokens"
    return " · ".join([f"a: {a}, b: {b}", counted, *parts])
