"""What becomes of the states of another prompt: distances from both ends, by passes since the swap.

The numbers are those of ``dynamics/swap_states``.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
import plotly.colors
import plotly.graph_objects as go
import xarray as xr

from looplens.plots import _labels, _theme
from looplens.plots._dynamics import _stored

_MOST = 4  # lines about ends
_SIDES = {"distance": "from the own run", "distance_other": "from the other run"}


def swap_states(run: Any, token: int | None = None, *, theme: str = "light") -> _theme.Figure:
    """Show whose end a token reaches with the states of another prompt.

    Parameters
    ----------
    run : looplens.Run
        The opened run, with a result ``dynamics/swap_states``.
    token : int, optional
        Token number in the run; by default the first one of the result.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        Distances from the prompt's own run and from the other's, a line for every swap.

    Raises
    ------
    InputError
        If the run has no such token.
    AnalysisError
        If the run holds no such result.
    """
    result, token = _stored.stored(run, "swap_states", token)
    return swap_states_figure(result, token, subtitle=_labels.of_prompt(run, token), theme=theme)


def swap_states_figure(
    result: xr.Dataset, token: int | None = None, *, subtitle: str = "", theme: str = "light"
) -> _theme.Figure:
    """Draw the swaps of one token of a result.

    Parameters
    ----------
    result : Dataset
        What :func:`looplens.dynamics.swap_states` returns.
    token : int, optional
        Token number; by default the first one.
    subtitle, theme : str
        Words and template.
    """
    colours = _theme.palette(theme)
    one = _stored.of_token(result, token).dropna("swapped_at", how="all", subset=["distance"])
    number = int(one["other_prompt"])
    which = "another prompt" if number < 0 else f"prompt {number}"
    rounding = f"dotted: may be rounding ({_labels.number(float(result.attrs['floor']), digits=2)})"
    lines = [subtitle, f"states of {which} put in · {rounding}", *_ends(one)]
    lines = [line for line in lines if line]
    made = _theme.figure(
        title=f"Swapped states at token {int(one['position'])}",
        subtitle="<br>".join(lines),
        theme=theme,
        height=420 + 17 * len(lines),
    )
    made.set_subplots(
        rows=1,
        cols=2,
        shared_yaxes=True,
        horizontal_spacing=0.06,
        subplot_titles=list(_SIDES.values()),
    )
    at = one["swapped_at"].values.tolist()
    shades = plotly.colors.sample_colorscale(
        [list(stop) for stop in colours.sequential],
        [i / max(len(at) - 1, 1) for i in range(len(at))],
    )
    floor = float(result.attrs["floor"])
    drawn: list[np.ndarray] = []
    for column, (name, side) in enumerate(_SIDES.items(), start=1):
        for i, t in enumerate(at):
            values = one[name].values[i].astype(np.float64)
            drawn.append(np.maximum(values, floor / 10))  # the logarithm of an exact 0 is nowhere
            made.add_trace(
                go.Scatter(
                    x=one["after"].values,
                    y=drawn[-1],
                    customdata=values,
                    name=f"after pass {t}",
                    legendgroup=str(t),
                    showlegend=column == 1,
                    mode="lines+markers",
                    line={"color": shades[i], "width": 1.75},
                    marker={
                        "symbol": _theme.TOKEN_SYMBOLS[i % len(_theme.TOKEN_SYMBOLS)],
                        "size": 7,
                        "maxdisplayed": 12,
                        "color": shades[i],
                    },
                    hovertemplate=(
                        f"swapped after pass {t}<br>%{{x}} passes later: %{{customdata:.3g}} {side}"
                        "<extra></extra>"
                    ),
                ),
                row=1,
                col=column,
            )
    made.add_hline(y=floor, line={"color": colours.muted, "width": 1.5, "dash": "dot"})
    made.update_yaxes(**_labels.decade_axis(*drawn, np.array([floor / 10])))
    made.update_yaxes(title="distance over the norm", row=1, col=1)
    made.update_xaxes(title="passes since the swap")
    made.update_annotations(font={"size": 13})
    made.update_layout(
        legend={"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"},
        margin={"t": 88 + 17 * len(lines), "b": 110},
    )
    return made


def _ends(one: xr.Dataset) -> list[str]:
    """Say whose end is reached, by the passes of the swaps."""
    pairs = list(zip(one["ends"].values.tolist(), one["swapped_at"].values.tolist(), strict=True))
    parts = []
    for end, group in groupby(pairs, key=lambda pair: pair[0]):
        passes = [swap for _, swap in group]
        when = f"{passes[0]}" if len(passes) == 1 else f"{passes[0]} to {passes[-1]}"
        parts.append(f"end reached: <b>{end}</b>, swapped after pass {when}")
    return parts if len(parts) <= _MOST else [*parts[: _MOST - 1], "and others: see the lines"]
