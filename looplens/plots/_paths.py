"""Paths through a plane or a space: one a token and layer, and how much of them is not shown.

Draws what `looplens.analysis.projection` found. Axes, titles and notes are the figure's affair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from looplens.plots import _labels, _marks, _theme

_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_TWO_ROWS = 50  # pixels


@dataclass(frozen=True, kw_only=True, slots=True)
class Path:
    """The states of one token after one layer.

    ``points`` (iteration, dims), ``off_plane`` and ``step_off_plane`` (iteration) where they are
    known, what it is called, and which colour and symbol of the theme it has.
    """

    token: int
    layer: int
    name: str
    points: np.ndarray
    iterations: np.ndarray
    off_plane: np.ndarray | None
    step_off_plane: np.ndarray | None
    colour: int
    symbol: int


def spaced(tokens: Sequence[int], most: int) -> list[int]:
    """Return the tokens, or evenly spaced ones of them where there are too many."""
    if len(tokens) <= most:
        return list(tokens)
    places = np.unique(np.linspace(0, len(tokens) - 1, most).round().astype(int))
    return [tokens[place] for place in places]


def place_name(layer: int) -> str:
    """Return what states after a layer are called; those of the loop are layer -1."""
    return "loop state" if layer < 0 else f"layer {layer}"


def of(found: xr.Dataset, labels: Sequence[str]) -> list[Path]:
    """Return the paths of a projection, token by token and in a token layer by layer.

    Colours tell tokens apart and symbols layers, where there are several of both; both do it where
    there is one of the others.
    """
    found = found.transpose("token", "layer", "iteration", ...)
    points = found["projection"].values
    shares = [
        found[name].values if name in found else None for name in ("off_plane", "step_off_plane")
    ]
    tokens, layers = found["token"].values.tolist(), found["layer"].values.tolist()
    return [
        Path(
            token=token,
            layer=layer,
            name=f"{label}, {place_name(layer)}" if len(layers) > 1 else label,
            points=points[row, place],
            iterations=found["iteration"].values,
            off_plane=None if shares[0] is None else shares[0][row, place],
            step_off_plane=None if shares[1] is None else shares[1][row, place],
            colour=row if len(tokens) > 1 else place,
            symbol=place if len(layers) > 1 else row,
        )
        for row, (token, label) in enumerate(zip(tokens, labels, strict=True))
        for place, layer in enumerate(layers)
    ]


def kind(dims: int, points: int) -> Any:
    """Return the class of the traces: SVG, or WebGL for many points."""
    if dims == 3:
        return go.Scatter3d
    return go.Scattergl if points > _theme.WEBGL_POINTS else go.Scatter


def trace(kind: Any, path: Path, colours: _theme.Palette, dims: int, *, bar: bool) -> Any:
    """Return the trace of one path; with the colour bar of the iterations if `bar`."""
    symbols = _theme.TOKEN_SYMBOLS if dims == 2 else _theme.SYMBOLS_3D
    colour = colours.categories[path.colour % len(colours.categories)]
    shown = "plane" if dims == 2 else "space"
    told = _told(path)
    return kind(
        # Plain lists on purpose: a browser that moves the cursor reads them without decoding.
        **_marks.coordinates(path.points),
        name=path.name,
        mode="lines+markers",
        customdata=path.iterations.tolist(),
        text=told,
        line={"color": _translucent(colour), "width": 1.5 if dims == 2 else 3},
        marker={
            # Most of the way is covered in the first iterations. The scale is the template's.
            "color": np.log1p(path.iterations),
            "cmin": float(np.log1p(path.iterations[0])),
            "cmax": float(np.log1p(path.iterations[-1])),
            **(_colour_bar(path.iterations) if bar else {}),
            "symbol": symbols[path.symbol % len(symbols)],
            "size": 7 if dims == 2 else 4,
            "line": {"width": 1, "color": colour},
        },
        hovertemplate=f"{path.name}<br>iteration %{{customdata}}"
        + (f"<br>off the {shown}: %{{text}}" if told else "")
        + "<extra></extra>",
        meta={"role": "trajectory", "token": path.token, "layer": path.layer},
    )


def _told(path: Path) -> list[str] | None:
    """Say at each iteration how much of the state and of the step to it is not shown."""
    if path.off_plane is None or path.step_off_plane is None:
        return None
    return [
        _labels.percent(state) + (f", of the step {_labels.percent(step)}" if step == step else "")
        for state, step in zip(path.off_plane, path.step_off_plane, strict=True)
    ]


def _translucent(colour: str) -> str:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.55)"


def _colour_bar(iterations: np.ndarray) -> dict[str, Any]:
    """Return the bar of the iterations, at round numbers of them."""
    ticks = [int(iterations[0])] if iterations[0] == 0 else []
    ticks += [2**power for power in range(20) if iterations[0] <= 2**power <= iterations[-1]]
    return {
        "showscale": True,
        "colorbar": {
            "title": {"text": "iteration"},
            "tickvals": np.log1p(ticks).tolist(),
            "ticktext": [str(tick) for tick in ticks],
            "len": 0.8,
            "y": 1,
            "yanchor": "top",
        },
    }


def legend_above(made: _theme.Figure) -> None:
    """Put the legend between title and panels, at most two rows high; more are scrolled to.

    Beside the panels it would take half of the width of a narrow figure.
    """
    lines = str(made.layout.title.subtitle.text or "").count("<br>")
    made.update_layout(
        legend={
            "orientation": "h",
            "x": 0,
            "y": 1.01,
            "yanchor": "bottom",
            "maxheight": _TWO_ROWS,
        },
        margin={"t": 64 + 18 * lines + _TWO_ROWS},
    )


def add_strip(
    made: _theme.Figure,
    paths: Sequence[Path],
    title: str,
    colours: _theme.Palette,
    *,
    axis: str,
) -> None:
    """Draw on the axes of that number the share of each state that is not shown."""
    made.add_traces(
        [
            go.Scatter(
                x=path.iterations,
                y=path.off_plane,
                xaxis=f"x{axis}",
                yaxis=f"y{axis}",
                mode="lines",
                name=path.name,
                showlegend=False,
                line={
                    "color": colours.categories[path.colour % len(colours.categories)],
                    "width": 1.5 if len(paths) <= 12 else 0.8,
                    "dash": _DASHES[path.symbol % len(_DASHES)],
                },
                hovertemplate=f"{path.name}<br>iteration %{{x}}<br>{title} %{{y:.1%}}"
                "<extra></extra>",
                meta={"role": "off_plane", "token": path.token, "layer": path.layer},
            )
            for path in paths
        ]
    )
    first, last = float(paths[0].iterations[0]), float(paths[0].iterations[-1])
    made.update_layout(
        {
            f"xaxis{axis}": {"title": "iteration", "range": [first - 0.5, last + 0.5]},
            f"yaxis{axis}": {
                "title": title,
                "range": [0, 1.04],
                "tickformat": ".0%",
                "tickvals": [0, 0.5, 1],
            },
        }
    )
