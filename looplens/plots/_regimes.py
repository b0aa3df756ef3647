"""How many trajectories end in each regime, overall and by a number that came with the tokens.

The verdicts are those of the analysis ``classify``. The figure counts them and names examples in
the hover text; every regime has a fill pattern besides its colour.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from looplens import analysis
from looplens.analysis import grouping
from looplens.plots import _labels, _theme

_MOST_EXAMPLES = 5


def regimes(run: Any, by: str | None = None, *, theme: str = "light") -> _theme.Figure:
    """Show the regimes of a run.

    Parameters
    ----------
    run : looplens.Run
        The opened run.
    by : str or None
        Numeric column of the token table for the right panel; None for ``difficulty``, or
        ``position`` where the prompts carry no difficulty.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        Left: trajectories per regime. Right: share of each regime by ``by``.

    Raises
    ------
    InputError
        If there is no such column.
    AnalysisError
        If the run cannot be classified.

    References
    ----------
    Blayney et al., arXiv 2604.11791, appendix C (fixed point, orbit, slider, unknown).
    """
    results = analysis.get(run, "classify")
    groups = grouping.group_tokens(run, by)
    return regimes_figure(
        results["regime"],
        groups,
        examples=regime_examples(run, results),
        subtitle=_labels.subtitle(
            run,
            f"{run.n_tokens} tokens × {run.restarts} restart{'s' if run.restarts > 1 else ''}",
            f"{run.iterations} iterations",
        ),
        theme=theme,
    )


def regime_examples(
    run: Any, results: xr.Dataset, *, most: int = _MOST_EXAMPLES
) -> dict[str, list[tuple[int, int, str]]]:
    """Name a few trajectories of each regime.

    Parameters
    ----------
    run : looplens.Run
        The opened run.
    results : Dataset
        Result of the analysis ``classify``.
    most : int
        Examples a regime. Those with the largest amplitude come first, one a token.

    Returns
    -------
    dict
        Regime -> list of (restart, global token number, words).
    """
    regime = results["regime"].transpose("restart", "token").values
    period = results["period"].transpose("restart", "token").values
    amplitude = results["amplitude"].transpose("restart", "token").values
    reason = results["reason"].transpose("restart", "token").values
    found: dict[str, list[tuple[int, int, str]]] = {}
    for name in _theme.REGIMES:
        restarts, tokens = np.nonzero(regime == name)
        order = np.argsort(-np.nan_to_num(amplitude[restarts, tokens], nan=-1.0), kind="stable")
        chosen: dict[int, int] = {}
        for place in order:
            chosen.setdefault(int(tokens[place]), int(restarts[place]))
            if len(chosen) == most:
                break
        labels = _labels.token_labels(run, chosen, position=True, escaped=False)
        found[name] = []
        for (token, restart), label in zip(chosen.items(), labels, strict=True):
            words = f"{label} (prompt {int(run.tokens['prompt'].values[token])})"
            if name == "orbit" and np.isfinite(period[restart, token]):
                words += f", period {_labels.number(period[restart, token])}"
            if name == "unresolved" and str(reason[restart, token]):
                words += f": {reason[restart, token]}"
            found[name].append((restart, token, words))
    return found


def regimes_figure(
    regime: xr.DataArray,
    groups: grouping.Groups,
    *,
    examples: dict[str, list[tuple[int, int, str]]],
    subtitle: str = "",
    theme: str = "light",
) -> _theme.Figure:
    """Draw the regimes from labelled arrays.

    Parameters
    ----------
    regime : DataArray (restart, token)
        Regime of each trajectory.
    groups : Groups
        Groups of tokens for the right panel.
    examples : dict
        Regime -> list of (restart, token, words), for the hover text.
    subtitle, theme : str
        Words and template.
    """
    colours = _theme.palette(theme)
    overall = grouping.count_regimes(regime)
    by_group = grouping.count_regimes(regime, groups)
    made = _theme.figure(title="Regimes of the tokens", subtitle=subtitle, theme=theme, height=420)
    make_subplots(rows=1, cols=2, column_widths=[0.42, 0.58], horizontal_spacing=0.17, figure=made)
    group_totals = by_group.sum("regime").values
    for name in _theme.REGIMES:
        style = colours.regimes[name]
        look = {
            "color": style.colour,
            "pattern": {
                "shape": style.pattern,
                "fillmode": "overlay",
                "fgcolor": colours.paper,
                "size": 7,
                "solidity": 0.25,
            },
            "line": {"width": 1, "color": colours.paper},
        }
        count = int(overall.sel(regime=name))
        listed = [_labels.escape(words) for _, _, words in examples.get(name, [])]
        hover = "<br>".join(listed) or "none"
        made.add_trace(
            go.Bar(
                x=[count],
                y=[style.label],
                orientation="h",
                marker=look,
                showlegend=False,
                hovertemplate=f"<b>{style.label}</b><br>{hover}<extra></extra>",
            ),
            row=1,
            col=1,
        )
        counts = by_group.sel(regime=name).values
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = np.where(group_totals > 0, counts / group_totals, np.nan)
        made.add_trace(
            go.Bar(
                x=list(groups.labels),
                y=shares,
                name=style.label,
                marker=look,
                customdata=np.stack([counts, group_totals], -1),
                hovertemplate=(
                    f"<b>{style.label}</b><br>{groups.by} %{{x}}<br>"
                    "%{customdata[0]} of %{customdata[1]} (%{y:.1%})<extra></extra>"
                ),
            ),
            row=1,
            col=2,
        )
    made.update_layout(
        barmode="stack",
        bargap=0.25,
        legend={
            "orientation": "h",
            "x": 1,
            "xanchor": "right",
            "y": 1.02,
            "yanchor": "bottom",
            "traceorder": "normal",
        },
        margin={"t": 104},
    )
    made.update_xaxes(title="trajectories", rangemode="tozero", row=1, col=1)
    # The numbers stand under the names: at the ends of the bars a narrow figure has no room.
    made.update_yaxes(
        autorange="reversed",
        showgrid=False,
        tickvals=[colours.regimes[name].label for name in _theme.REGIMES],
        ticktext=[_counted(colours.regimes[name].label, overall, name) for name in _theme.REGIMES],
        row=1,
        col=1,
    )
    made.update_xaxes(title=groups.by, type="category", showgrid=False, row=1, col=2)
    made.update_yaxes(title="share of trajectories", range=[0, 1], tickformat=".0%", row=1, col=2)
    return made


def _counted(label: str, overall: xr.DataArray, name: str) -> str:
    """Return the name of a regime with how many trajectories end in it."""
    count, total = int(overall.sel(regime=name)), max(1, int(overall.sum()))
    return f"{label}<br>{count:,} · {_labels.percent(count / total)}".replace(",", "\u202f")
