"""The geometry of steps: how long each one is, and which way it goes.

For one token, length, angle and parts of each step over the iterations; for a prompt, the cosine of
successive steps as a heat map. The numbers are those of ``geometry`` and ``change_points``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from looplens import analysis
from looplens.plots import _heatmap, _labels, _marks, _paths, _select, _theme


def geometry(
    run: Any,
    token: int,
    restart: int = 0,
    *,
    iteration: int | None = None,
    theme: str = "light",
) -> _theme.Figure:
    """Show the steps of one token: length, turning, and parts along and across the state.

    Parameters
    ----------
    run : looplens.Run
        The opened run.
    token : int
        Global token number.
    restart : int
        Which draw of the initial state.
    iteration : int or None
        Where the cursor stands; None keeps it out of sight.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        Three panels over the iterations. What is rounding is shaded, and changes of pace are
        vertical lines.

    Raises
    ------
    InputError
        If the token or the restart does not exist.
    AnalysisError
        If the run does not keep all iterations.
    """
    token, restart = _select.token(run, token), _select.restart(run, restart)
    place = {"restart": restart, "token": token}
    results = analysis.get(run, "geometry").isel(place)
    changes = np.array([])
    if analysis.ANALYZERS["change_points"].needs(run) is None:
        changes = analysis.get(run, "change_points")["change_iteration"].isel(place).values
    return geometry_figure(
        results,
        changes[np.isfinite(changes)],
        iteration=iteration,
        subtitle=_labels.of_prompt(run, token, f"restart {restart}", "loop state"),
        theme=theme,
    )


_PARTS = (
    ("tangential_step", "across the state", "solid"),
    ("radial_step", "along the state (size)", "dash"),
    ("acceleration", "acceleration", "dot"),
)


def geometry_figure(
    results: xr.Dataset,
    changes: np.ndarray,
    *,
    iteration: int | None = None,
    subtitle: str = "",
    theme: str = "light",
) -> _theme.Figure:
    """Draw the steps of one trajectory.

    Parameters
    ----------
    results : Dataset (iteration)
        ``step_norm``, ``step_cosine``, ``acceleration``, ``radial_step``, ``tangential_step`` and
        ``signal_end``.
    changes : ndarray, shape (change,)
        Iterations at which the pace changes.
    iteration : int or None
        Where the cursor stands; None keeps it out of sight.
    subtitle, theme : str
        Words and template.
    """
    colours = _theme.palette(theme)
    iterations = results["iteration"].values
    made = _theme.figure(title="Geometry of the steps", subtitle=subtitle, theme=theme, height=560)
    make_subplots(
        rows=3,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.06,
        row_heights=[0.34, 0.28, 0.38],
        figure=made,
    )

    def add(row: int, values: np.ndarray, name: str, colour: str, dash: str, hover: str) -> None:
        made.add_trace(
            go.Scatter(
                x=iterations,
                y=values,
                name=name,
                mode="lines+markers" if len(iterations) <= 160 else "lines",
                line={"color": colour, "width": 2, "dash": dash},
                marker={"size": 4},
                showlegend=row == 3,
                hovertemplate=f"iteration %{{x}}<br>{hover} %{{y:.3g}}<extra></extra>",
            ),
            row=row,
            col=1,
        )

    # A logarithmic axis has no place for zero: such a step leaves a gap.
    def positive(values: np.ndarray) -> np.ndarray:
        size = np.abs(values.astype(np.float64))
        return np.where(size > 0, size, np.nan)

    first, second, third = colours.categories[:3]
    add(1, positive(results["step_norm"].values), "step norm", first, "solid", "step norm")
    add(2, results["step_cosine"].values, "cosine", first, "solid", "cosine")
    for (name, words, dash), colour in zip(_PARTS, (first, second, third), strict=True):
        add(3, positive(results[name].values), words, colour, dash, words)
    end = float(results["signal_end"].values)
    last = float(iterations[-1])
    if end < last:
        made.add_vrect(
            x0=end + 0.5, x1=last + 0.5, fillcolor=colours.missing, line_width=0, layer="below"
        )
        made.add_annotation(
            x=0.5 * (end + 0.5 + last + 0.5),
            y=1,
            xref="x",
            yref="y domain",
            yanchor="top",
            text="rounding" if last - end > 0.12 * last else "",
            showarrow=False,
            font={"color": colours.muted, "size": 12},
        )
    for change in changes:
        made.add_vline(x=float(change), line={"color": colours.accent, "width": 1.5, "dash": "dot"})
    if len(changes):
        made.add_trace(
            go.Scatter(
                x=[None],
                y=[None],
                mode="lines",
                name="change of pace",
                line={"color": colours.accent, "width": 1.5, "dash": "dot"},
            ),
            row=1,
            col=1,
        )
    made.update_yaxes(
        title="step norm", row=1, col=1, **_labels.log_axis(positive(results["step_norm"].values))
    )
    made.update_yaxes(title="cosine with<br>the step before", range=[-1.08, 1.08], row=2, col=1)
    parts = [positive(results[name].values) for name, *_ in _PARTS]
    made.update_yaxes(title="over the norm", row=3, col=1, **_labels.log_axis(*parts))
    made.update_xaxes(title="iteration", range=[0.5, last + 0.5], row=3, col=1)
    for axis in ("", "2", "3"):
        _marks.add_line(made, iteration, colours, axis=axis)
    _paths.legend_above(made)
    return made


def step_cosines(
    run: Any, prompt: int = 0, restart: int = 0, *, theme: str = "light"
) -> _theme.Figure:
    """Show for every token of a prompt which way each step goes after the one before.

    Parameters
    ----------
    run : looplens.Run
        The opened run.
    prompt : int
        Prompt number.
    restart : int
        Which draw of the initial state.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        A heat map (token, iteration); a mark in each row ends the signal.

    Raises
    ------
    InputError
        If the prompt or the restart does not exist.
    AnalysisError
        If the run does not keep all iterations.
    """
    prompt, restart = _select.prompt(run, prompt), _select.restart(run, restart)
    tokens = run.token_range(prompt)
    results = analysis.get(run, "geometry").isel(restart=restart, token=tokens)
    return step_cosines_figure(
        results["step_cosine"],
        results["signal_end"],
        labels=_labels.token_labels(run, tokens),
        subtitle=_labels.subtitle(run, f"prompt {prompt}", f"restart {restart}"),
        theme=theme,
    )


def step_cosines_figure(
    cosine: xr.DataArray,
    signal_end: xr.DataArray,
    *,
    labels: list[str],
    subtitle: str = "",
    theme: str = "light",
) -> _theme.Figure:
    """Draw cosines of successive steps.

    Parameters
    ----------
    cosine : DataArray (token, iteration)
        Between -1 and 1.
    signal_end : DataArray (token)
        Last iteration that is not rounding.
    labels : list of str
        One label a token.
    subtitle, theme : str
        Words and template.
    """
    colours = _theme.palette(theme)
    values = cosine.transpose("token", "iteration").values
    iterations = cosine["iteration"].values
    pixels = _heatmap.plot_height(len(labels))
    made = _theme.figure(
        title="Cosine of successive steps", subtitle=subtitle, theme=theme, height=pixels + 170
    )
    made.add_trace(
        go.Heatmap(
            name="values",
            z=values,
            x=iterations,
            y=np.arange(len(labels)),
            zmin=-1,
            zmax=1,
            colorscale=_both_ways(colours),
            colorbar={
                "title": {"text": "cosine"},
                "tickvals": [-1, 0, 1],
                "ticktext": ["−1 back", "0 aside", "1 on"],
            },
            hovertemplate="row %{y}<br>iteration %{x}<br>cosine %{z:.3f}<extra></extra>",
            hoverongaps=False,
            ygap=1 if len(labels) <= 60 else 0,
        )
    )
    end = np.asarray(signal_end.values, dtype=np.float64)
    ends = end < iterations[-1]
    if ends.any():
        _heatmap.add_row_markers(
            made,
            np.where(ends, end, np.nan),
            name="last iteration above rounding",
            theme=theme,
            hover=[
                f"{label}<br>rounding after iteration {e:g}"
                for label, e in zip(labels, end, strict=True)
            ],
        )
    positions, texts = _labels.row_ticks(labels, pixels)
    made.update_yaxes(
        title="token",
        tickvals=positions,
        ticktext=texts,
        range=[len(labels) - 0.5, -0.5],
        showgrid=False,
    )
    made.update_xaxes(
        title="iteration", range=[iterations[0] - 0.5, iterations[-1] + 0.5], showgrid=False
    )
    made.update_layout(plot_bgcolor=colours.missing, margin={"t": 104, "b": 60})
    return made


def _both_ways(colours: _theme.Palette) -> list[list[float | str]]:
    """Return a scale with the paper in the middle: blue straight on, orange straight back."""
    blue, orange = colours.categories[0], colours.categories[1]
    return [[0.0, orange], [0.5, colours.paper], [1.0, blue]]
