"""Answers over the iterations: which iterations agree, and where the right answer ranks.

The matrix is that of the analysis ``readout``; ranks are read as they were recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from looplens import analysis
from looplens.errors import AnalysisError
from looplens.plots import _labels, _marks, _select, _theme
from looplens.plots._flips import MOST_TOKENS


def prediction_agreement(run: Any, *, theme: str = "light") -> _theme.Figure:
    """Show how many predictions two iterations share.

    Parameters
    ----------
    run : looplens.Run
        A run with readouts.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        A heat map (iteration, iteration) of the share of trajectories with the same best token.

    Raises
    ------
    AnalysisError
        If the run has no readout.

    References
    ----------
    Zhu et al., arXiv 2510.25741 (agreement of predictions between steps).
    """
    results = analysis.get(run, "readout")
    return prediction_agreement_figure(
        results["prediction_agreement"].values,
        results["compared"].values,
        subtitle=_labels.subtitle(
            run, f"{run.n_tokens} tokens × {run.restarts} restart{'s' if run.restarts > 1 else ''}"
        ),
        theme=theme,
    )


def prediction_agreement_figure(
    share: np.ndarray,
    iterations: Sequence[int] | np.ndarray,
    *,
    subtitle: str = "",
    theme: str = "light",
) -> _theme.Figure:
    """Draw a matrix of agreement, shape (iteration, iteration), between 0 and 1."""
    made = _theme.figure(
        title="Iterations that predict the same token", subtitle=subtitle, theme=theme, height=520
    )
    names = [str(number) for number in iterations]
    made.add_trace(
        go.Heatmap(
            z=share,
            x=names,
            y=names,
            zmin=0,
            zmax=1,
            colorscale=[list(stop) for stop in _theme.palette(theme).sequential],
            colorbar={"title": {"text": "share of trajectories"}, "tickformat": ".0%"},
            hovertemplate="iterations %{x} and %{y}<br>%{z:.1%}<extra></extra>",
        )
    )
    made.update_xaxes(title="iteration", type="category", nticks=16)
    made.update_yaxes(
        title="iteration", type="category", nticks=16, scaleanchor="x", constrain="domain"
    )
    made.update_xaxes(constrain="domain", showgrid=False)
    return made


def target_ranks(
    run: Any,
    prompt: int,
    restart: int = 0,
    *,
    token: int | None = None,
    iteration: int | None = None,
    theme: str = "light",
) -> _theme.Figure:
    """Show the rank of the right answer after every iteration, for the tokens of a prompt.

    Parameters
    ----------
    run : looplens.Run
        A run with readouts and targets.
    prompt : int
        Which prompt.
    restart : int
        Which draw of the initial state.
    token : int or None
        Global number of a token; of a long prompt those around it are shown.
    iteration : int or None
        Where the cursor stands; None keeps it out of sight.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        A heat map (token, iteration) of the tokens that have a target; 0 is a right answer.

    Raises
    ------
    InputError
        If the prompt, token or restart does not exist.
    AnalysisError
        If the run has no readout, or no token of the prompt has a target.

    References
    ----------
    Lu et al., arXiv 2507.02199 (rank trajectories; as summarised elsewhere).
    """
    prompt, restart = _select.prompt(run, prompt), _select.restart(run, restart)
    recorded = run.readout["target_rank"]
    span, note = _select.window(run.token_range(prompt), token, MOST_TOKENS)
    tokens = np.arange(span.start, span.stop)
    tokens = tokens[run.tokens["target"].values[tokens] >= 0]
    if not len(tokens):
        raise AnalysisError(
            f"No token of prompt {prompt} has a target, so no answer is right. Record with "
            "looplens.Prompt(..., targets=...)."
        )
    ranks = recorded.isel(restart=restart, token=tokens)
    return target_ranks_figure(
        ranks.transpose("token", "iteration").values,
        _labels.token_labels(run, tokens, position=True),
        run.kept_iterations,
        iteration=iteration,
        subtitle=_labels.subtitle(run, f"prompt {prompt}", f"restart {restart}", note),
        theme=theme,
    )


def target_ranks_figure(
    ranks: np.ndarray,
    labels: Sequence[str],
    iterations: Sequence[int] | np.ndarray,
    *,
    iteration: int | None = None,
    subtitle: str = "",
    theme: str = "light",
) -> _theme.Figure:
    """Draw ranks, shape (token, iteration), counted from 0; negative where there is none."""
    height = int(np.clip(150 + _labels.PIXELS_PER_ROW * len(labels), 320, 560))
    made = _theme.figure(
        title="Rank of the right answer", subtitle=subtitle, theme=theme, height=height
    )
    known = np.where(np.asarray(ranks) >= 0, ranks, np.nan).astype(np.float64)
    top = max(1.0, float(np.nanmax(known, initial=0.0)))
    stops = [0, *[value for value in (1, 3, 10, 100, 1000, 10_000, 100_000) if value < top], top]
    made.add_trace(
        go.Heatmap(
            z=np.log10(known + 1),
            x=list(iterations),
            y=list(range(len(labels))),
            text=np.array([[label] * len(iterations) for label in labels], dtype=object),
            customdata=known,
            zmin=0,
            zmax=np.log10(top + 1),
            colorscale=[list(stop) for stop in _theme.palette(theme).sequential],
            colorbar={
                "title": {"text": "rank (0 is right)"},
                "tickvals": [float(np.log10(stop + 1)) for stop in stops],
                "ticktext": [f"{stop:g}" for stop in stops],
            },
            hovertemplate="%{text}<br>iteration %{x}<br>rank %{customdata}<extra></extra>",
        )
    )
    positions, texts = _labels.row_ticks(list(labels), height - 140)
    made.update_yaxes(autorange="reversed", tickvals=positions, ticktext=texts, showgrid=False)
    _marks.add_line(made, iteration, _theme.palette(theme))
    edges = [iterations[0] - 0.5, iterations[-1] + 0.5]
    made.update_xaxes(title="iteration", range=edges, showgrid=False)
    return made
