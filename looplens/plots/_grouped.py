"""Any number of an analysis against a column that came with the tokens or prompts.

The numbers are those of :func:`looplens.analysis.group_by`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from looplens import analysis
from looplens.errors import InputError
from looplens.plots import _labels, _theme


def grouped(
    run: Any,
    by: str | None = None,
    *,
    name: str = "convergence",
    variable: str = "settling_iteration",
    theme: str = "light",
) -> _theme.Figure:
    """Show the spread of a number of an analysis in groups of tokens.

    Parameters
    ----------
    run : looplens.Run
        The opened run.
    by : str or None
        Column of the tokens or prompts; None for ``difficulty``, or ``position`` without it.
    name, variable : str
        Analysis and variable: one number, or one word, a token (and restart).
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        Median and quartiles of each group, or the share of each word.

    Raises
    ------
    InputError
        If there is no such column or variable, or it has several values a token.
    AnalysisError
        If the run does not hold the data for the analysis.
    """
    found = analysis.group_by(run, name, by, variables=(variable,))
    return grouped_figure(
        found, variable, subtitle=_labels.subtitle(run, f"{name}.{variable}"), theme=theme
    )


def grouped_figure(
    found: xr.Dataset, variable: str, *, subtitle: str = "", theme: str = "light"
) -> _theme.Figure:
    """Draw a result of `looplens.analysis.group_by`.

    Parameters
    ----------
    found : Dataset
        With ``variable`` (group, statistic), or ``<variable>_share`` (group, word).
    variable : str
        What to draw.
    subtitle, theme : str
        Words and template.

    Raises
    ------
    InputError
        If the variable has more axes than these.
    """
    share = f"{variable}_share"
    values = found[share if share in found else variable]
    if values.ndim != 2:
        held = ", ".join(map(str, values.dims[1:]))
        raise InputError(
            f"{variable} has several values a token ({held}): choose a variable with one."
        )
    colours = _theme.palette(theme)
    by = str(found.attrs["by"])
    made = _theme.figure(
        title=f"{_title(values)}, by {_labels.escape(by)}",
        subtitle=subtitle,
        theme=theme,
        height=420,
    )
    counts = found["count"].values
    labels = [_labels.escape(_labels.visible_text(str(text))) for text in found["group"].values]
    if share in found:
        _add_shares(made, values, variable, labels, counts, colours)
    else:
        _add_spread(made, values, labels, counts, colours)
    made.update_xaxes(title=_labels.escape(by), type="category", showgrid=False)
    made.update_layout(
        margin={"t": 104}, legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"}
    )
    return made


def _title(values: xr.DataArray) -> str:
    text = str(values.attrs.get("long_name", values.name))
    text = text if len(text) <= 60 else str(values.name).replace("_", " ")
    return f"{text[:1].upper()}{text[1:]}"


def _add_spread(
    made: _theme.Figure,
    values: xr.DataArray,
    labels: list[str],
    counts: np.ndarray,
    colours: _theme.Palette,
) -> None:
    part = {name: values.sel(statistic=name).values for name in values["statistic"].values}
    made.add_trace(
        go.Scatter(
            x=labels,
            y=part["median"],
            mode="markers",
            name="median, with quartiles",
            marker={"symbol": "diamond", "size": 11, "color": colours.categories[0]},
            error_y={
                "type": "data",
                "array": np.nan_to_num(part["q75"] - part["median"]),
                "arrayminus": np.nan_to_num(part["median"] - part["q25"]),
                "thickness": 2,
                "width": 7,
            },
            customdata=np.stack([counts, part["known"]], -1),
            hovertemplate=(
                "%{x}<br>median %{y:.4g}<br>%{customdata[0]} tokens, known for %{customdata[1]:.1%}"
                "<extra></extra>"
            ),
        )
    )
    made.add_trace(
        go.Scatter(
            x=labels,
            y=part["mean"],
            mode="markers",
            name="mean",
            marker={"symbol": "line-ew-open", "size": 16, "line_width": 2.5}
            | {"color": colours.accent},
            hovertemplate="%{x}<br>mean %{y:.4g}<extra></extra>",
        )
    )
    if _labels.over_decades(part["median"]):
        made.update_yaxes(**_labels.log_axis(part["median"], part["q25"], part["q75"]))
    if not np.isfinite(part["median"]).any():
        made.add_annotation(
            text="known for no token", x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False
        )
    units = str(values.attrs.get("units", "1"))
    made.update_yaxes(title="value" if units == "1" else units)


def _add_shares(
    made: _theme.Figure,
    values: xr.DataArray,
    variable: str,
    labels: list[str],
    counts: np.ndarray,
    colours: _theme.Palette,
) -> None:
    shapes = ("", "/", "x", ".", "\\", "+", "-", "|")
    for place, word in enumerate(values[variable].values):
        style = colours.regimes.get(str(word))
        colour = style.colour if style else colours.categories[place % len(colours.categories)]
        label = style.label if style else str(word).replace("_", " ")
        made.add_trace(
            go.Bar(
                x=labels,
                y=values.values[:, place],
                name=_labels.escape(label),
                marker={
                    "color": colour,
                    "pattern": {
                        "shape": style.pattern if style else shapes[place % len(shapes)],
                        "fillmode": "overlay",
                        "fgcolor": colours.paper,
                        "size": 7,
                        "solidity": 0.25,
                    },
                },
                customdata=counts,
                hovertemplate=f"{_labels.escape(label)}<br>%{{x}}: %{{y:.1%}} of "
                "%{customdata} tokens<extra></extra>",
            )
        )
    made.update_layout(barmode="stack", bargap=0.25)
    made.update_yaxes(title="share of trajectories", range=[0, 1], tickformat=".0%")
