"""Pictures that only the gallery needs: curves with bands and bars with intervals over seeds.

Everything else is drawn by :mod:`looplens.plots`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from looplens.errors import InputError
from looplens.gallery.intervals import Interval
from looplens.plots import Figure, palette
from looplens.plots._theme import figure

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "triangle-down")
PATTERNS = ("", "/", "x", ".", "\\", "+")
MOST = 12  # series of one picture; after six, colours come again with another dash and symbol

# What the thinning of ticks reckons with, in pixels: an axis beside a legend, one character, and
# the space between two labels.
AXIS, CHARACTER, SPACE = 560, 8, 10
Value = Interval | float


@dataclass(frozen=True, kw_only=True, slots=True)
class Style:
    """How one series looks; no two of the first twelve share a dash and a symbol."""

    colour: str
    dash: str
    symbol: str
    pattern: str


def style(number: int) -> Style:
    """Return the look of a series by its place, 0 to 11."""
    colours = palette("light").categories
    place, again = number % len(DASHES), number // len(DASHES)
    shifted = (place + 3 * again) % len(DASHES)
    return Style(
        colour=colours[number % len(colours)],
        dash=DASHES[shifted],
        symbol=SYMBOLS[place] + "-open" * again,
        pattern=PATTERNS[shifted],
    )


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
    level: tuple[str, float] | None = None,
    legend: str = "",
) -> Figure:
    """Draw curves, with a band where a point is an interval over seeds.

    Parameters
    ----------
    curves : mapping of str to (x values, y values)
        The y values are numbers or :class:`Interval`; the keys name the curves. At most twelve.
    title, subtitle : str
        What is shown, and of what.
    x, y : str
        Titles of the axes.
    log_x, log_y : bool
        Logarithmic axes. Ticks of x stand at the x values, as many as fit; a band that reaches
        zero or less is cut at half of the smallest mean.
    y_range : (float, float), optional
        Ends of the y axis.
    marks : mapping of str to float, optional
        Vertical lines, such as the trained depth, by their text.
    level : (str, float), optional
        A horizontal line, such as guessing, with its text.
    legend : str
        What the names of the curves are, above them: "layers" over 4, 8 and 12.

    Raises
    ------
    InputError
        When a curve has more x than y values, or fewer, or there are too many curves.
    """
    _can_be_told_apart(curves, "curves")
    drawn = figure(title=title, subtitle=subtitle, width=860, height=440)
    means = [_mean(value) for _, values in curves.values() for value in values]
    floor = min((mean / 2 for mean in means if mean > 0), default=0.0) if log_y else -math.inf
    for number, (name, (across, values)) in enumerate(curves.items()):
        if len(across) != len(values):
            raise InputError(
                f"Curve {name!r} has {len(across)} x values and {len(values)} y values."
            )
        look = style(number)
        whiskers = ends = None
        if any(isinstance(value, Interval) and value.n > 1 for value in values):
            if len(across) > 1:
                _band(drawn, across, values, look.colour, floor)
                low, high = zip(*map(_ends, values), strict=True)
                ends = {"low": low, "high": high}  # for who reads the numbers of the figure
            else:
                whiskers = _whiskers(values)
        drawn.add_scatter(
            x=list(across),
            y=[_mean(value) for value in values],
            name=name,
            mode="lines+markers",
            line={"color": look.colour, "dash": look.dash, "width": 2},
            marker={"symbol": look.symbol, "size": 8, "line": {"width": 1.5}},
            error_y=whiskers,
            meta=ends,
        )
    for text, at in (marks or {}).items():
        drawn.add_vline(x=at, line={"dash": "dot", "color": palette("light").muted, "width": 1})
        drawn.add_annotation(
            text=text, x=math.log10(at) if log_x else at, y=1, yref="paper", yanchor="bottom",
            showarrow=False, font={"color": palette("light").muted},
        )  # fmt: skip
    _finish(drawn, x, y, y_range, level, legend)
    if log_x:
        ticks = fitting_ticks(value for across, _ in curves.values() for value in across)
        drawn.update_xaxes(type="log", tickvals=ticks, ticktext=[f"{value:g}" for value in ticks])
    if log_y:
        drawn.update_yaxes(type="log", exponentformat="power")
    return drawn


def fitting_ticks(values: Iterable[float]) -> list[float]:
    """Return those values whose labels fit side by side on a logarithmic axis.

    The ends come first, then powers of two, then the others from left to right.
    """
    there = sorted(set(values))
    if there and there[0] <= 0:
        raise InputError(f"A logarithmic axis needs values above 0; got {there[0]:g}.")
    if len(there) < 3:
        return there
    span = math.log(there[-1] / there[0])
    first = [value for value in there if math.log2(value).is_integer()]
    kept: list[float] = []
    for value in dict.fromkeys((there[0], there[-1], *first, *there)):
        if all(
            AXIS * abs(math.log(value / other)) / span
            >= CHARACTER * (len(f"{value:g}") + len(f"{other:g}")) / 2 + SPACE
            for other in kept
        ):
            kept.append(value)
    return sorted(kept)


def bars(
    groups: Mapping[str, Mapping[str, Value]],
    *,
    title: str,
    y: str,
    x: str = "",
    subtitle: str = "",
    y_range: tuple[float, float] | None = None,
    level: tuple[str, float] | None = None,
    legend: str = "",
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
        A horizontal line, such as guessing, with its text.
    legend : str
        What the names of the series are, above them.

    Raises
    ------
    InputError
        When there are too many series.
    """
    _can_be_told_apart(groups, "series of bars")
    drawn = figure(title=title, subtitle=subtitle, width=860, height=440)
    for number, (name, values) in enumerate(groups.items()):
        look, whiskers = style(number), _whiskers(values.values())
        drawn.add_bar(
            x=list(values),
            y=[_mean(value) for value in values.values()],
            name=name,
            marker={
                "color": look.colour,
                "pattern": {
                    "shape": look.pattern,
                    "fillmode": "overlay",
                    "fgcolor": "white",
                    "solidity": 0.2,
                },
            },
            error_y=whiskers,
        )
    drawn.update_layout(barmode="group", showlegend=len(groups) > 1)
    drawn.update_xaxes(type="category")
    _finish(drawn, x, y, y_range, level, legend)
    return drawn


