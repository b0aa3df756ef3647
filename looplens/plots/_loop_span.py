"""Which layers of an ordinary model to loop: the angular distance of every layer, and its knees.

Above, the distances with the encoder, the span to loop and the decoder; below, the two difference
curves whose maxima are the knees. All numbers are those of ``analysis.choose_loop_span``.
"""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from looplens.analysis import Knee, LoopSpan
from looplens.plots import _labels, _theme

_SIDES = (("forward", "encoder ends", "triangle-down"), ("backward", "decoder starts", "square"))


def loop_span(span: LoopSpan, theme: str = "light", *, name: str = "") -> _theme.Figure:
    """Show the angular distance of every layer, its knees and the span between them.

    Parameters
    ----------
    span : LoopSpan
        From :func:`looplens.analysis.choose_loop_span`.
    theme : {"light", "dark"}
        Template.
    name : str
        What the model is called.

    Returns
    -------
    Figure
        Two panels over layers. Where there is no span, the knees that were found are drawn and the
        subtitle says what is missing.

    References
    ----------
    Koishekenov et al., arXiv:2510.07358 (angular distance, knees); Satopää et al. 2011 (difference
    curve).
    """
    colours = _theme.palette(theme)
    made = _theme.figure(
        title="Layers to loop: angular distance and its knees",
        subtitle=_subtitle(span, name),
        theme=theme,
        height=580,
    )
    panels = {"rows": 2, "cols": 1, "row_heights": [0.6, 0.4], "vertical_spacing": 0.09}
    make_subplots(**panels, shared_xaxes=True, figure=made)
    layers = np.arange(span.n_layers)
    made.add_trace(
        go.Scatter(
            x=layers,
            y=span.distance,
            error_y={"array": span.standard_error, "thickness": 1, "width": 3}
            if np.isfinite(span.standard_error).any()
            else None,
            mode="lines+markers",
            name="angular distance",
            line={"color": colours.text, "width": 2},
            marker={"size": 6},
            hovertemplate="layer %{x}<br>angular distance %{y:.4f}<extra></extra>",
            showlegend=False,
            meta={"role": "distance"},
        ),
        row=1,
        col=1,
    )
    for (side, what, symbol), colour in zip(_SIDES, colours.categories, strict=False):
        knee: Knee = getattr(span, side)
        at = span.encoder_end if side == "forward" else span.decoder_start
        curve = knee.difference if side == "forward" else knee.difference[::-1]
        made.add_trace(
            go.Scatter(
                x=layers,
                y=curve,
                mode="lines",
                name=f"difference curve, {side}",
                line={
                    "color": colour,
                    "width": 2,
                    "dash": "solid" if side == "forward" else "dash",
                },
                hovertemplate=f"layer %{{x}}<br>{side} %{{y:.3f}}<extra></extra>",
                meta={"role": side},
            ),
            row=2,
            col=1,
        )
        if at is None:
            continue
        for row, values in ((1, span.distance), (2, curve)):
            made.add_trace(
                go.Scatter(
                    x=[at],
                    y=[values[at]],
                    mode="markers",
                    name=f"{what}: layer {at}",
                    marker={
                        "symbol": symbol,
                        "size": 13,
                        "color": colour,
                        "line": {"width": 2, "color": colours.paper},
                    },
                    hovertemplate=f"{what}: layer {at}<extra></extra>",
                    showlegend=row == 1,
                    meta={"role": "knee"},
                ),
                row=row,
                col=1,
            )
    if not span.reason:
        _mark_span(made, span, colours)
    made.update_xaxes(range=[-0.5, span.n_layers - 0.5], dtick=max(1, span.n_layers // 16))
    made.update_xaxes(title="layer", row=2, col=1)
    made.update_yaxes(title="angular distance (half turns)", rangemode="tozero", row=1, col=1)
    made.update_yaxes(title="difference curve", row=2, col=1)
    made.update_layout(
        legend={"orientation": "h", "x": 0, "y": -0.16, "yanchor": "top"},
        margin={"t": 100, "b": 96},
    )
    return made


def _subtitle(span: LoopSpan, name: str) -> str:
    """Say of what, from how many prompts, and with which result."""
    prompts = f"{span.prompts} prompt{'s' if span.prompts > 1 else ''}"
    result = span.reason.partition(";")[0] if span.reason else str(span)
    parts = (name, prompts, f"sensitivity {_labels.number(span.forward.sensitivity)}", result)
    return " · ".join(_labels.escape(part) for part in parts if part)


def _mark_span(made: _theme.Figure, span: LoopSpan, colours: _theme.Palette) -> None:
    """Shade the layers to loop in both panels, and name the three parts above the first."""
    for row in (1, 2):
        made.add_vrect(
            x0=span.start - 0.5,
            x1=span.stop - 0.5,
            fillcolor=colours.accent,
            opacity=0.1,
            line_width=0,
            layer="below",
            row=row,
            col=1,
        )
    parts = (("encoder", 0, span.start), ("loop", span.start, span.stop))
    for text, start, stop in (*parts, ("decoder", span.stop, span.n_layers)):
        made.add_annotation(
            x=(start + stop - 1) / 2,
            y=1,
            yref="y domain",
            yanchor="bottom",
            text=f"{text} ({stop - start})",
            showarrow=False,
            font={"size": 12, "color": colours.muted},
        )
