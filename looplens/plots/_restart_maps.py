"""Restarts of all tokens of a prompt, iteration by iteration: how far apart, and saying the same.

Above each map a curve of the prompt, beside that of the run. Numbers come from the analysis
``path_independence`` and from :func:`looplens.analysis.restart_curves`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from looplens import analysis
from looplens.plots import _heatmap, _labels, _marks, _select, _theme

_MAP, _CURVES = (0.0, 0.7), (0.76, 1.0)  # heights of the map and of the curves


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
    _add_curves(made, iterations, of_prompt, of_run, "median", axis, theme)
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
    _add_curves(made, iterations, of_prompt, of_run, "mean", axis, theme)
    made.update_layout(
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.0, "yanchor": "bottom"}
    )
    return _finish(made, tokens, iteration, token, theme)


def _sampled(curves: xr.Dataset) -> str:
    """Say of how many tokens the curves of the run are, where they are not of all."""
    sampled, tokens = curves.attrs["sampled"], curves.attrs["tokens"]
    return f"curve of the run: {sampled} of its {tokens} tokens" if sampled < tokens else ""


def _add_curves(
    made: _theme.Figure,
    iterations: np.ndarray,
    of_prompt: np.ndarray,
    of_run: np.ndarray,
    title: str,
    axis: dict[str, Any],
    theme: str,
) -> None:
    """Draw curves above the map: one of the prompt, and one of the run, or three: with its band."""
    colours = _theme.palette(theme)
    logarithmic = axis.get("type") == "log"

    positive = of_run[of_run > 0]
    least = float(positive.min()) if logarithmic and positive.size else -np.inf

    def curve(values: np.ndarray, name: str, **look: Any) -> None:
        drawn = np.maximum(values, least)  # no logarithm of an exact 0
        made.add_trace(
            go.Scatter(
                x=iterations,
                y=drawn,
                name=name,
                yaxis="y2",
                **{
                    "mode": "lines",
                    "hovertemplate": f"{name}<br>iteration %{{x}}<br>%{{y:.3g}}<extra></extra>",
                    **look,
                },
            )
        )

    if len(of_run) == 3:
        edge = {"line": {"width": 0}, "hoverinfo": "skip", "hovertemplate": None}
        curve(of_run[0], "lower end", **edge, showlegend=False)
        fill = {"fill": "tonexty", "fillcolor": _faint(colours.muted)}
        curve(of_run[2], "80 % of the run", **edge, **fill)
    middle = of_run[len(of_run) // 2]
    curve(middle, "run", line={"color": colours.muted, "width": 2, "dash": "dash"})
    curve(of_prompt, "prompt", line={"color": colours.categories[0], "width": 2})
    made.update_layout(
        yaxis={"domain": _MAP},
        yaxis2={"domain": _CURVES, "anchor": "x", "title": {"text": title}, **axis},
    )
    made.update_traces(
        colorbar={"len": _MAP[1], "y": 0, "yanchor": "bottom"}, selector={"type": "heatmap"}
    )


def _faint(colour: str) -> str:
    """Return a colour that lets what is below it through."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.25)"


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
