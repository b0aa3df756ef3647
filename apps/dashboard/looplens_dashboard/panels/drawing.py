"""Drawing a panel: the figure of its call fitted into a card, or words that say why not."""

from __future__ import annotations

import html as html_entities
import logging
import re
from collections.abc import Callable
from typing import Any

import plotly.graph_objects as go
from dash import html
from dash.development.base_component import Component

from looplens.errors import AnalysisError, LoopLensError
from looplens_dashboard.panels.panel import Panel
from looplens_dashboard.selection import Selection
from looplens_dashboard.view import View

FONT = "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

_MOST_TICKS = 18
_TAGS = re.compile(r"</?(?:b|i|sup|sub)>")  # plotly reads them, a caption does not

_log = logging.getLogger(__name__)


def attempt(make: Callable[[], Any]) -> tuple[Any, Component | None]:
    """Call ``make``; return its value, or None and a message that says what went wrong."""
    try:
        return make(), None
    except AnalysisError as error:  # the run does not hold what is asked for: no fault
        return None, message(str(error))
    except LoopLensError as error:
        return None, message(str(error), fault=True)
    except Exception as error:
        _log.exception("A panel could not be drawn.")
        kind = type(error).__name__
        return None, message(
            f"This panel could not be drawn ({kind}: {error}). The terminal shows where.",
            fault=True,
        )


def message(text: str, *, fault: bool = False) -> Component:
    """Return a text that stands in the place of a figure."""
    return html.Div(
        [html.Strong("This cannot be shown. ") if fault else None, text],
        className="message fault" if fault else "message",
        role="alert" if fault else "status",
    )


def fitted(panel: Panel, view: View, selection: Selection) -> tuple[dict[str, Any], str]:
    """Return the figure of a panel fitted into its card, as plotly's JSON, and its caption.

    Raises
    ------
    LoopLensError
        If it cannot be drawn.
    """
    assert panel.call is not None
    call = panel.call(view, selection)

    def make() -> tuple[dict[str, Any], str]:
        figure = view.draw(call, selection.theme)
        caption = fit(figure)
        if panel.adjust is not None:
            panel.adjust(figure, selection)
        return figure.to_dict(), caption

    return view.remembered((panel.name, selection.theme, call.text()), make)


def fit(figure: go.Figure) -> str:
    """Fit a figure into a card, in place, and return its subtitle for the caption.

    The card already has a heading and a size, so the title, the margin for it, and the size go. A
    legend moves above the figure, where it takes no width.
    """
    # A subtitle begins with the model and the prompt, which the bar of the page shows already; a
    # break with a blank behind it is within a sentence.
    subtitle = (figure.layout.title.subtitle.text or "").replace("<br> ", " ")
    subtitle = subtitle.replace("<br>", " · ")
    subtitle = _TAGS.sub("", subtitle)
    parts = html_entities.unescape(subtitle).split(" · ")[1:]
    titled = any(
        note.yref == "paper" and note.y is not None and note.y >= 0.99
        for note in figure.layout.annotations
    )
    figure.update_layout(
        title=None,
        width=None,
        height=None,
        autosize=True,
        font_family=FONT,
        margin={"t": 34, "r": 16, "b": 46, "l": 60},
        paper_bgcolor="rgba(0,0,0,0)",
        legend={
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            # A legend would hide the titles of plots that stand above them.
            "y": -0.2 if titled else 1,
            "yanchor": "top" if titled else "bottom",
        },
    )
    # Without the legend beside it, a colour bar has all of the height.
    whole = {"len": 1, "y": 0.5, "yanchor": "middle"}
    figure.update_traces(marker_colorbar=whole, selector=_has_colour_bar)
    if any(trace.type == "scatter3d" for trace in figure.data):
        figure.update_layout(margin={"l": 0, "b": 0})  # the axes of a scene need none
    return " · ".join(parts)


def _has_colour_bar(trace: Any) -> bool:
    return trace.type.startswith("scatter") and bool(trace.marker.showscale)


def thin_ticks(figure: go.Figure, *axes: str, most: int = _MOST_TICKS) -> None:
    """Leave out labels of tokens that a card has no room for, and number those that stay."""
    for name in axes:
        axis = figure.layout[name]
        if axis.tickvals is None or axis.ticktext is None:
            continue
        step = -(-len(axis.tickvals) // most)
        if step > 1:
            places = axis.tickvals[::step]
            texts = [f"{place} {axis.ticktext[step * row]}" for row, place in enumerate(places)]
            axis.update(tickvals=places, ticktext=texts)
            if name.startswith("x"):
                axis.tickangle = -90
