"""Whether the tokens of a prompt grow alike: mean cosine and spread over the iterations.

One thin line a prompt, the chosen one thick. The numbers are those of ``token_collapse``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from looplens import analysis
from looplens.plots import _labels, _select, _theme

_MOST_LINES = 60


def token_collapse(
    run: Any, prompt: int = 0, restart: int = 0, *, theme: str = "light"
) -> _theme.Figure:
    """Show how alike the tokens of each prompt are.

    Parameters
    ----------
    run : looplens.Run
        The opened run.
    prompt : int
        The prompt that is drawn thick.
    restart : int
        Which draw of the initial state.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        Mean cosine between tokens, and their spread, over the iterations.

    Raises
    ------
    InputError
        If the prompt or the restart does not exist.
    AnalysisError
        If no block of the run is recorded.
    """
    prompt, restart = _select.prompt(run, prompt), _select.restart(run, restart)
    results = analysis.get(run, "token_collapse").isel(restart=restart)
    return token_collapse_figure(
        results,
        prompt,
        subtitle=_labels.subtitle(run, f"{run.n_prompts} prompts", f"restart {restart}"),
        theme=theme,
    )


def token_collapse_figure(
    results: xr.Dataset, prompt: int, *, subtitle: str = "", theme: str = "light"
) -> _theme.Figure:
    """Draw how alike tokens are.

    Parameters
    ----------
    results : Dataset (prompt, iteration)
        ``token_cosine`` and ``token_spread``.
    prompt : int
        Which one is drawn thick.
    subtitle, theme : str
        Words and template.
    """
    colours = _theme.palette(theme)
    iterations = results["iteration"].values
    prompts = results["prompt"].values
    every = max(1, -(-len(prompts) // _MOST_LINES))
    if every > 1:
        subtitle += f"<br>one prompt in {every} is drawn"
    made = _theme.figure(
        title="How alike the tokens of a prompt are", subtitle=subtitle, theme=theme, height=420
    )
    make_subplots(rows=1, cols=2, horizontal_spacing=0.12, figure=made)
    for column, name in enumerate(("token_cosine", "token_spread"), start=1):
        values = results[name].transpose("prompt", "iteration").values
        others = [row for row in range(0, len(prompts), every) if prompts[row] != prompt]
        made.add_trace(
            go.Scatter(
                # One trace for all, with gaps between: hundreds of traces are slow.
                x=np.tile(np.append(iterations.astype(float), np.nan), len(others)),
                y=np.concatenate(
                    [np.append(values[row], np.nan) for row in others] or [np.array([np.nan])]
                ),
                mode="lines",
                name="other prompts",
                line={"color": colours.muted, "width": 1},
                opacity=0.5,
                showlegend=column == 1,
                hoverinfo="skip",
            ),
            row=1,
            col=column,
        )
        for row in np.flatnonzero(prompts == prompt):
            made.add_trace(
                go.Scatter(
                    x=iterations,
                    y=values[row],
                    mode="lines+markers" if len(iterations) <= 160 else "lines",
                    name=f"prompt {prompt}",
                    line={"color": colours.categories[0], "width": 2.5},
                    marker={"size": 4},
                    showlegend=column == 1,
                    hovertemplate="iteration %{x}<br>%{y:.3f}<extra></extra>",
                ),
                row=1,
                col=column,
            )
    threshold = results["token_cosine"].attrs.get("threshold")
    if isinstance(threshold, int | float):
        made.add_hline(
            y=threshold,
            line={"color": colours.accent, "dash": "dash", "width": 1.5},
            annotation={"text": f"collapse {_labels.number(threshold)}", "yanchor": "bottom"},
            row=1,
            col=1,
        )
    lowest = float(np.nanmin(results["token_cosine"].values, initial=0.0))
    made.update_yaxes(title="mean cosine of tokens", range=[lowest - 0.05, 1.05], row=1, col=1)
    made.update_yaxes(title="spread / norm", range=[-0.02, 1.05], row=1, col=2)
    made.update_xaxes(title="iteration")
    made.update_layout(
        legend={"orientation": "h", "x": 0, "y": -0.18, "yanchor": "top"}, margin={"b": 84}
    )
    return made
