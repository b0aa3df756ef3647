"""How a pushed token comes back, or does not: its distance, that of the others, and the readout.

The numbers are those of ``dynamics/recovery``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from looplens.plots import _labels, _theme
from looplens.plots._dynamics import _stored

_KINDS = {
    "replace": "replaced",
    "add": "steered",
    "noise": "noise",
    "ablate": "ablated",
    "clamp": "patched",
}


def recovery(run: Any, token: int | None = None, *, theme: str = "light") -> _theme.Figure:
    """Show what the loop makes of a push at a token.

    Parameters
    ----------
    run : looplens.Run
        The opened run, with a result ``dynamics/recovery``.
    token : int, optional
        Token number in the run; by default the first one of the result.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        Distances from the unpushed run by iteration, and the divergence of the readout.

    Raises
    ------
    InputError
        If the run has no such token.
    AnalysisError
        If the run holds no such result.
    """
    result, token = _stored.stored(run, "recovery", token)
    return recovery_figure(result, token, subtitle=_labels.of_prompt(run, token), theme=theme)


def recovery_figure(
    result: xr.Dataset, token: int | None = None, *, subtitle: str = "", theme: str = "light"
) -> _theme.Figure:
    """Draw the recovery of one token of a result.

    Parameters
    ----------
    result : Dataset
        What :func:`looplens.dynamics.recovery` returns.
    token : int, optional
        Token number; by default the first one.
    subtitle, theme : str
        Words and template.
    """
    colours = _theme.palette(theme)
    one = _stored.of_token(result, token)
    lines = [line for line in (subtitle, push_words(result.attrs), _verdict(one)) if line]
    made = _theme.figure(
        title=f"Recovery of token {int(one['position'])}",
        subtitle="<br>".join(lines),
        theme=theme,
        height=470,
    )
    has_readout = "kl" in one and bool(np.isfinite(one["kl"].values).any())
    made.set_subplots(rows=1, cols=1 + has_readout, horizontal_spacing=0.19)
    floor = float(one["floor"])
    drawn = [
        ("distance", "the pushed token", colours.categories[0], "circle", "solid"),
        ("others", "farthest other token", colours.categories[1], "diamond-open", "dash"),
    ]
    curves = [
        _add(made, one, *how, 1) for how in drawn if bool(np.isfinite(one[how[0]].values).any())
    ]
    made.add_hline(
        y=floor, line={"color": colours.muted, "width": 1.5, "dash": "dot"}, row=1, col=1
    )
    made.add_annotation(
        text=f"may be rounding: {_labels.number(floor)}",
        x=1,
        xref="x domain",
        xanchor="right",
        y=np.log10(floor),
        yref="y",
        yanchor="top",
        showarrow=False,
        font={"color": colours.muted, "size": 12},
    )
    axis = _labels.decade_axis(*curves, np.array([floor / 10]))
    made.update_yaxes(title="distance over the norm", **axis, row=1, col=1)
    made.update_xaxes(title="iteration", row=1, col=1)
    if has_readout:
        kl = _add(
            made, one, "kl", "readout at the token", colours.categories[2], "square", "solid", 2
        )
        made.update_yaxes(
            title="KL from the unpushed (nat)", **_labels.decade_axis(kl), row=1, col=2
        )
        made.update_xaxes(title="iteration", row=1, col=2)
    made.update_layout(
        legend={"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"},
        margin={"t": 62 + 17 * len(lines), "b": 92},
    )
    return made


def _add(
    made: _theme.Figure,
    one: xr.Dataset,
    variable: str,
    name: str,
    colour: str,
    symbol: str,
    dash: str,
    column: int,
) -> np.ndarray:
    values = np.asarray(one[variable].values, dtype=np.float64)
    drawn = np.where(values > 0, values, np.nan)  # no logarithm of an exact 0
    made.add_trace(
        go.Scatter(
            x=one["iteration"].values,
            y=drawn,
            name=name,
            mode="lines+markers",
            line={"color": colour, "width": 1.75, "dash": dash},
            marker={"symbol": symbol, "size": 5, "color": colour},
            hovertemplate=f"{name}<br>iteration %{{x}}: %{{y:.3g}}<extra></extra>",
        ),
        row=1,
        col=column,
    )
    return drawn


def push_words(attrs: dict[str, Any]) -> str:
    """Say what was done, where and when."""
    push = attrs.get("push", {})
    what = _KINDS.get(str(push.get("kind")), "pushed")
    if "size" in push:
        what += f" of {_labels.number(push['size'])} norms"
    held = ", held in every later pass" if attrs.get("hold") else ""
    return f"{what} at {_labels.escape(str(push.get('address', '')))}{held}"


def _verdict(one: xr.Dataset) -> str:
    outcome = str(one["outcome"].item()).replace("_", " ")
    words = [f"<b>{outcome}</b>, at {_labels.number(float(one['final_distance']))} in the end"]
    rate = float(one["rate"])
    if np.isfinite(rate):
        error = _labels.number(float(one["rate_error"]), digits=1)
        words.append(f"×{_labels.number(rate)} ± {error} a pass up to {float(one['rate_end']):g}")
    if "answer_changes" in one:
        changed = float(one["answer_changes"])
        words.append("another best token" if changed else "the same best token")
    return " · ".join(words)
