"""How the candidates for a prediction rise and fall over the iterations, in probability and rank.

The curves are those of :func:`looplens.analysis.candidates`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from looplens import analysis
from looplens.plots import _labels, _marks, _select, _theme

_DASHES = ("solid", "dash", "dot", "dashdot")


def rank_trajectories(
    run: Any,
    token: int,
    restart: int = 0,
    *,
    most: int = 6,
    iteration: int | None = None,
    theme: str = "light",
) -> _theme.Figure:
    """Show probability and rank of the candidates for a prediction over the iterations.

    Parameters
    ----------
    run : looplens.Run
        A run with readouts.
    token, restart : int
        Which trajectory.
    most : int
        How many candidates; the target, where there is one, is the first.
    iteration : int or None
        Where the cursor stands; None keeps it out of sight.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        Above probabilities, below ranks from 1, the best at the top. A curve has gaps where its
        token is not among the recorded ones.

    Raises
    ------
    InputError
        If there is no such token or restart.
    AnalysisError
        If the run has no readout.

    References
    ----------
    Lu et al., arXiv 2507.02199 (rank trajectories; as summarised elsewhere).
    """
    token, restart = _select.token(run, token), _select.restart(run, restart)
    found = analysis.candidates(run, token, restart, most=most)
    left_out = int(found.attrs["left_out"])
    return rank_trajectories_figure(
        found,
        iteration=iteration,
        subtitle=_labels.of_prompt(
            run,
            token,
            f"restart {restart}",
            f"{len(found['text'])} of {left_out + len(found['text'])} that were recorded"
            if left_out
            else "",
        ),
        theme=theme,
    )


def rank_trajectories_figure(
    candidates: xr.Dataset,
    *,
    iteration: int | None = None,
    subtitle: str = "",
    theme: str = "light",
) -> _theme.Figure:
    """Draw a dataset of :func:`looplens.analysis.candidates`.

    Parameters
    ----------
    candidates : Dataset
        ``probability`` and ``rank`` (candidate, iteration), ``text`` and ``is_target`` (candidate).
    iteration, subtitle, theme
        See :func:`rank_trajectories`.
    """
    colours = _theme.palette(theme)
    made = _theme.figure(
        title="Candidates for the prediction", subtitle=subtitle, theme=theme, height=500
    )
    make_subplots(
        rows=2,
        cols=1,
        shared_xaxes=True,
        row_heights=[0.55, 0.45],
        vertical_spacing=0.06,
        figure=made,
    )
    times, right = candidates["iteration"].values, candidates["is_target"].values
    ranks = candidates["rank"].values + 1.0
    for number, text in enumerate(candidates["text"].values):
        target = bool(right[number])
        # The target takes no colour of the other candidates'.
        colour = colours.text if target else colours.categories[number % len(colours.categories)]
        word = _labels.written(str(text)) + (" (right answer)" if target else "")
        for row, values in ((1, candidates["probability"].values[number]), (2, ranks[number])):
            shown = "probability %{y:.2%}" if row == 1 else "rank %{y:.0f}"
            made.add_trace(
                go.Scatter(
                    name=word,
                    x=times,
                    y=values,
                    mode="lines+markers",
                    legendgroup=str(number),
                    showlegend=row == 1,
                    line={
                        "color": colour,
                        "width": 3 if target else 1.5,
                        "dash": _DASHES[number % len(_DASHES)],
                    },
                    marker={
                        "symbol": _theme.TOKEN_SYMBOLS[number % len(_theme.TOKEN_SYMBOLS)],
                        "size": 7 if target else 5,
                    },
                    hovertemplate=f"{word}<br>iteration %{{x}}<br>{shown}<extra></extra>",
                ),
                row=row,
                col=1,
            )
    for axis in ("", "2"):
        _marks.add_line(made, iteration, colours, axis=axis)
    made.update_xaxes(range=[times[0] - 0.5, times[-1] + 0.5])
    made.update_xaxes(title="iteration", row=2, col=1)
    made.update_yaxes(title="probability", range=[-0.03, 1.03], tickformat=".0%", row=1, col=1)
    made.update_yaxes(title="rank", **_rank_axis(ranks), row=2, col=1)
    made.update_layout(
        legend={"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom"}, margin={"t": 124}
    )
    return made


def _rank_axis(ranks: np.ndarray) -> dict[str, Any]:
    """Return an axis with rank 1 at the top; a logarithmic one where ranks go far."""
    worst = float(np.nanmax(ranks, initial=2.0))
    if worst <= 12:
        return {"range": [worst + 0.5, 0.5], "dtick": 1 if worst <= 6 else 2, "tick0": 1}
    ticks = [rank for rank in (1, 2, 5, 10, 100, 1000, 10_000, 100_000) if rank <= worst]
    return {
        "type": "log",
        "range": [np.log10(worst * 1.2), np.log10(0.8)],
        "tickvals": ticks,
        "ticktext": [str(rank) for rank in ticks],
    }
