"""Attention: the map at one iteration, and how far the maps still change from one to the next.

The map is what was recorded (the mean over heads is the only arithmetic here); the change between
iterations, and when a head settles, are the analysis ``attention_change``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from looplens import analysis
from looplens.errors import AnalysisError
from looplens.plots import _heatmap, _labels, _select, _theme

_CELL = 22
_LEAST, _MOST = 300, 760
_MOST_LABELLED = 160


def attention(
    run: Any,
    prompt: int,
    iteration: int,
    layer: int | None = None,
    head: int | None = None,
    restart: int = 0,
    *,
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
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        Query by key; the colour scale is that of the whole recording of this layer, so that
        iterations can be compared. Keys after the query are left empty.

    Raises
    ------
    InputError
        If something asked for does not exist.
    AnalysisError
        If the attention of this prompt was not recorded.
    """
    prompt = _select.prompt(run, prompt)
    iteration = _select.iteration(run, iteration)
    layer = _select.kept_layer(run, run.recorded_layers[0] if layer is None else layer)
    restart = _select.restart(run, restart)
    patterns = run.attention(prompt, restart=restart, layer=layer)
    if head is None:
        named = f"mean of {patterns.sizes['head']} heads"
        patterns = patterns.mean("head", keep_attrs=True)
    else:
        head = _select.index("head", head, patterns.sizes["head"])
        patterns, named = patterns.isel(head=head), f"head {head}"
    return attention_figure(
        patterns.sel(iteration=iteration),
        labels=_labels.prompt_labels(run, prompt),
        strongest=float(np.nanmax(_causal(patterns.values))),
        subtitle=_labels.subtitle(
            run, f"prompt {prompt}", f"restart {restart}", f"layer {layer}", named
        ),
        title=f"Attention at iteration {iteration} of {run.iterations}",
        theme=theme,
    )


def _causal(patterns: np.ndarray) -> np.ndarray:
    """Blank the keys that come after the query, if the maps are causal.

    A map with weight above the diagonal is not causal and is shown whole.
    """
    above = np.triu(np.ones(patterns.shape[-2:], dtype=bool), k=1)
    if np.nanmax(np.where(above, np.abs(patterns), 0.0), initial=0.0) > 0:
        return patterns
    return np.where(above, np.nan, patterns)


def attention_figure(
    pattern: xr.DataArray,
    *,
    labels: list[str],
    title: str,
    strongest: float | None = None,
    subtitle: str = "",
    theme: str = "light",
) -> _theme.Figure:
    """Draw one attention map.

    Parameters
    ----------
    pattern : DataArray (query, key)
        Attention weights, each row a distribution over keys.
    labels : list of str
        One label a token.
    title, subtitle, theme : str
        Words and template.
    strongest : float or None
        End of the colour scale; None for the largest weight of this map.
    """
    colours = _theme.palette(theme)
    values = _causal(pattern.transpose("query", "key").values).astype(np.float32)
    pixels = int(np.clip(len(labels) * _CELL, _LEAST, _MOST))
    made = _theme.figure(
        title=title, subtitle=subtitle, theme=theme, height=pixels + 200, width=pixels + 260
    )
    hover = "%{y} attends to %{x}"
    names: dict[str, Any] = {}
    if len(labels) <= _MOST_LABELLED:  # a label a cell is dear: long prompts go by position
        hover = "%{text} (%{y}) attends to %{customdata} (%{x})"
        names = {
            "text": [[label] * len(labels) for label in labels],
            "customdata": [list(labels)] * len(labels),
        }
    made.add_trace(
        go.Heatmap(
            z=values,
            x=np.arange(len(labels)),
            y=np.arange(len(labels)),
            **names,
            zmin=0,
            zmax=float(np.nanmax(values)) if strongest is None else strongest,
            colorscale=[list(stop) for stop in colours.from_paper],
            colorbar={"title": {"text": "attention weight"}},
            hoverongaps=False,
            hovertemplate=f"{hover}<br>weight %{{z:.3f}}<extra></extra>",
        )
    )
    positions, texts = _labels.row_ticks(labels, pixels)
    shared = {"tickvals": positions, "ticktext": texts, "showgrid": False}
    made.update_xaxes(
        title="key (attended to)",
        tickangle=-60 if max(map(len, texts)) > 2 else 0,
        constrain="domain",
        range=[-0.5, len(labels) - 0.5],
        **shared,
    )
    made.update_yaxes(
        title="query (reads)",
        scaleanchor="x",
        constrain="domain",
        range=[len(labels) - 0.5, -0.5],
        **shared,
    )
    made.update_layout(plot_bgcolor=colours.missing, margin={"b": 96})
    return made


def attention_change(
    run: Any, prompt: int | None = None, restart: int = 0, *, theme: str = "light"
) -> _theme.Figure:
    """Show how much every head's attention still changes from one iteration to the next.

    Parameters
    ----------
    run : looplens.Run
        A run with recorded attention.
    prompt : int or None
        Prompt number; None for the first one with recorded attention.
    restart : int
        Which draw of the initial state.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        Heads of all layers by iteration, logarithmic colour; a ring where a head settles.

    Raises
    ------
    InputError
        If the prompt or the restart does not exist.
    AnalysisError
        If the attention of this prompt was not recorded.

    References
    ----------
    Blayney et al., arXiv 2604.11791, proposition 4.2 (attention changes no faster than the state)
    and figures 3 and 24; total variation is used here in place of the Frobenius norm.
    """
    recorded = [int(number) for number in run.attention_prompts]
    restart = _select.restart(run, restart)
    prompt = _select.prompt(run, prompt if prompt is not None else recorded[0] if recorded else 0)
    if prompt not in recorded:
        listed = ", ".join(map(str, recorded)) or "none"
        raise AnalysisError(
            f"The attention of prompt {prompt} was not recorded (recorded: {listed})."
        )
    found = analysis.get(run, "attention_change")
    found = found.isel(prompt=recorded.index(prompt), restart=restart)
    change = found["change"].transpose("layer", "head", "iteration")
    heads, iterations = change.shape[1:]
    rows = [
        f"layer {layer}, head {head}" for layer in change["layer"].values for head in range(heads)
    ]
    made = _heatmap.log_heatmap(
        change.values.reshape(-1, iterations),
        change["iteration"].values,
        rows,
        value_title="total variation",
        row_title="",
        title="Change of attention from the iteration before",
        subtitle=_labels.subtitle(
            run, f"prompt {prompt}", f"restart {restart}", "mean over queries"
        ),
        theme=theme,
    )
    settling = found["settling_iteration"]
    tolerance = _labels.number(settling.attrs["tolerance"])
    when = settling.transpose("layer", "head").values.ravel()
    # The first map has no change: a head that is settled from the start is marked at its edge.
    _heatmap.add_row_markers(
        made,
        np.maximum(when, change["iteration"].values[0]),
        name=f"settles: stays within {tolerance} of its limit",
        theme=theme,
        hover=[
            f"{row}<br>settles at iteration {_labels.number(at)}"
            for row, at in zip(rows, when, strict=True)
        ],
    )
    return made
