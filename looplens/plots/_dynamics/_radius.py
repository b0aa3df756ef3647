"""How far a token can be pushed and still comes back, along each direction.

The numbers are those of ``dynamics/basin_radius``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from looplens.plots import _labels, _theme
from looplens.plots._dynamics import _stored

_ROW, _LEAST = 26, 90  # pixels a direction, and of the plot


def basin_radius(run: Any, token: int | None = None, *, theme: str = "light") -> _theme.Figure:
    """Show from how far the loop brings a token back.

    Parameters
    ----------
    run : looplens.Run
        The opened run, with a result ``dynamics/basin_radius``.
    token : int, optional
        Token number in the run; by default the first one of the result.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        For every direction, the sizes that come back and the first one that does not.

    Raises
    ------
    InputError
        If the run has no such token.
    AnalysisError
        If the run holds no such result.
    """
    result, token = _stored.stored(run, "basin_radius", token)
    return basin_radius_figure(result, token, subtitle=_labels.of_prompt(run, token), theme=theme)


def basin_radius_figure(
    result: xr.Dataset, token: int | None = None, *, subtitle: str = "", theme: str = "light"
) -> _theme.Figure:
    """Draw the basin radii of one token of a result.

    Parameters
    ----------
    result : Dataset
        What :func:`looplens.dynamics.basin_radius` returns.
    token : int, optional
        Token number; by default the first one.
    subtitle, theme : str
        Words and template.
    """
    colours = _theme.palette(theme)
    one = _stored.of_token(result, token)
    names = [_labels.escape(str(name)) for name in one["direction"].values]
    low, high, apart = (
        one[name].values.astype(np.float64) for name in ("returns_up_to", "leaves_at", "apart")
    )
    ends = [str(end).replace("_", " ") for end in one["ends"].values]
    leaves = np.isfinite(high)
    lines = [line for line in (subtitle, *_words(one, result.attrs)) if line]
    made = _theme.figure(
        title=f"Basin radius of token {int(one['position'])}",
        subtitle="<br>".join(lines),
        theme=theme,
        height=170 + 17 * len(lines) + max(_LEAST, _ROW * len(names)),
    )
    made.add_trace(
        go.Bar(
            name="comes back",
            x=low,
            y=names,
            orientation="h",
            width=0.5,
            marker={"color": colours.categories[0], "opacity": 0.55},
            hovertemplate="%{y}<br>comes back up to %{x:.3g} norms<extra></extra>",
        )
    )
    marks = (
        ("stops coming back", leaves, high, "x", colours.categories[1], ends),
        ("all sizes come back", ~leaves & np.isfinite(low), low, "triangle-right-open",
         colours.text, ["not left"] * len(names)),
        ("the other restart", np.isfinite(apart), apart, "diamond-open", colours.categories[2],
         ["state of the other restart"] * len(names)),
    )  # fmt: skip
    for name, there, where, symbol, colour, words in marks:
        if not there.any():
            continue
        made.add_trace(
            go.Scatter(
                name=name,
                x=where[there],
                y=[label for label, known in zip(names, there, strict=True) if known],
                text=[text for text, known in zip(words, there, strict=True) if known],
                mode="markers",
                marker={
                    "symbol": symbol,
                    "size": 11,
                    "color": colour,
                    "line": {"width": 2, "color": colour},
                },
                hovertemplate="%{y}<br>%{text} at %{x:.3g} norms<extra></extra>",
            )
        )
    known = np.concatenate([values[np.isfinite(values)] for values in (low, high, apart)])
    most = float(known.max()) if known.size else 1.0
    made.update_xaxes(title="size of the push, norms of the state", range=[0, 1.06 * (most or 1)])
    made.update_yaxes(
        title="direction", autorange="reversed", showgrid=False, categoryarray=names,
        categoryorder="array", type="category",
    )  # fmt: skip
    made.update_layout(
        legend={"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},
        margin={"t": 88 + 17 * len(lines), "b": 60},
    )
    return made


def _words(one: xr.Dataset, attrs: dict[str, Any]) -> tuple[str, str]:
    least, step = float(one["least_radius"]), float(one["context_step"])
    found = f"least radius <b>{_labels.number(least)}</b> norms"
    if not np.isfinite(least):
        known = bool(np.isfinite(one["returns_up_to"].values).any())
        found = (
            "<b>every size comes back</b>"
            if known
            else "nowhere to push to: the restarts are in one place, or the state is 0"
        )
    if attrs.get("scope") == "token":
        others = f"the others held still (they would move by {_labels.number(step, digits=2)})"
    else:
        others = "the others move along"
    again = bool((one["reenters"].values == 1).any())
    return found + (", larger ones come back again" if again else ""), others
