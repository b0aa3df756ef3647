"""The residual and the step of the loop on a plane, with trajectories and fixed points on it.

The numbers are those of :func:`looplens.dynamics.landscape`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from looplens.plots import _heatmap, _labels, _marks, _theme
from looplens.plots._dynamics import _stored
from looplens.plots._dynamics._plane import (
    add_marks,
    colour_bar,
    off_plane,
    plane_layout,
    shares_of_steps,
)

_MOST_ARROWS = 17  # along a side
_ARROW = 0.92  # longest arrow over the distance of two
_PIXELS = 660


def landscape(
    run: Any, token: int | None = None, *, iteration: int | None = None, theme: str = "light"
) -> _theme.Figure:
    """Show the landscape of a token that the dynamics lab has stored.

    Parameters
    ----------
    run : looplens.Run
        A run with the result ``dynamics/landscape``.
    token : int or None
        Token number in the run; by default the first one stored.
    iteration : int or None
        Where the cursor stands on every trajectory; None keeps it out of sight.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        See :func:`landscape_figure`.

    Raises
    ------
    InputError
        If the run has no such token.
    AnalysisError
        If no landscape of it is stored; the message names the command that makes it.
    """
    found, token = _stored.stored(run, "landscape", token)
    return landscape_figure(
        found, token, iteration=iteration, subtitle=_labels.of_prompt(run, token), theme=theme
    )


def landscape_figure(
    result: xr.Dataset,
    token: int | None = None,
    *,
    iteration: int | None = None,
    subtitle: str = "",
    theme: str = "light",
) -> _theme.Figure:
    """Draw a landscape.

    Parameters
    ----------
    result : Dataset
        What :func:`looplens.dynamics.landscape` returns.
    token : int or None
        Which of its tokens; by default the first.
    iteration, subtitle, theme
        See :func:`landscape`.

    Returns
    -------
    Figure
        Colour: the residual, dark (on a dark paper bright) where it is small. Arrows: the direction
        of the step, as long as its part in the plane. Lines: the recorded states of every restart,
        and dotted those of one start with the others held still. Filled stars are stable fixed
        points, open ones unstable.
    """
    found = _stored.of_token(result, token)
    named = _stored.name_of(found)
    colours = _theme.palette(theme)
    made = _theme.figure(
        title="Landscape of the loop",
        subtitle="<br>".join(part for part in (subtitle or named, *shares_of_steps(found)) if part),
        theme=theme,
        height=_PIXELS,
    )
    u, v = found["u_coordinate"].values, found["v_coordinate"].values
    _add_residual(made, found, u, v, colours)
    _add_arrows(made, found, u, v, colours)
    _add_paths(made, found, colours)
    _add_fixed_points(made, found, colours)
    path, iterations = found["path"].values.astype(np.float64), found["iteration"].values
    _marks.add_cursor(made, go.Scatter, path, iterations, iteration, colours, 2)
    plane_layout(made, u, v)
    return made


def _add_residual(
    made: _theme.Figure, found: xr.Dataset, u: np.ndarray, v: np.ndarray, colours: _theme.Palette
) -> None:
    residual = found["residual"].values.astype(np.float64)
    logarithms = _heatmap.log_values(residual)
    made.add_trace(
        go.Heatmap(
            x=u,
            y=v,
            z=logarithms.astype(np.float32),
            customdata=np.stack([residual, found["step_in_plane"].values], axis=-1),
            name="residual",
            zorder=-1,  # plotly draws arrows below heat maps of the same level
            colorscale=[[1 - at, colour] for at, colour in reversed(colours.from_paper)],
            colorbar=colour_bar(logarithms, "length of the step"),
            hovertemplate=(
                "(%{x:.3g}, %{y:.3g})<br>step %{customdata[0]:.3g}"
                "<br>%{customdata[1]:.0%} of its square in the plane<extra></extra>"
            ),
        )
    )


def _add_arrows(
    made: _theme.Figure, found: xr.Dataset, u: np.ndarray, v: np.ndarray, colours: _theme.Palette
) -> None:
    """Draw the direction of the step, at cells far enough apart to be told."""
    every = -(-len(u) // _MOST_ARROWS)
    at = slice((len(u) - 1) % every // 2, None, every)
    direction = found["step_direction"].values[at, at].astype(np.float64)
    here_u, here_v = np.meshgrid(u[at], v[at])
    known = np.isfinite(direction).all(-1)
    length = _ARROW * every * float(u[1] - u[0])
    made.add_trace(
        go.Quiver(
            x=here_u[known],
            y=here_v[known],
            u=length * direction[known][:, 0],
            v=length * direction[known][:, 1],
            name="direction of the step",
            anchor="tail",
            arrowref="data",
            lengthmode="raw",
            marker={"color": colours.muted, "line": {"width": 1.2}},
            hoverinfo="skip",
            showlegend=True,
        )
    )


def _add_paths(made: _theme.Figure, found: xr.Dataset, colours: _theme.Palette) -> None:
    """Draw recorded states, and those of the chosen restart with the others held still."""
    iterations = found["iteration"].values
    path, away = found["path"].values, found["path_distance"].values
    for row, restart in enumerate(found["restart"].values):
        symbol = _theme.TOKEN_SYMBOLS[row % len(_theme.TOKEN_SYMBOLS)]
        regime = str(found["regime"].values[row]).replace("_", " ")
        made.add_trace(
            go.Scatter(
                # Plain lists: a browser that moves the cursor reads them without decoding.
                **_marks.coordinates(path[row]),
                mode="lines+markers",
                name=f"restart {restart}" + (f": {regime}" if regime else ""),
                customdata=iterations.tolist(),
                text=[f"{_labels.number(float(gap))} from the plane" for gap in away[row]],
                meta={"role": "trajectory"},
                line={"color": colours.accent, "width": 0.7},
                marker={
                    "symbol": symbol,
                    "size": 7,
                    "color": colours.accent,
                    "line": {"width": 1, "color": colours.paper},
                },
                hovertemplate=(
                    f"restart {restart}<br>iteration %{{customdata}}<br>%{{text}}<extra></extra>"
                ),
            )
        )
    chosen = int(np.flatnonzero(found["restart"].values == found.attrs["restart"])[0])
    held = found["held_path"].values[chosen]
    if not np.isfinite(held).any():
        return
    made.add_trace(
        go.Scatter(
            x=held[:, 0],
            y=held[:, 1],
            mode="lines+markers",
            name=f"restart {found.attrs['restart']}, others held",
            customdata=iterations,
            line={"color": colours.categories[3], "width": 2, "dash": "dot"},
            marker={
                "symbol": "x-thin-open",
                "size": 7,
                "color": colours.categories[3],
                "line": {"width": 2, "color": colours.categories[3]},
            },
            hovertemplate="others held still<br>iteration %{customdata}<extra></extra>",
        )
    )


def _add_fixed_points(made: _theme.Figure, found: xr.Dataset, colours: _theme.Palette) -> None:
    uv, radius = found["fixed_point_uv"].values, found["fixed_point_radius"].values
    away = found["fixed_point_distance"].values
    hover = [
        f"spectral radius {_labels.number(size)}<br>{_labels.number(gap)} from the plane"
        for size, gap in zip(radius, away, strict=True)
    ]
    # NaN compares as neither: a point whose spectrum is not known is drawn as not stable.
    known = np.isfinite(uv).all(-1)
    for name, chosen, symbol in (
        ("stable fixed point", known & (radius < 1), "star"),
        ("unstable fixed point", known & ~(radius < 1), "star-open"),
    ):
        add_marks(
            made,
            found,
            colours,
            name,
            uv,
            chosen,
            symbol=symbol,
            hover=hover,
            texts=off_plane(found, away),
        )
