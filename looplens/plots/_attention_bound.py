"""The change of attention of every head against the most that the change of its input allows.

Both sides are those of the analysis ``attention_bound``; nothing is computed here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from looplens import analysis
from looplens.errors import AnalysisError
from looplens.plots import _labels, _select, _theme


def attention_bound(
    run: Any,
    prompt: int | None = None,
    layer: int | None = None,
    head: int | None = None,
    restart: int = 0,
    *,
    theme: str = "light",
) -> _theme.Figure:
    """Show the change of attention under its bound.

    Parameters
    ----------
    run : looplens.Run
        A run with recorded attention and the norms of its weights.
    prompt : int or None
        Prompt number; None for the first one with recorded attention.
    layer : int or None
        Core layer; None for the first one whose input is known.
    head : int or None
        Head of the left panel; None for the one with the smallest slack of changes
        beyond rounding.
    restart : int
        Which draw of the initial state.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        Left both sides of one head by iteration; right all heads of the layer, one side against the
        other: the diagonal cannot be passed.

    Raises
    ------
    InputError
        If something asked for does not exist.
    AnalysisError
        If the attention of the prompt was not recorded, or the input of the layer is not known.

    References
    ----------
    Blayney et al., arXiv 2604.11791, proposition 4.2, as summarised in public notes; paper text not
    read.
    """
    recorded = [int(number) for number in run.attention_prompts]
    restart = _select.restart(run, restart)
    found = analysis.get(run, "attention_bound")
    prompt = _select.prompt(run, prompt if prompt is not None else recorded[0])
    if prompt not in recorded:
        raise AnalysisError(
            f"The attention of prompt {prompt} was not recorded (recorded: "
            f"{', '.join(map(str, recorded))})."
        )
    found = found.isel(prompt=recorded.index(prompt), restart=restart)
    known = found["bound"].notnull().any(("iteration", "head"))
    bounded = [int(number) for number in found["layer"].values[known.values]]
    layer = _select.kept_layer(run, layer if layer is not None else (bounded or [0])[0])
    if layer not in bounded:
        raise AnalysisError(
            f"What attention sees in layer {layer} is not known (known: "
            f"{_select.listed(bounded) or 'none'}). Record with sites=('resid_pre', 'resid_post')."
        )
    found = found.sel(layer=layer)
    if head is None:
        beyond = (found["measured"] > found["rounding"]) & np.isfinite(found["slack"])
        slack = found["slack"].where(beyond, np.inf).transpose("iteration", "head").values
        head = int(np.unravel_index(slack.argmin(), slack.shape)[1])
    head = _select.index("head", head, found.sizes["head"])
    return attention_bound_figure(
        found,
        head=head,
        subtitle=_labels.subtitle(run, f"prompt {prompt}", f"restart {restart}", f"layer {layer}"),
        theme=theme,
    )


def attention_bound_figure(
    found: xr.Dataset, *, head: int, subtitle: str = "", theme: str = "light"
) -> _theme.Figure:
    """Draw both sides of the bound in one layer.

    Parameters
    ----------
    found : Dataset
        Variables of the analysis ``attention_bound`` over iteration and head, and ``rounding``.
    head : int
        Which head the left panel shows.
    subtitle, theme : str
        Words and template.
    """
    colours = _theme.palette(theme)
    made = _theme.figure(
        title="Change of attention, and the most that its input allows",
        subtitle=subtitle,
        theme=theme,
        height=480,
    )
    make_subplots(rows=1, cols=2, horizontal_spacing=0.12, figure=made)
    iterations = found["iteration"].values
    sides = (("bound", "bound", "dash", "triangle-down"), ("measured", "change", "solid", "circle"))
    for place, (name, words, dash, symbol) in enumerate(sides):
        made.add_trace(
            go.Scatter(
                name=f"{words}, head {head}",
                x=iterations,
                y=_positive(found[name].isel(head=head).values),
                mode="lines+markers",
                line={"color": colours.categories[1 - place], "dash": dash, "width": 2},
                marker={"symbol": symbol, "size": 5},
                hovertemplate=f"{words}<br>iteration %{{x}}<br>%{{y:.3g}}<extra></extra>",
            ),
            row=1,
            col=1,
        )
    _add_heads(made, found, colours)
    made.add_trace(
        go.Scatter(
            name="rounding",
            x=iterations[[0, -1]],
            y=[float(found["rounding"])] * 2,
            mode="lines",
            line={"color": colours.muted, "dash": "dot", "width": 1.5},
            hovertemplate="what rounding may show: %{y:.3g}<extra></extra>",
        ),
        row=1,
        col=1,
    )
    made.update_xaxes(title="iteration", row=1, col=1)
    measured, bound = found["measured"].values, found["bound"].values
    shown = [found[name].isel(head=head).values for name, *_ in sides]
    rounding = found["rounding"].values
    left = _labels.log_axis(*shown, rounding)
    made.update_yaxes(title="Frobenius norm", row=1, col=1, **left)
    made.update_xaxes(title="bound", row=1, col=2, **_labels.log_axis(bound))
    # The diagonal is drawn too, so that the bound counts on both axes.
    upwards = _labels.log_axis(measured, bound)
    made.update_yaxes(title="change of attention", row=1, col=2, **upwards)
    made.update_layout(
        legend={"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"}, margin={"b": 96}
    )
    return made


def _add_heads(made: _theme.Figure, found: xr.Dataset, colours: _theme.Palette) -> None:
    """Draw one side against the other, a symbol a head, and the diagonal."""
    measured = found["measured"].transpose("head", "iteration").values
    bound = found["bound"].transpose("head", "iteration").values
    for head in range(len(measured)):
        made.add_trace(
            go.Scatter(
                name=f"head {head}",
                x=_positive(bound[head]),
                y=_positive(measured[head]),
                customdata=found["iteration"].values,
                mode="markers",
                marker={
                    "symbol": _theme.TOKEN_SYMBOLS[head % len(_theme.TOKEN_SYMBOLS)],
                    "color": colours.categories[head % len(colours.categories)],
                    "size": 6,
                    "opacity": 0.75,
                },
                hovertemplate=f"head {head}<br>iteration %{{customdata}}<br>bound %{{x:.3g}}"
                "<br>change %{y:.3g}<extra></extra>",
            ),
            row=1,
            col=2,
        )
    known = bound[np.isfinite(bound) & (bound > 0)]
    ends = [float(known.min()), float(known.max())] if known.size else [1e-6, 1.0]
    made.add_trace(
        go.Scatter(
            name="change = bound",
            x=ends,
            y=ends,
            mode="lines",
            line={"color": colours.text, "dash": "dash", "width": 1.5},
            hoverinfo="skip",
        ),
        row=1,
        col=2,
    )


def _positive(values: np.ndarray) -> np.ndarray:
    """Blank what a logarithmic axis has no place for."""
    return np.where(values > 0, values, np.nan)
