"""The attention at one iteration minus that at another, cell by cell.

The numbers are those of :func:`looplens.analysis.attention_difference`. More is one colour and less
the other; the strongest cells carry their sign, so that colour does not stand alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from looplens import analysis
from looplens.analysis.attention_views import MOST_SHOWN
from looplens.plots import _attention, _labels, _select, _theme

LEAST_SCALE = 1e-3
"""The colours end at the largest difference, but never below this, which is rounding."""

_MOST_SIGNS = 24


def attention_difference(
    run: Any,
    prompt: int,
    iteration: int,
    other: int = 1,
    layer: int | None = None,
    head: int | None = None,
    restart: int = 0,
    *,
    token: int | None = None,
    theme: str = "light",
) -> _theme.Figure:
    """Show what changed in the attention of a prompt between two iterations.

    Parameters
    ----------
    run : looplens.Run
        A run with recorded attention.
    prompt : int
        Prompt number; its attention must have been recorded.
    iteration, other : int
        Iterations, counted 1..T; what `iteration` has more of is positive.
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
        Query by key, with a sign on the cells that changed most.

    Raises
    ------
    InputError
        If something asked for does not exist.
    AnalysisError
        If the attention of this prompt was not recorded.
    """
    prompt, restart = _select.prompt(run, prompt), _select.restart(run, restart)
    layer = _select.kept_layer(run, run.recorded_layers[0] if layer is None else layer)
    iteration, other = _select.iteration(run, iteration), _select.iteration(run, other)
    found = analysis.attention_difference(
        run,
        prompt,
        iteration,
        other,
        layer=layer,
        head="mean" if head is None else head,
        restart=restart,
        most=MOST_SHOWN,
    )
    return attention_difference_figure(
        found["difference"],
        iteration=iteration,
        other=other,
        labels=_labels.prompt_labels(run, prompt),
        subtitle=_labels.subtitle(
            run,
            f"prompt {prompt}",
            f"restart {restart}",
            f"layer {layer}",
            _attention.named_head(run, head),
            _attention.joined_note(found),
        ),
        framed=_attention.framed_row(run, prompt, token),
        theme=theme,
    )


def attention_difference_figure(
    difference: xr.DataArray,
    *,
    iteration: int,
    other: int,
    labels: list[str],
    subtitle: str = "",
    framed: tuple[slice, int | None] | None = None,
    theme: str = "light",
) -> _theme.Figure:
    """Draw a difference of two attention maps.

    Parameters
    ----------
    difference : DataArray (query, key)
        Between -1 and 1, with the positions of the tokens as coordinates.
    iteration, other : int
        The two iterations.
    labels : list of str
        One label a token.
    subtitle, theme : str
        Words and template.
    framed
        As for :func:`looplens.plots.attention_figure`.
    """
    colours = _theme.palette(theme)
    difference = difference.transpose("query", "key")
    largest = float(np.nanmax(np.abs(difference.values), initial=0.0))
    scale = max(LEAST_SCALE, largest)
    made = _attention.draw_map(
        difference,
        labels=labels,
        framed=framed,
        look={
            "zmin": -scale,
            "zmax": scale,
            "colorscale": [list(stop) for stop in colours.diverging],
            "colorbar": {"title": {"text": f"+ more, − less than at {other}"}},
        },
        words="%{z:+.3g}",
        meta={"role": "attention-difference", "least": LEAST_SCALE, "signs": _MOST_SIGNS},
        title=f"Attention at iteration {iteration}, against iteration {other}",
        subtitle=subtitle,
        theme=theme,
    )
    drawn = made.data[0]
    rows, columns, texts = _signs(difference.values, scale)
    made.add_trace(
        go.Scatter(
            x=np.asarray(drawn.x)[columns].tolist(),
            y=np.asarray(drawn.y)[rows].tolist(),
            text=texts,
            mode="text",
            textfont={"size": 12, "color": colours.paper},
            hoverinfo="skip",
            showlegend=False,
            meta={"role": "signs"},
        )
    )
    return made


def _signs(values: np.ndarray, scale: float) -> tuple[list[int], list[int], list[str]]:
    """Choose the cells that carry their sign: the largest, of at least half of the scale."""
    size = np.nan_to_num(np.abs(values)).ravel()
    order = np.argsort(-size, kind="stable")[:_MOST_SIGNS]
    chosen = order[size[order] >= scale / 2]
    rows, columns = np.unravel_index(chosen, values.shape)
    return (
        rows.tolist(),
        columns.tolist(),
        ["+" if values.ravel()[place] > 0 else "−" for place in chosen],
    )
