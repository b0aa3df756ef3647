"""Pictures that only the gallery needs: curves with bands and bars with intervals over seeds.

Everything else is drawn by :mod:`looplens.plots`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from looplens.errors import InputError
from looplens.gallery.intervals import Interval
from looplens.plots import Figure, palette
from looplens.plots._theme import TOKEN_SYMBOLS, figure

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
Value = Interval | float


def lines(
    curves: Mapping[str, tuple[Sequence[float], Sequence[Value]]],
    *,
    title: str,
    x: str,
    y: str,
    subtitle: str = "",
    log_x: bool = False,
    log_y: bool = False,
    y_range: tuple[float, float] | None = None,
    marks: Mapping[str, float] | None = None,
) -> Figure:
    """Draw curves, with a band where a point is an interval over seeds.

    Parameters
    ----------
    curves : mapping of str to (x values, y values)
        The y values are numbers or :class:`Interval`; the keys name the curves.
    title, subtitle : str
        What is shown, and of what.
    x, y : str
        Titles of the axes.
    log_x, log_y : bool
        Logarithmic axes.
    y_range : (float, float), optional
        Ends of the y axis.
    marks : mapping of str to float, optional
        Vertical lines, such as the trained depth, by their text.

    Raises
    ------
    InputError
        When a curve has more x than y values, or fewer.
    """
    colours = palette("light").categories
    drawn = figure(title=title, subtitle=subtitle, width=860, height=440)
    for number, (name, (across, values)) in enumerate(curves.items()):
        if len(across) != len(values):
            raise InputError(
                f"Curve {name!r} has {len(across)} x values and {len(values)} y values."
            )
        colour = colours[number % len(colours)]
        intervals = [value for value in values if isinstance(value, Interval)]
        if len(intervals) == len(values) and any(value.n > 1 for value in intervals):
            drawn.add_scatter(
                x=[*across, *reversed(across)],
                y=[*(v.high for v in intervals), *(v.low for v in reversed(intervals))],
                fill="toself",
                fillcolor=_faint(colour),
                line={"width": 0},
                hoverinfo="skip",
                showlegend=False,
                mode="lines",
            )
        drawn.add_scatter(
            x=list(across),
            y=[_mean(value) for value in values],
            name=name,
            mode="lines+markers",
            line={"color": colour, "dash": DASHES[number % len(DASHES)], "width": 2},
            marker={"symbol": TOKEN_SYMBOLS[number % len(TOKEN_SYMBOLS)], "size": 7},
        )
    for text, at in (marks or {}).items():
        drawn.add_vline(x=at, line={"dash": "dot", "color": palette("light").muted, "width": 1})
        drawn.add_annotation(
            text=text, x=math.log10(at) if log_x else at, y=1, yref="paper", yanchor="bottom",
            showarrow=False, font={"color": palette("light").muted},
        )  # fmt: skip
    _axes(drawn, x, y, y_range)
    if log_x:
        ticks = sorted({value for across, _ in curves.values() for value in across})
        drawn.update_xaxes(type="log", tickvals=ticks, ticktext=[f"{value:g}" for value in ticks])
    if log_y:
        drawn.update_yaxes(type="log", exponentformat="power")
    return drawn


def bars(
    groups: Mapping[str, Mapping[str, Value]],
    *,
    title: str,
    y: str,
    x: str = "",
    subtitle: str = "",
    y_range: tuple[float, float] | None = None,
    level: tuple[str, float] | None = None,
) -> Figure:
    """Draw bars side by side, with whiskers where a value is an interval over seeds.

    Parameters
    ----------
    groups : mapping of str to (mapping of str to value)
        Series (one colour and pattern each) to its bars by their place on the x axis.
    title, subtitle : str
        What is shown, and of what.
    x, y : str
        Titles of the axes.
    y_range : (float, float), optional
        Ends of the y axis.
    level : (str, float), optional
        A horizontal line, such as chance, with its text.
    """
    colours = palette("light").categories
    patterns = ("", "/", "x", ".", "\\", "+")
    drawn = figure(title=title, subtitle=subtitle, width=860, height=440)
    for number, (name, values) in enumerate(groups.items()):
        high = [v.high - v.mean if isinstance(v, Interval) else 0.0 for v in values.values()]
        low = [v.mean - v.low if isinstance(v, Interval) else 0.0 for v in values.values()]
        drawn.add_bar(
            x=list(values),
            y=[_mean(value) for value in values.values()],
            name=name,
            marker={
                "color": colours[number % len(colours)],
                "pattern": {
                    "shape": patterns[number % len(patterns)],
                    "fillmode": "overlay",
                    "fgcolor": "white",
                    "solidity": 0.2,
                },
            },
            error_y={"array": high, "arrayminus": low, "visible": any(high) or any(low)},
        )
    if level is not None:
        drawn.add_hline(
            y=level[1], line={"dash": "dot", "color": palette("light").muted, "width": 1},
            annotation_text=level[0], annotation_position="top right",
        )  # fmt: skip
    drawn.update_layout(barmode="group", showlegend=len(groups) > 1)
    drawn.update_xaxes(type="category")
    _axes(drawn, x, y, y_range)
    return drawn


def _axes(drawn: Figure, x: str, y: str, y_range: tuple[float, float] | None) -> None:
    drawn.update_xaxes(title_text=x)
    drawn.update_yaxes(title_text=y, range=y_range)


def _mean(value: Value) -> float:
    return value.mean if isinstance(value, Interval) else float(value)


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"
