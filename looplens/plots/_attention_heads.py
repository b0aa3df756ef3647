"""The attention maps of all heads of a layer at one iteration, side by side.

All heads are one heat map, so that a browser can move through the iterations quickly: it lays the
maps of another iteration into the same cells. ``meta.tiles`` has the first row and column of each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from looplens import analysis
from looplens.analysis.attention_views import MOST_SHOWN
from looplens.plots import _attention, _labels, _select, _theme

_MOST_HEIGHT = 400


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiles:
    """Where the maps of the heads lie in one large map.

    Parameters
    ----------
    heads, cells : int
        How many maps, and cells along an axis of each.
    columns : int
        Maps in a row.
    gap, title : int
        Cells between two columns, and above each row.
    """

    heads: int
    cells: int
    columns: int
    gap: int
    title: int

    @property
    def rows(self) -> int:
        """Rows of maps."""
        return -(-self.heads // self.columns)

    @property
    def width(self) -> int:
        """Cells across, without a gap at the end."""
        return self.columns * (self.cells + self.gap) - self.gap

    @property
    def height(self) -> int:
        """Cells down."""
        return self.rows * (self.cells + self.title)

    def corner(self, head: int) -> tuple[int, int]:
        """Return row and column of the first cell of a head."""
        row, column = divmod(head, self.columns)
        return row * (self.cells + self.title) + self.title, column * (self.cells + self.gap)


def tiles(heads: int, cells: int) -> Tiles:
    """Lay out the maps of some heads, about twice as wide as high."""
    wanted = math.ceil(math.sqrt(2 * heads))
    even = [number for number in range(wanted, 2 * wanted) if heads % number == 0]
    return Tiles(
        heads=heads,
        cells=cells,
        columns=min(heads, even[0] if even else wanted),
        gap=max(1, cells // 14),
        title=max(1, math.ceil(cells / 6)),
    )


def attention_heads(
    run: Any,
    prompt: int,
    iteration: int,
    layer: int | None = None,
    restart: int = 0,
    *,
    head: int | None = None,
    theme: str = "light",
) -> _theme.Figure:
    """Show the attention maps of all heads of a layer.

    Parameters
    ----------
    run : looplens.Run
        A run with recorded attention.
    prompt : int
        Prompt number; its attention must have been recorded.
    iteration : int
        Iteration, counted 1..T.
    layer : int or None
        Core layer; None for the first one that was kept.
    restart : int
        Which draw of the initial state.
    head : int or None
        The head that is framed; None for none.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        One small map a head, query down and key across, with the same colours as
        :func:`looplens.plots.attention`. Tokens are named in the hover text.

    Raises
    ------
    InputError
        If something asked for does not exist.
    AnalysisError
        If the attention of this prompt was not recorded.
    """
    prompt, restart = _select.prompt(run, prompt), _select.restart(run, restart)
    layer = _select.kept_layer(run, run.recorded_layers[0] if layer is None else layer)
    iteration = _select.iteration(run, iteration)
    maps = analysis.attention_maps(
        run,
        prompt,
        iteration,
        layer=layer,
        restart=restart,
        most=MOST_SHOWN,
    )
    if head is not None:
        head = _select.index("head", head, maps.sizes["head"])
    return attention_heads_figure(
        maps["weight"],
        labels=_labels.prompt_labels(run, prompt),
        title=f"Attention of every head at iteration {iteration} of {run.iterations}",
        subtitle=_labels.subtitle(
            run,
            f"prompt {prompt}",
            f"restart {restart}",
            f"layer {layer}",
            _attention.joined_note(maps),
        ),
        head=head,
        theme=theme,
    )


def attention_heads_figure(
    weights: xr.DataArray,
    *,
    labels: list[str],
    title: str,
    subtitle: str = "",
    head: int | None = None,
    theme: str = "light",
) -> _theme.Figure:
    """Draw the attention maps of some heads.

    Parameters
    ----------
    weights : DataArray (head, query, key)
        Attention weights, with the positions of the tokens as coordinates.
    labels : list of str
        One label a token.
    title, subtitle, theme : str
        Words and template.
    head : int or None
        The head that is framed.
    """
    colours = _theme.palette(theme)
    weights = weights.transpose("head", "query", "key")
    starts = weights["query"].values
    places = tiles(weights.sizes["head"], len(starts))
    made = _theme.figure(
        title=title,
        subtitle=subtitle,
        theme=theme,
        height=130 + int(np.clip(places.height / places.width * 900, 190, _MOST_HEIGHT)),
    )
    laid = np.full((places.height, places.width), np.nan, dtype=np.float32)
    of_head = np.zeros(laid.shape, dtype=np.int16)
    for number, values in enumerate(weights.values):
        row, column = places.corner(number)
        part = slice(row, row + places.cells), slice(column, column + places.cells)
        laid[part], of_head[part] = values, number
    made.add_trace(
        go.Heatmap(
            z=laid,
            x=list(range(places.width)),  # plain: a browser lays maps by their lengths
            y=list(range(places.height)),
            customdata=of_head,
            zmin=0,
            zmax=1,
            colorscale=_attention.weight_colours(colours),
            colorbar={"title": {"text": "attention weight"}},
            hoverongaps=False,
            hovertemplate="head %{customdata}<br>%{y} attends to %{x}<br>weight %{z:.3f}"
            "<extra></extra>",
            meta={
                "role": "attention-heads",
                "cells": places.cells,
                "joined": int(starts[1] - starts[0]) if len(starts) > 1 else 1,
                "tiles": [places.corner(number) for number in range(places.heads)],
                "tile": "head",
            },
        )
    )
    _add_frames(made, places, head, colours)
    # Ticks that are not drawn name the tokens in the hover text, at no cost a cell.
    names = _attention.cell_labels(labels, starts)
    hidden = {"showticklabels": False, "ticks": "", "showgrid": False, "showline": False}
    across = [column * (places.cells + places.gap) for column in range(places.columns)]
    down = [places.corner(row * places.columns)[0] for row in range(places.rows)]
    made.update_xaxes(
        title="keys (attended to)",
        tickvals=[first + cell for first in across for cell in range(places.cells)],
        ticktext=names * places.columns,
        range=[-0.5 - places.gap / 2, places.width - 0.5 + places.gap / 2],
        constrain="domain",
        **hidden,
    )
    made.update_yaxes(
        title="queries (read)",
        tickvals=[first + cell for first in down for cell in range(places.cells)],
        ticktext=names * places.rows,
        range=[places.height - 0.5 + places.gap / 2, -0.5],
        scaleanchor="x",
        constrain="domain",
        **hidden,
    )
    made.update_layout(margin={"l": 36, "r": 20, "b": 36, "t": 70})
    return made


def _add_frames(
    made: _theme.Figure, places: Tiles, chosen: int | None, colours: _theme.Palette
) -> None:
    """Put a frame and a number on every head, and a stronger frame around the chosen one."""
    shapes, numbers = [], []
    for head in range(places.heads):
        row, column = places.corner(head)
        shapes.append(_frame(places, head) | {"fillcolor": colours.missing, "layer": "below"})
        shapes[-1]["line"] = {"color": colours.grid, "width": 1}
        numbers.append(
            {
                "text": f"head {head}" if places.columns <= 6 else str(head),
                "x": column - 0.5,
                "y": row - 0.5,
                "xanchor": "left",
                "yanchor": "bottom",
                "showarrow": False,
                "borderpad": 0,
                "font": {"size": 12 if places.columns <= 8 else 10, "color": colours.text},
            }
        )
    stronger = {"line": {"color": colours.accent, "width": 2}, "visible": chosen is not None}
    shapes.append({"name": "head", **_frame(places, chosen or 0), **stronger})
    made.update_layout(shapes=shapes, annotations=numbers)


def _frame(places: Tiles, head: int) -> dict[str, Any]:
    """Return the rectangle around a head."""
    row, column = places.corner(head)
    ends = {"x0": column - 0.5, "x1": column + places.cells - 0.5}
    return {"type": "rect", **ends, "y0": row - 0.5, "y1": row + places.cells - 0.5}
