"""Where the loop ends from the initial states on a plane, and how long it takes.

The numbers are those of :func:`looplens.dynamics.basin_map`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from looplens.plots import _labels, _theme
from looplens.plots._dynamics import _stored
from looplens.plots._dynamics._plane import add_marks, off_plane, plane_layout

_SYMBOLS = 11  # along a side, to tell areas without their colour
_PIXELS = 560
_WITHOUT_NUMBER = ("triangle-right-open", "x-thin-open", "hash-open", "line-ew-open")


def basin_map(run: Any, token: int | None = None, *, theme: str = "light") -> _theme.Figure:
    """Show the basin map of a token that the dynamics lab has stored.

    Parameters
    ----------
    run : looplens.Run
        A run with the result ``dynamics/basin_map``.
    token : int or None
        Token number in the run; by default the first one stored.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        See :func:`basin_map_figure`.

    Raises
    ------
    InputError
        If the run has no such token.
    AnalysisError
        If no basin map of it is stored; the message names the command that makes it.
    """
    found, token = _stored.stored(run, "basin_map", token)
    return basin_map_figure(found, token, subtitle=_labels.of_prompt(run, token), theme=theme)


def basin_map_figure(
    result: xr.Dataset, token: int | None = None, *, subtitle: str = "", theme: str = "light"
) -> _theme.Figure:
    """Draw a basin map.

    Parameters
    ----------
    result : Dataset
        What :func:`looplens.dynamics.basin_map` returns.
    token : int or None
        Which of its tokens; by default the first.
    subtitle, theme : str
        Words and template.

    Returns
    -------
    Figure
        Left, an area of its own colour and symbol for every end; paler where a run goes through a
        cycle with a shift. Right, the iterations until it is there for good. Stars are ends that
        lie in the window, rings the initial states of the restarts.
    """
    found = _stored.of_token(result, token)
    named = _stored.name_of(found)
    colours = _theme.palette(theme)
    attrs = result.attrs
    moves = "others held still" if attrs["scope"] == "token" else "others move along"
    made = _theme.figure(
        title="Basins of initial states",
        subtitle=f"{subtitle or named}<br>{moves} · {attrs['iterations']} iterations from each of "
        f"{attrs['size']} x {attrs['size']} initial states",
        theme=theme,
        height=_PIXELS,
    )
    make_subplots(
        rows=1,
        cols=2,
        shared_yaxes=True,
        horizontal_spacing=0.05,
        figure=made,
        subplot_titles=["where it ends", "iterations to get there"],
    )
    u, v = found["u_coordinate"].values, found["v_coordinate"].values
    _add_ends(made, found, attrs["codes"], u, v, colours)
    _add_arrival(made, found, u, v, colours)
    _add_points(made, found, attrs["codes"], colours)
    plane_layout(made, u, v, columns=2)
    made.update_annotations(font={"size": 13})
    return made


def _add_ends(
    made: _theme.Figure,
    found: xr.Dataset,
    codes: dict[str, int],
    u: np.ndarray,
    v: np.ndarray,
    colours: _theme.Palette,
) -> None:
    """Fill areas of one end with its colour, and strew its symbol over them."""
    end, phase = found["end"].values.astype(int), found["phase"].values
    period = found["end_period"].values
    numbers = sorted(set(end.ravel().tolist()), key=lambda number: (number < 0, abs(number)))
    names = {code: name for name, code in codes.items()}
    fill = np.full(end.shape, np.nan)
    scale: list[str] = []
    for number in numbers:
        mine = end == number
        colour = _colour(number, colours)
        known = mine & np.isfinite(phase)
        steps = round(float(period[number])) if known.any() else 1
        for shift in range(steps):
            part = known & (phase == shift) if known.any() else mine
            if part.any():
                fill[part] = len(scale)
                scale.append(_paler(colour, colours.paper, 0.6 * shift / steps))
        _strew(made, mine, u, v, _name(number, found, names), _symbol(number), colour, colours)
    hover = np.array([_name(number, found, names) for number in numbers], dtype=object)
    order = {number: row for row, number in enumerate(numbers)}
    made.add_trace(
        go.Heatmap(
            x=u,
            y=v,
            z=fill,
            zmin=-0.5,
            zmax=len(scale) - 0.5,
            zorder=-1,
            colorscale=_bands(scale),
            showscale=False,
            opacity=0.75,
            customdata=hover[[[order[number] for number in row] for row in end.tolist()]],
            hovertemplate="(%{x:.3g}, %{y:.3g})<br>%{customdata}<extra></extra>",
            name="end",
        ),
        row=1,
        col=1,
    )


def _strew(
    made: _theme.Figure,
    mine: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
    name: str,
    symbol: str,
    colour: str,
    colours: _theme.Palette,
) -> None:
    every = max(1, -(-len(u) // _SYMBOLS))
    sparse = np.zeros_like(mine)
    sparse[every // 2 :: every, every // 2 :: every] = True
    rows, columns = np.nonzero(mine & sparse)
    if not rows.size:  # an area between the sparse cells still gets its symbol
        rows, columns = (places[:1] for places in np.nonzero(mine))
    made.add_trace(
        go.Scatter(
            x=u[columns],
            y=v[rows],
            mode="markers",
            name=name,
            hoverinfo="skip",
            marker={
                "symbol": symbol,
                "size": 7,
                "color": colours.text if symbol.endswith("open") else colour,
                "line": {"width": 1, "color": colours.text},
            },
        ),
        row=1,
        col=1,
    )


def _add_arrival(
    made: _theme.Figure, found: xr.Dataset, u: np.ndarray, v: np.ndarray, colours: _theme.Palette
) -> None:
    arrival = found["arrival"].values.astype(np.float64)
    known = bool(np.isfinite(arrival).any())
    made.add_trace(
        go.Heatmap(
            x=u,
            y=v,
            z=arrival,
            zorder=-1,
            colorscale=[list(stop) for stop in colours.sequential],
            showscale=known,
            colorbar={"title": {"text": "iterations"}, "len": 0.8},
            hovertemplate="(%{x:.3g}, %{y:.3g})<br>%{z} iterations<extra></extra>",
            name="arrival",
        ),
        row=1,
        col=2,
    )
    if not known:
        made.add_annotation(
            text="no run arrives anywhere:<br>take more iterations=",
            x=float(u.mean()),
            y=float(v.mean()),
            showarrow=False,
            font={"color": colours.muted},
            row=1,
            col=2,
        )


def _add_points(
    made: _theme.Figure, found: xr.Dataset, codes: dict[str, int], colours: _theme.Palette
) -> None:
    """Mark ends by their numbers, with how far off the plane they are, and initial states."""
    uv, away = found["end_uv"].values, found["end_distance"].values
    kinds = [str(kind) for kind in found["end_kind"].values]
    off = off_plane(found, away)
    texts = [f"{number}, {gap}" if gap else str(number) for number, gap in enumerate(off)]
    hover = [
        f"end {number}: {kind}<br>{_labels.number(gap)} from the plane"
        for number, (kind, gap) in enumerate(zip(kinds, away, strict=True))
    ]
    for kind, symbol in (
        ("fixed point", "star"),
        ("orbit", "star-diamond-open"),
        ("at rest, not verified", "star-square-open"),
    ):
        name = "mean of an orbit" if kind == "orbit" else kind
        chosen = np.array([one == kind for one in kinds])
        add_marks(
            made,
            found,
            colours,
            name,
            uv,
            chosen,
            symbol=symbol,
            hover=hover,
            texts=texts,
            size=13,
        )
    uv, away = found["start_uv"].values, found["start_distance"].values
    chosen = np.isfinite(uv).all(-1)
    names = {code: name for name, code in codes.items()}
    hover = [
        f"restart {restart} starts here, {_labels.number(gap)} from the plane<br>"
        f"it ends: {_name(int(end), found, names)}"
        if known
        else ""
        for restart, gap, end, known in zip(
            found["restart"].values, away, found["start_end"].values, chosen, strict=True
        )
    ]
    on_plane = not any(off_plane(found, away))
    name = "initial states of restarts" + ("" if on_plane else ", off the plane")
    add_marks(made, found, colours, name, uv, chosen, symbol="circle-open", hover=hover, size=12)


def _name(number: int, found: xr.Dataset, codes: dict[int, str]) -> str:
    if number < 0:
        return codes[number]
    kind = str(found["end_kind"].values[number])
    period = float(found["end_period"].values[number])
    if np.isfinite(period):
        kind += f" of period {_labels.number(period)}"
    if float(found["end_radius"].values[number]) >= 1:
        kind = f"unstable {kind}, not left yet"
    return f"{number}: {kind}, {_labels.percent(float(found['end_share'].values[number]))}"


def _symbol(number: int) -> str:
    if number < 0:
        return _WITHOUT_NUMBER[-number - 1]
    return _theme.TOKEN_SYMBOLS[number % len(_theme.TOKEN_SYMBOLS)]


def _colour(number: int, colours: _theme.Palette) -> str:
    if number < 0:
        return colours.missing if number < -1 else colours.axis
    return colours.categories[number % len(colours.categories)]


def _paler(colour: str, paper: str, share: float) -> str:
    """Mix a colour with that of the paper."""
    here, there = ([int(one[i : i + 2], 16) for i in (1, 3, 5)] for one in (colour, paper))
    mixed = (round((1 - share) * a + share * b) for a, b in zip(here, there, strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def _bands(scale: list[str]) -> list[list[Any]]:
    """Return a colour scale of equal bands without transitions."""
    n = len(scale)
    return [[(row + side) / n, colour] for row, colour in enumerate(scale) for side in (0, 1)]
