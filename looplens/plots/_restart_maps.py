"""Restarts of all tokens of a prompt, iteration by iteration: how far apart, and saying the same.

Above each map a curve of the prompt, beside that of the run. Numbers come from the analysis
``path_independence`` and from :func:`looplens.analysis.restart_curves`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from looplens import analysis
from looplens.plots import _heatmap, _labels, _map_curves, _marks, _select, _theme


def restart_gaps(
    run: Any,
    prompt: int,
    *,
    iteration: int | None = None,
    token: int | None = None,
    theme: str = "light",
) -> _theme.Figure:
    """Show how far apart the restarts of every token of a prompt are.

    Parameters
    ----------
    run : looplens.Run
        A run with at least two restarts.
    prompt : int
        Number of the prompt.
    iteration : int or None
        Where the cursor stands; None keeps it out of sight.
    token : int or None
        Global number of the token whose row is framed.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        A heat map (token, iteration) of the distance between restarts over their norm, mean of
        pairs, with the iteration up to which each token contracts; above it the median of the
        prompt, and that of the run with its middle 80 %.

    Raises
    ------
    InputError
        If the prompt does not exist, or the token is not in it.
    AnalysisError
        If the run holds only one restart, or not all iterations.
    """
    prompt = _select.prompt(run, prompt)
    tokens = run.token_range(prompt)
    found = analysis.get(run, "path_independence")
    wanted = ["gap", "gap_rate", "gap_rate_error", "gap_fit_end"]
    curves = analysis.restart_curves(run, prompt)
    return restart_gaps_figure(
        found[wanted].isel(token=tokens).load(),
        curves,
        labels=_labels.token_labels(run, tokens),
        tokens=tokens,
        iteration=iteration,
        token=token,
        subtitle=_labels.subtitle(
            run, f"prompt {prompt}", f"{run.restarts} restarts", _sampled(curves)
        ),
        theme=theme,
    )


def restart_gaps_figure(
    found: xr.Dataset,
    curves: xr.Dataset,
    *,
    labels: list[str],
    tokens: slice,
    iteration: int | None = None,
    token: int | None = None,
    subtitle: str = "",
    theme: str = "light",
) -> _theme.Figure:
    """Draw the distance between restarts from labelled arrays.

    Parameters
    ----------
    found : Dataset
        ``gap`` (token, iteration), ``gap_rate``, ``gap_rate_error``, ``gap_fit_end`` (token) of
        the tokens of a prompt.
    curves : Dataset
        ``run`` (quantile, iteration), three quantiles over the run, and ``prompt`` (iteration).
    labels : list of str
        One label a token.
    tokens : slice
        Their global numbers.
    iteration, token, subtitle, theme
        As for :func:`restart_gaps`.
    """
    gap = found["gap"].transpose("token", "iteration")
    iterations = gap["iteration"].values
    contracts = (found["gap_rate"] + 2 * found["gap_rate_error"] < 1).values
    if not contracts.all():
        subtitle += f" · {int((~contracts).sum())} of {len(labels)} tokens do not contract"
    made = _heatmap.log_heatmap(
        gap.values,
        iterations,
        labels,
        value_title="distance / norm",
        row_title="token",
        title="Distance between restarts",
        subtitle=subtitle,
        theme=theme,
    )
    ends = np.where(contracts, found["gap_fit_end"].values, np.nan)
    rates = found["gap_rate"].values
    _heatmap.add_row_markers(
        made,
        ends,
        name="contracts up to here",
        theme=theme,
        hover=[
            f"{label}<br>×{_labels.number(rate)} an iteration up to {end:g}"
            for label, rate, end in zip(labels, rates, ends, strict=True)
        ],
    )
    of_prompt, of_run = curves["prompt"].values, curves["run"].values
    axis = _labels.decade_axis(of_run, of_prompt)
    for ticks in ("tickvals", "ticktext"):  # few fit beside a low axis
        axis[ticks] = axis[ticks][:: -(-len(axis[ticks]) // 3)]
    _map_curves.add_curves(made, iterations, of_prompt, of_run, "median", axis, theme)
    return _finish(made, tokens, iteration, token, theme)


def restart_agreement(
    run: Any,
    prompt: int,
    *,
    iteration: int | None = None,
    token: int | None = None,
    theme: str = "light",
) -> _theme.Figure:
    """Show whether the restarts of every token of a prompt predict the same.

    Parameters
    ----------
    run : looplens.Run
        A run with readouts and at least two restarts.
    prompt : int
        Number of the prompt.
    iteration : int or None
        Where the cursor stands; None keeps it out of sight.
    token : int or None
        Global number of the token whose row is framed.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        A heat map (token, iteration) of the share of pairs of restarts with the same best token;
        above it the mean of the prompt and that of the run.

    Raises
    ------
    InputError
        If the prompt does not exist, or the token is not in it.
    AnalysisError
        If the run has no readout, holds only one restart, or not all iterations.
    """
    prompt = _select.prompt(run, prompt)
    found = analysis.get(run, "path_independence")
    tokens = run.token_range(prompt)
    curves = analysis.restart_curves(run, prompt, of="readout_agreement")
    return restart_agreement_figure(
        found["readout_agreement"].isel(token=tokens),
        curves,
        labels=_labels.token_labels(run, tokens),
        tokens=tokens,
        iteration=iteration,
        token=token,
        subtitle=_labels.subtitle(
            run, f"prompt {prompt}", f"{run.restarts} restarts", _sampled(curves)
        ),
        theme=theme,
    )


def restart_agreement_figure(
    agreement: xr.DataArray,
    curves: xr.Dataset,
    *,
    labels: list[str],
    tokens: slice,
    iteration: int | None = None,
    token: int | None = None,
    subtitle: str = "",
    theme: str = "light",
) -> _theme.Figure:
    """Draw the agreement of restarts from labelled arrays.

    Parameters
    ----------
    agreement : DataArray (token, iteration)
        Share of pairs of restarts that predict the same token, of the tokens of a prompt.
    curves : Dataset
        Its means over the tokens of the ``run`` and over those of the ``prompt`` (iteration).
    labels, tokens, iteration, token, subtitle, theme
        As for :func:`restart_gaps_figure`.
    """
    agreement = agreement.transpose("token", "iteration").sel(iteration=slice(1, None))
    iterations = agreement["iteration"].values
    made = _heatmap.share_heatmap(
        agreement.values,
        iterations,
        labels,
        value_title="pairs that agree",
        row_title="token",
        title="Agreement of predictions between restarts",
        subtitle=subtitle,
        theme=theme,
    )
    axis = {"range": [-0.04, 1.04], "tickformat": ".0%", "nticks": 3}
    curves = curves.sel(iteration=iterations)
    of_prompt, of_run = curves["prompt"].values, curves["run"].values[None]
    _map_curves.add_curves(made, iterations, of_prompt, of_run, "mean", axis, theme)
    made.update_layout(
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.0, "yanchor": "bottom"}
    )
    return _finish(made, tokens, iteration, token, theme)


def _sampled(curves: xr.Dataset) -> str:
    """Say of how many tokens the curves of the run are, where they are not of all."""
    sampled, tokens = curves.attrs["sampled"], curves.attrs["tokens"]
    return f"curve of the run: {sampled} of its {tokens} tokens" if sampled < tokens else ""


def _finish(
    made: _theme.Figure, tokens: slice, iteration: int | None, token: int | None, theme: str
) -> _theme.Figure:
    """Add room for the curves, the frame and the cursor."""
    colours = _theme.palette(theme)
    made.add_shape(  # the paper behind the curves: grey means missing in the map only
        type="rect",
        xref="x domain",
        yref="y2 domain",
        x0=0,
        x1=1,
        y0=0,
        y1=1,
        line={"width": 0},
        fillcolor=colours.paper,
        layer="below",
    )
    _marks.add_row(made, tokens, token, colours)
    for axis in ("y", "y2"):
        _marks.add_line(made, iteration, colours, y=axis)
    made.update_layout(height=min(560, made.layout.height + 110))
    return made
