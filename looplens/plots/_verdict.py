"""What the regime of one token rests on: its steps, the noise floor, and the windows at the end.

All numbers are those of the analyses ``classify`` and ``convergence``.
"""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from looplens import analysis
from looplens.plots import _labels, _marks, _paths, _select, _theme

_NUMBERS = (
    ("rate", "rate"),
    ("period", "period"),
    ("turns", "turns"),
    ("amplitude", "amplitude"),
    ("speed", "speed"),
    ("straightness", "straightness"),
    ("radial_share", "radial share"),
    ("p_value", "p"),
)
# Which numbers mean something in which regime.
OF_REGIME = {
    "fixed_point": {"rate", "amplitude"},
    "orbit": {"period", "turns", "amplitude", "p_value"},
    "slider": {"speed", "straightness", "radial_share", "p_value"},
    "unresolved": {"amplitude", "straightness", "p_value"},
}


def verdict(
    run: Any,
    token: int,
    restart: int = 0,
    *,
    iteration: int | None = None,
    theme: str = "light",
) -> _theme.Figure:
    """Show what the regime of one token rests on.

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
        Relative steps on a logarithmic scale, the noise floor and three times it, the last
        iteration above that, and the two windows that were judged. The subtitle holds the verdict
        with its numbers and the reason.

    Raises
    ------
    InputError
        If the token or the restart does not exist.
    AnalysisError
        If the run cannot be classified.
    """
    token, restart = _select.token(run, token), _select.restart(run, restart)
    one = analysis.get(run, "classify")
    thresholds = one.attrs["thresholds"]
    steps = analysis.get(run, "convergence")["relative_step"].isel(restart=restart, token=token)
    return verdict_figure(
        steps,
        one.isel(restart=restart, token=token),
        windows=(float(thresholds["tail"]), float(thresholds["confirm_tail"])),
        longest=int(thresholds["longest_window"]),
        iteration=iteration,
        subtitle=_labels.of_token(run, token, f"restart {restart}", "loop state"),
        theme=theme,
    )


def verdict_figure(
    steps: xr.DataArray,
    found: xr.Dataset,
    *,
    windows: tuple[float, float] = (0.5, 0.3),
    longest: int = 128,
    iteration: int | None = None,
    subtitle: str = "",
    theme: str = "light",
) -> _theme.Figure:
    """Draw the verdict on one trajectory.

    Parameters
    ----------
    steps : DataArray (iteration)
        Relative steps.
    found : Dataset
        The result of ``classify`` at one restart and token.
    windows : tuple of float
        The two windows as shares of the record from its end.
    longest : int
        Iterations of a window at the most.
    iteration : int or None
        Where the cursor stands; None keeps it out of sight.
    subtitle, theme : str
        Words and template.
    """
    colours = _theme.palette(theme)
    regime = str(found["regime"].values)
    style = colours.regimes[regime]
    iterations, values = steps["iteration"].values, steps.values.astype(np.float64)
    made = _theme.figure(
        title=f"Verdict: {style.label}, {str(found['kind'].values).replace('_', ' ')}",
        subtitle="<br>".join([subtitle, _numbers(found, regime), "<br> ".join(_wrapped(found))]),
        theme=theme,
        height=460,
    )
    made.add_trace(
        go.Scatter(
            x=iterations,
            y=np.where(values > 0, values, np.nan),
            mode="lines+markers",
            name="relative step",
            line={"color": style.colour, "width": 2, "dash": style.dash},
            marker={"size": 5, "symbol": "circle", "color": style.colour},
            hovertemplate="iteration %{x}<br>relative step %{y:.3g}<extra></extra>",
            meta={"role": "steps"},
        )
    )
    floor, end = float(found["floor"]), float(found["signal_end"])
    last = int(iterations[-1])
    for share, words, opacity in (
        (windows[0], f"last {_labels.percent(windows[0])}", 0.10),
        (windows[1], f"last {_labels.percent(windows[1])}", 0.14),
    ):
        made.add_vrect(
            x0=last + 0.5 - min(round(share * last), longest),
            x1=last + 0.5,
            fillcolor=colours.muted,
            opacity=opacity,
            line_width=0,
            annotation={"text": words, "font": {"size": 11, "color": colours.muted}},
            annotation_position="bottom left",
            layer="below",
        )
    if np.isfinite(floor):
        source = {"record": "of this record", "dtype": "of the dtype"}[
            str(found["floor_from"].values)
        ]
        for height, words, dash in (
            (floor, f"noise floor {source}", "dot"),
            (3 * floor, "three floors", "dash"),
        ):
            made.add_trace(
                go.Scatter(
                    x=[iterations[0], last],
                    y=[height, height],
                    mode="lines",
                    name=words,
                    line={"color": colours.text, "width": 1, "dash": dash},
                    hovertemplate=f"{words}: %{{y:.3g}}<extra></extra>",
                )
            )
    if np.isfinite(end) and end < last:
        made.add_vline(x=end, line={"color": colours.accent, "width": 1.5, "dash": "dash"})
        made.add_annotation(
            x=end,
            y=1,
            yref="y domain",
            yanchor="top",
            xanchor="left" if end < 0.7 * last else "right",
            text=f"signal ends at {end:.0f}",
            showarrow=False,
            font={"size": 11, "color": colours.text},
        )
    _marks.add_line(made, iteration, colours)
    made.update_xaxes(title="iteration", range=[float(iterations[0]) - 0.5, last + 0.5])
    made.update_yaxes(
        title="relative step", type="log", exponentformat="power", range=_range(values, floor)
    )
    _paths.legend_above(made)
    return made


def _range(values: np.ndarray, floor: float) -> list[float] | None:
    """Decades of the axis: room for the names of the windows below the lowest line."""
    shown = np.append(values, floor)
    shown = np.log10(shown[np.isfinite(shown) & (shown > 0)])
    return [float(shown.min()) - 0.9, float(shown.max()) + 0.3] if shown.size else None


def _numbers(found: xr.Dataset, regime: str) -> str:
    parts = [
        f"{words} {_labels.number(float(found[name]))}"
        for name, words in _NUMBERS
        if name in OF_REGIME[regime] and np.isfinite(float(found[name]))
    ]
    unit = str(found["unit_regime"].values)
    if unit != regime:
        parts.append(f"on states of unit norm: {unit.replace('_', ' ')}")
    return " · ".join(parts)


def _wrapped(found: xr.Dataset) -> list[str]:
    reason = str(found["reason"].values)
    return [_labels.escape(line) for line in textwrap.wrap(reason, 110)[:3]]
