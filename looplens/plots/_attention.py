"""The attention map of a prompt at one iteration.

The map is that of :func:`looplens.analysis.attention_maps`. Cells lie at the positions of their
tokens; where a long prompt is joined into fewer cells, the caption says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from looplens import analysis
from looplens.analysis.attention_views import MOST_SHOWN
from looplens.plots import _labels, _marks, _select, _theme

_CELL = 22
_LEAST, _MOST = 240, 400
_MOST_NAMED = 5_000  # cells whose hover text names both tokens; a text a cell is dear


def attention(
    run: Any,
    prompt: int,
    iteration: int,
    layer: int | None = None,
    head: int | None = None,
    restart: int = 0,
    *,
    token: int | None = None,
    theme: str = "light",
) -> _theme.Figure:
    """Show the attention map of a prompt at one iteration.

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
    head : int or None
        Head, or None for the mean over heads.
    restart : int
        Which draw of the initial state.
    token : int or None
        Global number of the token whose row is framed.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        Query by key; keys after the query are left empty. Colours go from a weight of 0 to 1 with
        the square root of the weight, so that iterations can be compared and weak ones are seen.

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
        head="mean" if head is None else head,
        restart=restart,
        most=MOST_SHOWN,
    )
    return attention_figure(
        maps["weight"],
        labels=_labels.prompt_labels(run, prompt),
        subtitle=_labels.subtitle(
            run,
            f"prompt {prompt}",
            f"restart {restart}",
            f"layer {layer}",
            named_head(run, head),
            joined_note(maps),
        ),
        title=f"Attention at iteration {iteration} of {run.iterations}",
        framed=framed_row(run, prompt, token),
        theme=theme,
    )


def attention_figure(
    pattern: xr.DataArray,
    *,
    labels: list[str],
    title: str,
    subtitle: str = "",
    framed: tuple[slice, int | None] | None = None,
    theme: str = "light",
) -> _theme.Figure:
    """Draw one attention map.

    Parameters
    ----------
    pattern : DataArray (query, key)
        Attention weights, with the positions of the tokens as coordinates; without them, one cell
        is one token.
    labels : list of str
        One label a token.
    title, subtitle, theme : str
        Words and template.
    framed : (slice, int or None) or None
        Global numbers of the tokens of the prompt, and of the one whose row is framed; None for no
        frame.
    """
    colours = _theme.palette(theme)
    return draw_map(
        pattern,
        labels=labels,
        framed=framed,
        theme=theme,
        look={
            "zmin": 0,
            "zmax": 1,
            "colorscale": weight_colours(colours),
            "colorbar": {"title": {"text": "attention weight"}},
        },
        words="weight %{z:.3f}",
        meta={"role": "attention"},
        title=title,
        subtitle=subtitle,
    )


def weight_colours(colours: _theme.Palette) -> list[list[Any]]:
    """Return a colour scale that follows the square root of the weight."""
    return [[float(stop) ** 2, colour] for stop, colour in colours.from_paper]


def named_head(run: Any, head: int | None) -> str:
    """Say which head is shown."""
    return f"mean of {int(run.attrs['n_heads'])} heads" if head is None else f"head {head}"


def joined_note(maps: xr.Dataset) -> str:
    """Say how many tokens a cell stands for, if several."""
    joined = int(maps.attrs["tokens_per_cell"])
    return f"strongest of {joined} × {joined} tokens a cell" if joined > 1 else ""


def framed_row(run: Any, prompt: int, token: int | None) -> tuple[slice, int | None] | None:
    """Return the tokens of a prompt as rows, if all of them were kept, and the one to frame."""
    tokens = run.token_range(prompt)
    whole = tokens.stop - tokens.start == int(run.prompts["length"].values[prompt])
    return (tokens, token) if whole else None


def cell_labels(labels: Sequence[str], starts: np.ndarray) -> list[str]:
    """Return a label a cell: the token, or the first and the last of those it joins."""
    ends = [*starts[1:].tolist(), len(labels)]
    return [
        labels[start] if end - start == 1 else f"{labels[start]} … {labels[end - 1]}"
        for start, end in zip(starts.tolist(), ends, strict=True)
    ]


def draw_map(
    values: xr.DataArray,
    *,
    labels: list[str],
    framed: tuple[slice, int | None] | None,
    look: dict[str, Any],
    words: str,
    meta: dict[str, Any],
    title: str,
    subtitle: str,
    theme: str,
) -> _theme.Figure:
    """Draw a square map of a prompt, query down and key across.

    Parameters
    ----------
    values : DataArray (query, key)
        What the colour means.
    labels : list of str
        One label a token of the prompt.
    framed
        As for :func:`attention_figure`.
    look : dict
        Colours of the heat map.
    words : str
        Last line of the hover text.
    meta : dict
        Of the heat map, for whoever changes it in a browser.
    title, subtitle, theme : str
        Words and template.
    """
    values = values.transpose("query", "key")
    starts = values["query"].values
    joined = int(starts[1] - starts[0]) if len(starts) > 1 else 1
    centres = starts + (joined - 1) / 2
    pixels = int(np.clip(len(labels) * _CELL, _LEAST, _MOST))
    made = _theme.figure(
        title=title, subtitle=subtitle, theme=theme, height=pixels + 160, width=pixels + 240
    )
    hover, names = "position %{y:.0f} attends to %{x:.0f}", {}
    if values.size <= _MOST_NAMED:
        cells = cell_labels(labels, starts)
        hover = "%{text} (%{y:.0f}) attends to %{customdata} (%{x:.0f})"
        names = {
            "text": [[label] * len(cells) for label in cells],
            "customdata": [cells] * len(cells),
        }
    made.add_trace(
        go.Heatmap(
            z=values.values.astype(np.float32),
            x=centres,
            y=centres,
            **names,
            **look,
            meta=meta | {"joined": joined},
            hoverongaps=False,
            hovertemplate=f"{hover}<br>{words}<extra></extra>",
        )
    )
    positions, texts = _labels.row_ticks(labels, pixels)
    ticks = {"tickvals": positions, "ticktext": texts, "showgrid": False, "constrain": "domain"}
    ends = [-0.5, len(labels) - 0.5]
    angle = -60 if max(map(len, texts)) > 2 else 0
    made.update_xaxes(title="key (attended to)", tickangle=angle, range=ends, **ticks)
    made.update_yaxes(title="query (reads)", scaleanchor="x", range=ends[::-1], **ticks)
    made.update_layout(
        plot_bgcolor=_theme.palette(theme).missing, margin={"b": 84}, meta={"across": "token"}
    )
    if framed is not None:
        _marks.add_row(made, *framed, _theme.palette(theme))
    return made
