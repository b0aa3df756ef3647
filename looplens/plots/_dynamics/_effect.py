"""What patching a token does to the answer: layer by pass, patched once and held.

The numbers are those of ``dynamics/causal_effect``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from looplens.plots import _labels, _theme
from looplens.plots._dynamics import _stored

_MODES = {"once": "patched once", "held": "held in every later pass"}
_ROW, _LABELLED = 44, 17  # pixels a layer; columns that have room for numbers
_VALUES = {
    "recovered": "share recovered",
    "logit_difference": "difference of logits",
    "kl": "KL from the clean (nat)",
}


def causal_effect(run: Any, token: int | None = None, *, theme: str = "light") -> _theme.Figure:
    """Show what clean activations of a token do to a corrupt prompt's answer.

    Parameters
    ----------
    run : looplens.Run
        The opened run, with a result ``dynamics/causal_effect``.
    token : int, optional
        Token number in the run; by default the first one of the result.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        Two heat maps, layers over passes: patched once, and held.

    Raises
    ------
    InputError
        If the run has no such token.
    AnalysisError
        If the run holds no such result.
    """
    result, token = _stored.stored(run, "causal_effect", token)
    return causal_effect_figure(result, token, subtitle=_labels.of_prompt(run, token), theme=theme)


def causal_effect_figure(
    result: xr.Dataset,
    token: int | None = None,
    *,
    value: str = "recovered",
    subtitle: str = "",
    theme: str = "light",
) -> _theme.Figure:
    """Draw the effect of one token of a result.

    Parameters
    ----------
    result : Dataset
        What :func:`looplens.dynamics.causal_effect` returns.
    token : int, optional
        Token number; by default the first one.
    value : {"recovered", "logit_difference", "kl"}
        What is drawn; where both prompts have the same answer nothing can be recovered, and the
        divergence is drawn instead.
    subtitle, theme : str
        Words and template.
    """
    colours = _theme.palette(theme)
    one = _stored.of_token(result, token)
    if value == "recovered" and not np.isfinite(one["recovered"].values).any():
        value = "kl"
    cells = one[value].transpose("mode", "layer", "patched")
    known = cells.values[np.isfinite(cells.values)]
    low, high = (0.0, 1.0) if value == "recovered" else _range(known)
    layers, passes = cells["layer"].values, cells["patched"].values
    lines = [line for line in (subtitle, *_words(one, result.attrs, value)) if line]
    made = _theme.figure(
        title=f"Causal effect of {_labels.escape(str(result.attrs['site']))}",
        subtitle="<br>".join(lines),
        theme=theme,
        height=190 + 17 * len(lines) + max(110, 2 * _ROW * len(layers)),
    )
    made.set_subplots(
        rows=2,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.16,
        subplot_titles=[_MODES[str(mode)] for mode in cells["mode"].values],
    )
    for row, mode in enumerate(cells["mode"].values, start=1):
        shown = cells.sel(mode=mode).values.astype(np.float64)
        made.add_trace(
            go.Heatmap(
                z=np.clip(shown, low, high),
                customdata=shown,
                x=[str(number) for number in passes],
                y=[str(layer) for layer in layers],
                zmin=low,
                zmax=high,
                colorscale=[list(stop) for stop in colours.from_paper],
                showscale=row == 1,
                colorbar={"title": {"text": _VALUES[value]}, "len": 1.0},
                text=[[_cell(number, value) for number in line] for line in shown],
                texttemplate="%{text}" if len(passes) <= _LABELLED else None,
                textfont={"size": 11},
                xgap=1,
                ygap=1,
                hovertemplate=(
                    f"layer %{{y}}, from pass %{{x}} ({_MODES[str(mode)]})<br>{_VALUES[value]} "
                    "%{customdata:.3g}<extra></extra>"
                ),
            ),
            row=row,
            col=1,
        )
    made.update_yaxes(title="layer", type="category", showgrid=False)
    made.update_xaxes(type="category", showgrid=False)
    made.update_xaxes(title="first patched pass", row=2, col=1)
    made.update_annotations(font={"size": 13}, x=0, xanchor="left")
    made.update_layout(plot_bgcolor=colours.missing, margin={"t": 84 + 17 * len(lines), "b": 60})
    return made


def _cell(number: float, value: str) -> str:
    if value != "recovered":
        return _labels.number(number, digits=2)
    shown = f"{number:.2f}" if np.isfinite(number) else "–"
    return "0" if shown in ("0.00", "-0.00") else shown.replace("-", "−")


def _range(known: np.ndarray) -> tuple[float, float]:
    if not known.size:
        return 0.0, 1.0
    low, high = min(0.0, float(known.min())), float(known.max())
    return low, high if high > low else low + 1


def _words(one: xr.Dataset, attrs: dict[str, Any], value: str) -> tuple[str, str]:
    together = attrs.get("patched_tokens") != "one at a time"
    which = "all chosen tokens together" if together else f"position {int(one['position'])}"
    start, goal = float(one["corrupt_difference"]), float(one["clean_difference"])
    scale = (
        f"difference of logits {_labels.number(start)} (0) to {_labels.number(goal)} (1)"
        if value == "recovered"
        else f"corrupt prompt: KL {_labels.number(float(one['corrupt_kl']))} nat"
    )
    return f"{which}, read at position {int(one['answer_position'])}", scale