def _can_be_told_apart(series: Mapping[str, object], what: str) -> None:
    if len(series) > MOST:
        raise InputError(
            f"A picture tells {MOST} {what} apart; got {len(series)}. Draw several pictures, or "
            "only what the caption speaks of, and put the rest into a table."
        )


def _band(
    drawn: Figure, across: Sequence[float], values: Sequence[Value], colour: str, floor: float
) -> None:
    """Draw the intervals of a curve as a faint area with thin edges, cut at a floor."""
    ends = [_ends(value) for value in values]
    drawn.add_scatter(
        x=[*across, *reversed(across)],
        y=[*(high for _, high in ends), *(max(low, floor) for low, _ in reversed(ends))],
        fill="toself",
        fillcolor=_faint(colour, 0.12),
        line={"width": 0.75, "color": _faint(colour, 0.5)},
        hoverinfo="skip",
        showlegend=False,
        mode="lines",
    )


def _whiskers(values: Collection[Value]) -> dict[str, object]:
    above = [_ends(value)[1] - _mean(value) for value in values]
    below = [_mean(value) - _ends(value)[0] for value in values]
    return {"array": above, "arrayminus": below, "visible": any(above) or any(below)}


def _finish(
    drawn: Figure,
    x: str,
    y: str,
    y_range: tuple[float, float] | None,
    level: tuple[str, float] | None,
    legend: str,
) -> None:
    drawn.update_xaxes(title_text=x)
    drawn.update_yaxes(title_text=y, range=y_range)
    drawn.update_layout(legend_title_text=legend)
    if level is not None:
        muted = palette("light").muted
        note = {"text": level[0], "font": {"color": muted}, "bgcolor": "rgba(255,255,255,0.8)"}
        drawn.add_hline(
            y=level[1], line={"dash": "dot", "color": muted, "width": 1.5},
            annotation=note, annotation_position="top right",
        )  # fmt: skip


def _mean(value: Value) -> float:
    return value.mean if isinstance(value, Interval) else float(value)


def _ends(value: Value) -> tuple[float, float]:
    return (value.low, value.high) if isinstance(value, Interval) else (float(value), float(value))


def _faint(colour: str, strength: float) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{strength})"
