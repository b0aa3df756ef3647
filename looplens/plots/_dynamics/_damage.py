"""The damage cone of a replaced state: tokens over passes.

The numbers are those of ``dynamics/damage_cone``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from looplens.plots import _heatmap, _labels, _theme
from looplens.plots._dynamics import _stored


def damage_cone(run: Any, token: int | None = None, *, theme: str = "light") -> _theme.Figure:
    """Show which tokens notice that a token's state was replaced, and when.

    Parameters
    ----------
    run : looplens.Run
        The opened run, with a result ``dynamics/damage_cone``.
    token : int, optional
        Number of the replaced token in the run; by default the first one of the result.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        Distance from the undamaged run, tokens over iterations, with the first damaged pass marked.

    Raises
    ------
    InputError
        If the run has no such token.
    AnalysisError
        If the run holds no such result.
    """
    result, token = _stored.stored(run, "damage_cone", token)
    prompt = int(run.tokens["prompt"].values[token])
    labels = [
        f"{position} {label}" for position, label in enumerate(_labels.prompt_labels(run, prompt))
    ]
    return damage_cone_figure(
        result,
        token,
        labels=labels,
        subtitle=_labels.of_prompt(run, token),
        theme=theme,
    )


def damage_cone_figure(
    result: xr.Dataset,
    token: int | None = None,
    *,
    labels: Sequence[str] | None = None,
    subtitle: str = "",
    theme: str = "light",
) -> _theme.Figure:
    """Draw the damage cone of one token of a result.

    Parameters
    ----------
    result : Dataset
        What :func:`looplens.dynamics.damage_cone` returns.
    token : int, optional
        Token number; by default the first one.
    labels : sequence of str, optional
        One a position; by default their numbers.
    subtitle, theme : str
        Words and template.
    """
    # Prompts of other lengths are in the result too.
    one = _stored.of_token(result, token).dropna("affected", how="all", subset=["distance"])
    one = one.dropna("iteration", how="all", subset=["distance"])
    rows = [int(place) for place in one["affected"].values]
    named = [str(row) for row in rows] if labels is None else [labels[row] for row in rows]
    attrs, speed = result.attrs, float(one["speed"])
    moving = str(one["speed_note"].item())
    if np.isfinite(speed):
        error = _labels.number(float(one["speed_error"]), digits=1)
        moving = (
            f"frontier: <b>{_labels.number(speed)}</b> ± {error} positions a pass "
            f"(R² {_labels.number(float(one['speed_r2']), digits=2)})"
        )
    held = ", held" if attrs.get("hold") else ""
    threshold = _labels.number(float(attrs["threshold"]))
    what = (
        f"{_labels.escape(str(attrs['site']))} of position {int(one['position'])} replaced at pass "
        f"{attrs['iteration']}{held}"
    )
    lines = [subtitle, what, moving, f"damaged: distance above {threshold}"]
    lines = [line for line in lines if line]
    made = _heatmap.log_heatmap(
        one["distance"].transpose("affected", "iteration").values,
        one["iteration"].values,
        named,
        value_title="distance over the norm",
        row_title="token",
        title="Damage cone",
        subtitle="<br>".join(lines),
        theme=theme,
    )
    arrival = one["arrival"].values.astype(np.float64)
    hover = [
        f"{label}<br>first damaged at iteration {when:g}"
        for label, when in zip(named, arrival, strict=True)
    ]
    _heatmap.add_row_markers(made, arrival, name="first damaged", theme=theme, hover=hover)
    made.update_layout(
        legend={"x": 1, "xanchor": "right"},
        margin={"t": 84 + 17 * len(lines)},
        height=made.layout.height + 17 * len(lines),
    )
    return made
