"""The attention map of the prompt, following the scrubber.

The maps of all iterations of one layer and head go to the browser once; moving the scrubber swaps
them there (``assets/attention.js``). They travel as 16-bit numbers, so a weight shown while
scrubbing is exact to the 65534th part of the largest one.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import plotly.graph_objects as go
from dash import Dash, Input, Output, State, dcc, no_update
from dash.development.base_component import Component

from looplens import plots
from looplens.errors import AnalysisError
from looplens_dashboard.controls import select
from looplens_dashboard.panels.frame import (
    Panel,
    attempt,
    current,
    figure_outputs,
    graph,
    thin_ticks,
)
from looplens_dashboard.selection import MEAN_HEAD, Selection
from looplens_dashboard.view import View

MOST_WEIGHTS = 6_000_000
"""Above this many weights, only every n-th iteration is sent: 12 MB are enough for a browser."""

_MISSING = 65535


def make(view: View, selection: Selection) -> go.Figure:
    """Draw the map at the selected iteration."""
    _check_recorded(view, selection)
    figure = plots.attention(
        view.run,
        selection.prompt,
        max(1, selection.iteration),
        layer=selection.attention_layer,
        head=selection.head,
        restart=selection.restart,
        theme=selection.theme,
    )
    thin_ticks(figure, "xaxis", "yaxis")
    figure.update_layout(meta={"key": _key(selection)})
    return figure


def frames(view: View, selection: Selection) -> dict[str, Any]:
    """Return the maps of all iterations in the form that ``assets/attention.js`` reads.

    Returns
    -------
    dict
        ``key``: which maps these are, the same as ``meta.key`` of their figure; ``weights``: base64
        of little-endian 16-bit numbers (iteration, query, key), where 65535 is a missing weight and
        65534 is ``scale``; ``iterations``: the number of each map; ``size``: tokens.
    """
    _check_recorded(view, selection)
    patterns = view.run.attention(
        selection.prompt, restart=selection.restart, layer=selection.attention_layer
    )
    if selection.head is None:
        patterns = patterns.mean("head")
    else:
        patterns = patterns.isel(head=selection.head)
    patterns = patterns.transpose("iteration", "query", "key")
    step = -(-patterns.size // MOST_WEIGHTS)
    # Counted from the end, so that the last iteration, which is shown first, is always there.
    patterns = patterns.isel(iteration=slice((patterns.sizes["iteration"] - 1) % step, None, step))
    weights = patterns.values.astype(np.float64)
    above = np.triu(np.ones(weights.shape[1:], dtype=bool), k=1)
    if not np.nan_to_num(weights[:, above]).any():  # causal: keys after the query are no weights
        weights = np.where(above, np.nan, weights)
    finite = np.isfinite(weights)
    scale = float(weights[finite].max()) if finite.any() else 1.0
    coded = np.full(weights.shape, _MISSING, dtype="<u2")
    coded[finite] = np.round(weights[finite] / (scale or 1.0) * (_MISSING - 1)).astype("<u2")
    return {
        "key": _key(selection),
        "weights": base64.b64encode(coded.tobytes()).decode("ascii"),
        "iterations": [int(number) for number in patterns["iteration"].values],
        "size": int(weights.shape[1]),
        "scale": scale,
        "step": step,
    }


def _key(selection: Selection) -> str:
    parts = (selection.prompt, selection.restart, selection.attention_layer, selection.head)
    return "/".join(map(str, parts))


def _check_recorded(view: View, selection: Selection) -> None:
    recorded = view.run.attention_prompts
    if not recorded:
        raise AnalysisError(
            "This run holds no attention. Record it again with the option attention=True (all "
            "prompts) or attention=[0, 1] (these prompts), for example "
            "looplens.record(model, prompts, out=..., attention=True)."
        )
    if selection.prompt not in recorded:
        listed = ", ".join(map(str, recorded[:12])) + (", …" if len(recorded) > 12 else "")
        raise AnalysisError(
            f"The attention of prompt {selection.prompt} was not recorded; that of these prompts "
            f"was: {listed}. The option attention= of looplens.record says which prompts are kept."
        )


def controls(view: View) -> list[Component]:
    """Return the selectors of layer and head."""
    layers = [(str(n), f"layer {n}") for n in view.limits.attention_layers or (0,)]
    heads = [(MEAN_HEAD, "mean of heads")]
    heads += [(str(head), f"head {head}") for head in range(view.limits.heads)]
    return [
        select("attention_layer", "Layer of the attention", layers, width=100),
        select("head", "Head", heads, width=130),
    ]


def register(app: Dash, view: View) -> None:
    """Draw the map and send all iterations whenever one of the keys of the panel changes."""

    @app.callback(
        Output("attention-graph", "figure"),
        Output("attention-caption", "children"),
        Output("attention-message", "children"),
        Output("attention-figure", "className"),
        Output("attention-frames", "data"),
        Input("attention-view", "data"),
        State("selection", "data"),
        State("iteration", "data"),
    )
    def draw(changed: Any, values: Any, iteration: Any) -> tuple[Any, ...]:
        selection = current(view, changed, values, iteration)
        figure, caption, trouble, shown = figure_outputs(lambda: make(view, selection))
        if trouble is not None:
            return figure, caption, trouble, shown, None
        sent, trouble = attempt(lambda: frames(view, selection))
        if trouble is not None:
            return no_update, "", trouble, "figure hidden", None
        if sent["step"] > 1:
            caption += f" · one of {sent['step']} iterations, to keep the page quick"
        return figure, caption, None, shown, sent


PANEL = Panel(
    name="attention",
    title="Attention",
    keys=("prompt", "restart", "attention_layer", "head", "theme"),
    body=lambda _view: [*graph("attention"), dcc.Store(id="attention-frames")],
    controls=controls,
    register=register,
)
