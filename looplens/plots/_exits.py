"""What each exit rule costs and what it loses: all rules and thresholds of one recording.

The points are those of the analysis ``exits``; this module only draws them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from looplens import analysis
from looplens.analysis import EXIT_RULES
from looplens.plots import _labels, _theme

_COST = {"gflops": "10<sup>9</sup> operations a token", "iterations": "iterations a token"}
_WORTH = {"accuracy": "accuracy", "agreement": "agreement with full depth"}


def exits(run: Any, *, theme: str = "light") -> _theme.Figure:
    """Show accuracy against compute for every exit rule over its thresholds.

    Parameters
    ----------
    run : looplens.Run
        A run with readouts and all iterations.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        Left, accuracy (agreement with full depth where nothing has a target) against operations
        (iterations where they cannot be counted), with the front that nothing beats; right,
        agreement with full depth against iterations. Large symbols are default thresholds.

    Raises
    ------
    AnalysisError
        If the run has no readout or not every iteration.

    References
    ----------
    Geiping et al., arXiv 2502.05171, section 6.1; Zhu et al., arXiv 2510.25741 (comparison of exit
    strategies).
    """
    results = analysis.get(run, "exits")
    return exits_figure(
        results,
        subtitle=_labels.subtitle(
            run, f"{results.attrs['judged_tokens']} tokens ({results.attrs['judged']})"
        ),
        theme=theme,
    )


def exits_figure(results: xr.Dataset, *, subtitle: str = "", theme: str = "light") -> _theme.Figure:
    """Draw the dataset of the analysis ``exits``.

    Parameters
    ----------
    results : Dataset
        ``iterations``, ``agreement``, ``on_front``, ``is_default``, and if known ``gflops`` and
        ``accuracy``, (policy) each, with the coordinates ``rule`` and ``threshold``.
    subtitle, theme : str
        Words and template.
    """
    colours = _theme.palette(theme)
    cost = str(results["on_front"].attrs["cost"])
    worth = str(results["on_front"].attrs["value"])
    made = _theme.figure(
        title="Exit rules: what they cost, what they keep",
        subtitle=subtitle,
        theme=theme,
        height=540,
    )
    make_subplots(
        rows=1,
        cols=2,
        column_widths=[0.56, 0.44],
        horizontal_spacing=0.11,
        subplot_titles=(f"{_WORTH[worth]} for the cost", "agreement for the iterations"),
        figure=made,
    )
    made.update_annotations(font={"size": 13})
    _add_front(made, results, cost, worth, colours)
    rules = [str(rule) for rule in results["rule"].values]
    for number, rule in enumerate(dict.fromkeys(rules)):
        _add_rule(made, results, np.flatnonzero(np.array(rules) == rule), number, colours, cost)
    made.update_xaxes(title=_COST[cost], type="log", row=1, col=1)
    made.update_xaxes(title="iterations, mean", type="log", row=1, col=2)
    made.update_xaxes(exponentformat="power", dtick="D2")
    made.update_yaxes(tickformat="~%")
    made.update_layout(
        legend={"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"},
        margin={"t": 104, "b": 130},
    )
    return made


def _add_front(
    made: _theme.Figure, results: xr.Dataset, cost: str, worth: str, colours: _theme.Palette
) -> None:
    """Draw the front as stairs: what the best policy of at most that cost is worth."""
    places = np.flatnonzero(results["on_front"].values)
    places = places[np.argsort(results[cost].values[places])]
    made.add_trace(
        go.Scatter(
            x=results[cost].values[places],
            y=results[worth].values[places],
            mode="lines",
            name="best of all rules",
            line={"color": colours.muted, "width": 7, "shape": "hv"},
            opacity=0.35,
            hoverinfo="skip",
        ),
        row=1,
        col=1,
    )


def _add_rule(
    made: _theme.Figure,
    results: xr.Dataset,
    places: np.ndarray,
    number: int,
    colours: _theme.Palette,
    cost: str,
) -> None:
    """Draw one rule in both panels, in the order of its costs."""
    worth = str(results["on_front"].attrs["value"])
    rule = str(results["rule"].values[places[0]])
    title = EXIT_RULES[rule].title if rule in EXIT_RULES else rule
    # Fixed depth is the yardstick and takes no colour of the rules'.
    colour = colours.categories[(number - 1) % len(colours.categories)]
    colour = colours.text if rule == "depth" else colour
    symbol = _theme.TOKEN_SYMBOLS[number % len(_theme.TOKEN_SYMBOLS)]
    for column, (x, y) in enumerate(((cost, worth), ("iterations", "agreement")), start=1):
        across = results[x].values[places]
        order = np.argsort(across, kind="stable")
        default = results["is_default"].values[places][order].astype(bool)
        about = results["threshold"].values[places][order][:, None]
        ratio = ""
        if column == 1 and "accuracy_per_gflop" in results:
            worth_it = results["accuracy_per_gflop"].values[places][order][:, None]
            about = np.concatenate([about, worth_it], axis=1)
            ratio = "<br>%{customdata[1]:.4g} right answers for 10<sup>9</sup> operations"
        made.add_trace(
            go.Scatter(
                x=across[order],
                y=results[y].values[places][order],
                mode="lines+markers",
                name=title,
                legendgroup=rule,
                showlegend=column == 1,
                customdata=about,
                line={
                    "color": colour,
                    "width": 1.5,
                    "dash": "dot" if rule == "depth" else "solid",
                },
                marker={
                    "symbol": symbol,
                    "color": colour,
                    "size": np.where(default, 14, 6),
                    "line": {"width": np.where(default, 2, 0), "color": colours.text},
                },
                hovertemplate=f"{title}, threshold %{{customdata[0]:.3g}}<br>{x} %{{x:.4g}}"
                f"<br>{y} %{{y:.1%}}{ratio}<extra></extra>",
            ),
            row=1,
            col=column,
        )
