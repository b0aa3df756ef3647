"""How the states next to a token's trajectory part or meet, and which sublayer does it.

The numbers are those of ``dynamics/lyapunov``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from looplens.plots import _labels, _marks, _theme
from looplens.plots._dynamics import _stored
from looplens.plots._dynamics._lyapunov_tokens import add_cuts, regime_words

_ROW = 24  # pixels of a sublayer


def lyapunov(
    run: Any, token: int | None = None, *, iteration: int | None = None, theme: str = "light"
) -> _theme.Figure:
    """Show the Lyapunov spectrum of a token.

    Parameters
    ----------
    run : looplens.Run
        The opened run, with a result ``dynamics/lyapunov``.
    token : int, optional
        Token number in the run; by default the first one of the result.
    iteration : int or None
        Where the cursor stands; None keeps it out of sight.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        Above, the stretch of the directions along the trajectory, on a logarithmic scale. Below,
        the exponents of tail and transient against the cuts of the regimes, and the shares of the
        sublayers in the first one.

    Raises
    ------
    InputError
        If the run has no such token.
    AnalysisError
        If the run holds no such result.
    """
    result, token = _stored.stored(run, "lyapunov", token)
    return lyapunov_figure(
        result,
        token,
        iteration=iteration,
        subtitle=_labels.of_prompt(run, token, _restart_of(result)),
        theme=theme,
    )


def lyapunov_figure(
    result: xr.Dataset,
    token: int | None = None,
    *,
    iteration: int | None = None,
    subtitle: str = "",
    theme: str = "light",
) -> _theme.Figure:
    """Draw the spectrum of one token of a result.

    Parameters
    ----------
    result : Dataset
        What :func:`looplens.dynamics.lyapunov_spectra` returns.
    token : int, optional
        Token number; by default the first one.
    iteration, subtitle, theme
        See :func:`lyapunov`.
    """
    colours = _theme.palette(theme)
    one = _stored.of_token(result, token)
    parts = one["sublayer"].size if "stretch" in one else 0
    lines = [line for line in (subtitle, *_words(one)) if line]
    made = _theme.figure(
        title="Lyapunov spectrum of a token",
        subtitle="<br>".join(lines),
        theme=theme,
        height=max(720, 430 + _ROW * parts),
    )
    made.set_subplots(
        rows=2,
        cols=2,
        specs=[[{"colspan": 2}, None], [{} if parts else {"colspan": 2}, {} if parts else None]],
        row_heights=[0.42, 0.58],
        column_widths=[0.5, 0.5],
        vertical_spacing=0.16,
        horizontal_spacing=0.22,
    )
    _add_stretches(made, one, colours)
    _marks.add_line(made, iteration, colours)
    _add_exponents(made, one, float(result.attrs["cut"]), colours)
    if parts:
        _add_sublayers(made, one, colours)
    made.update_layout(
        legend={"orientation": "h", "x": 0, "y": -0.1, "yanchor": "top"},
        margin={"t": 62 + 17 * len(lines), "b": 100},
        barmode="group",
        bargap=0.25,
    )
    return made


def _words(one: xr.Dataset) -> list[str]:
    """Say what the leading exponent means, and where its window lies."""
    start, rest = int(one["tail_start"]), float(one["rest_share"])
    lines = [f"{regime_words(one)} · tail from iteration {start} ({one['tail_rule'].item()})"]
    if rest > 0:
        share = _labels.percent(rest)
        lines.append(f"{share} of the tail at rest: the exponents are those of the limit")
    if "upstream_token" in one and int(one["upstream_token"]) != int(one["token"]):
        number = _labels.number(float(one["upstream_exponent"]))
        lines.append(f"largest before it: {number}, of token {int(one['upstream_token'])}")
    return lines


def _add_stretches(made: _theme.Figure, one: xr.Dataset, colours: _theme.Palette) -> None:
    iterations, logs = one["iteration"].values, one["log_stretch"].values
    for number in reversed(range(logs.shape[1])):
        first = number == 0
        made.add_trace(
            go.Scatter(
                x=iterations,
                y=np.where(np.isfinite(logs[:, number]), logs[:, number], np.nan),
                mode="lines",
                name="first direction" if first else "further directions",
                legendgroup="first" if first else "further",
                showlegend=number < 2,
                legendrank=10 if first else 20,  # drawn last, named first
                line={
                    "color": colours.categories[0] if first else colours.muted,
                    "width": 2.5 if first else 1,
                },
                hovertemplate=f"direction {number + 1}, iteration %{{x}}"
                "<br>log stretch %{y:.3g}<extra></extra>",
            ),
            row=1,
            col=1,
        )
    end, start = int(one["transient_end"]), int(one["tail_start"])
    first_one = int(iterations[0])
    marks = (  # one label above the other: either part may be narrow
        (first_one - 1, end, "transient", 0.16, 0),
        (end, start - 1, "frame turns", 0.08, 14),
    )
    for left, right, words, opacity, shift in marks:
        if right > left:
            made.add_vrect(
                x0=left + 0.5,
                x1=right + 0.5,
                fillcolor=colours.muted,
                opacity=opacity,
                line_width=0,
                layer="below",
                annotation={
                    "text": words,
                    "font": {"size": 11, "color": colours.muted},
                    "yshift": shift,
                },
                annotation_position="bottom left",
                row=1,
                col=1,
            )
    made.update_xaxes(title="iteration", row=1, col=1)
    made.update_yaxes(title="log stretch", row=1, col=1)


def _add_exponents(
    made: _theme.Figure, one: xr.Dataset, cut: float, colours: _theme.Palette
) -> None:
    numbers = one["exponent"].values
    sets = [
        ("transient", "transient_exponents", None, "diamond-open", colours.categories[1]),
        ("tail, ± 2 errors", "exponents", "error", "circle", colours.categories[0]),
    ]
    if "sequence_exponents" in one:
        name = "whole sequence, tail"
        style = ("square-open", colours.categories[2])
        sets.append((name, "sequence_exponents", "sequence_error", *style))
    for name, variable, error, symbol, colour in sets:
        values = one[variable].values
        bars = None if error is None else {"array": 2 * one[error].values, "thickness": 1.5}
        made.add_trace(
            go.Scatter(
                x=numbers,
                y=np.where(np.isfinite(values), values, np.nan),
                error_y=bars,
                mode="markers",
                name=name,
                marker={"symbol": symbol, "color": colour, "size": 9, "line": {"width": 1.5}},
                hovertemplate=f"{name}<br>exponent %{{x}}: %{{y:.4g}}<extra></extra>",
            ),
            row=2,
            col=1,
        )
    add_cuts(made, cut, colours, row=2, col=1)  # plotly leaves out shapes in empty subplots
    made.update_xaxes(title="number of the exponent", dtick=1, row=2, col=1)
    made.update_yaxes(title="exponent, 1 / iteration", row=2, col=1)


def _add_sublayers(made: _theme.Figure, one: xr.Dataset, colours: _theme.Palette) -> None:
    names = [str(name) for name in one["sublayer"].values]
    sets = (
        ("share in the tail", "stretch", "", colours.categories[0]),
        ("share in the transient", "transient_stretch", "/", colours.categories[1]),
    )
    for name, variable, pattern, colour in sets:
        made.add_trace(
            go.Bar(
                y=names,
                x=one[variable].values[:, 0],
                orientation="h",
                name=name,
                marker={"color": colour, "pattern": {"shape": pattern, "size": 5}},
                hovertemplate=f"%{{y}}<br>{name} %{{x:.3g}}<extra></extra>",
            ),
            row=2,
            col=2,
        )
    made.add_vline(x=0, line={"color": colours.axis, "width": 1}, row=2, col=2)
    made.update_yaxes(autorange="reversed", row=2, col=2)
    made.update_xaxes(title="share in the first exponent", row=2, col=2)


def _restart_of(result: xr.Dataset) -> str:
    restart = result.attrs.get("restart")
    return "" if restart is None else f"restart {restart}"
