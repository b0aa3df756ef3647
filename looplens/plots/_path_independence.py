"""Path independence of a run at a glance: how far apart the restarts of its tokens end.

Two histograms of all tokens by regime, because restarts on one orbit are apart at every iteration
and still have the same limit. Numbers come from :func:`looplens.analysis.restart_overview`.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from looplens import analysis
from looplens.plots import _labels, _theme


def path_independence(run: Any, *, theme: str = "light") -> _theme.Figure:
    """Show whether the tokens of a run end in the same place from every initial state.

    Parameters
    ----------
    run : looplens.Run
        A run with at least two restarts.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        Left, tokens by the distance between their restarts at the last iteration; right, by how far
        the cosine between the limits is from 1. Bars are stacked by regime.

    Raises
    ------
    AnalysisError
        If the run holds only one restart, or not what the analyses need.

    References
    ----------
    Anil et al., arXiv 2211.09961 (alignment of limits); Geiping et al., arXiv 2502.05171 (path
    independence of single tokens).
    """
    found = analysis.restart_overview(run)
    sizes = f"{found.attrs['tokens']} tokens × {run.restarts} restarts"
    parts = [
        f"alignment {_labels.cosine(float(found['aa_score']))}",
        f"{_labels.percent(float(found['same_regime']))} have one regime",
    ]
    if "agreement" in found:
        share = _labels.percent(float(found["agreement"]))
        parts.append(f"{share} of pairs predict the same")
    subtitle = f"{_labels.subtitle(run, sizes)}<br>{' · '.join(parts)}"
    return path_independence_figure(found, subtitle=subtitle, theme=theme)


def path_independence_figure(
    found: xr.Dataset, *, subtitle: str = "", theme: str = "light"
) -> _theme.Figure:
    """Draw the path independence of a run from labelled arrays.

    Parameters
    ----------
    found : Dataset
        ``gap_count`` (group, gap_bin), ``angle_count`` (group, angle_bin) and their ``gap_edge``
        and ``angle_edge``.
    subtitle, theme : str
        Words and template.
    """
    made = _theme.figure(
        title="Path independence of the run", subtitle=subtitle, theme=theme, height=420
    )
    make_subplots(rows=1, cols=2, horizontal_spacing=0.1, figure=made)
    for column, (name, words) in enumerate(
        (
            ("gap", "final distance / norm"),
            ("angle", "1 − cosine of limits"),
        ),
        start=1,
    ):
        _add_bars(made, found, name, column, theme)
        _name_decades(made, found[f"{name}_edge"].values, words, column)
    made.update_yaxes(title="tokens", row=1, col=1)
    made.update_layout(
        barmode="stack",
        bargap=0.04,
        legend={"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},
        margin={"t": 118},
    )
    return made


def _add_bars(made: _theme.Figure, found: xr.Dataset, name: str, column: int, theme: str) -> None:
    """Add one bar a group and bin; the axis counts decades."""
    colours = _theme.palette(theme)
    edges = found[f"{name}_edge"].values
    ends = np.log10(edges)
    ranges = [
        f"{'up' if place == 0 else _labels.number(low)} to {_labels.number(high)}"
        for place, (low, high) in enumerate(itertools.pairwise(edges))
    ]
    for group in found["group"].values:
        counts = found[f"{name}_count"].sel(group=group).values
        if not counts.any():
            continue
        style = colours.regimes.get(str(group))
        label = style.label if style else "differs between restarts"
        made.add_trace(
            go.Bar(
                x=(ends[:-1] + ends[1:]) / 2,
                y=counts,
                width=np.diff(ends),
                name=label,
                legendgroup=label,
                showlegend=column == 1,
                marker={
                    "color": style.colour if style else colours.text,
                    "pattern": {
                        "shape": style.pattern if style else "+",
                        "fillmode": "overlay",
                        "fgcolor": colours.paper,
                        "size": 7,
                        "solidity": 0.25,
                    },
                    "line": {"width": 1, "color": colours.paper},
                },
                text=ranges,
                textposition="none",
                hovertemplate=f"<b>{label}</b><br>%{{text}}<br>%{{y}} tokens<extra></extra>",
            ),
            row=1,
            col=column,
        )


def _name_decades(made: _theme.Figure, edges: np.ndarray, words: str, column: int) -> None:
    """Label a linear axis of base-10 logarithms; it spans at least two decades."""
    low, high = np.log10(edges[0]), np.log10(edges[-1])
    spare = max(0.0, 2 - (high - low)) / 2
    low, high = low - spare - 0.1, high + spare + 0.1
    exponents, texts = _labels.decade_ticks(low, high, most=4)
    made.update_xaxes(
        title=words, range=[low, high], tickvals=exponents, ticktext=texts, row=1, col=column
    )
