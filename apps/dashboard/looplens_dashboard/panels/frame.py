"""What all panels share: the card around them, figures fitted into it, and errors shown as text.

A panel says which parts of the selection it depends on (``keys``); the browser asks the server for
it only when one of them changes. The iteration is never among them: moving the scrubber asks the
server nothing.
"""

from __future__ import annotations

import html as html_entities
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from dash import Dash, Input, Output, State, dcc, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from looplens import plots
from looplens.errors import AnalysisError, LoopLensError
from looplens_dashboard.selection import Selection, read
from looplens_dashboard.view import View

CURSOR = "cursor"
"""Name of the shapes (and of the trace of the trajectory) that the scrubber moves."""

FONT = "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

WAITING = "Drawing… Analyses that the run does not hold yet are computed first."

_MOST_TICKS = 18

_log = logging.getLogger(__name__)


def _nothing(_view: View) -> list[Component]:
    return []


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One panel of the dashboard.

    Parameters
    ----------
    name : str
        Prefix of the ids of its components and name of its grid area.
    title : str
        Heading.
    keys : tuple of str
        Parts of the selection that it has to be drawn again for.
    body, controls : callable (View) -> list of Component
        What is under the heading, and beside it.
    register : callable (Dash, View) -> None
        Adds its callbacks to the app.
    bare : bool
        Leave the heading out: for a panel that explains itself. Its title is still read out.
    """

    name: str
    title: str
    keys: tuple[str, ...]
    body: Callable[[View], list[Component]]
    register: Callable[[Dash, View], None]
    controls: Callable[[View], list[Component]] = _nothing
    bare: bool = False

    @property
    def view_id(self) -> str:
        """Id of the store that changes when the panel has to be drawn again."""
        return f"{self.name}-view"

    def layout(self, view: View) -> Component:
        """Return the card."""
        heading = html.Header(
            [
                html.H2(self.title),
                html.Div(id=f"{self.name}-caption", className="caption"),
                html.Div(self.controls(view), className="controls"),
            ]
        )
        return html.Section(
            [
                dcc.Store(id=self.view_id),
                *([] if self.bare else [heading]),
                *self.body(view),
            ],
            id=f"{self.name}-panel",
            className="card",
            style={"gridArea": self.name},
            **{"aria-label": self.title},
        )


def figure_panel(
    *,
    name: str,
    title: str,
    keys: tuple[str, ...],
    make: Callable[[View, Selection], go.Figure],
    controls: Callable[[View], list[Component]] = _nothing,
    adjust: Callable[[go.Figure], object] | None = None,
    titled: bool = False,
) -> Panel:
    """Return a panel that shows one figure.

    Parameters
    ----------
    name, title, keys, controls
        See :class:`Panel`.
    make : callable (View, Selection) -> Figure
        Draws the figure, or raises a ``LoopLensError`` that says why it cannot.
    adjust : callable (Figure), optional
        Changes the figure in place after it was fitted into the card.
    titled : bool
        Begin the caption with the title of the figure, for a panel that shows several.
    """

    def register(app: Dash, view: View) -> None:
        @app.callback(
            Output(f"{name}-graph", "figure"),
            Output(f"{name}-caption", "children"),
            Output(f"{name}-message", "children"),
            Output(f"{name}-figure", "className"),
            Input(f"{name}-view", "data"),
            State("selection", "data"),
            State("iteration", "data"),
        )
        def draw(changed: Any, values: Any, iteration: Any) -> tuple[Any, ...]:
            selection = current(view, changed, values, iteration)
            return figure_outputs(lambda: make(view, selection), adjust, titled=titled)

    return Panel(
        name=name,
        title=title,
        keys=keys,
        controls=controls,
        body=lambda _view: graph(name),
        register=register,
    )


def graph(name: str) -> list[Component]:
    """Return a graph and the place for the message that stands there instead of it."""
    return [
        html.Div(message(WAITING), id=f"{name}-message", className="message-place"),
        html.Div(
            dcc.Graph(
                id=f"{name}-graph",
                config=plots.CONFIG,
                responsive=True,
                className="graph",
                clear_on_unhover=False,
            ),
            id=f"{name}-figure",
            className="figure hidden",
        ),
    ]


def figure_outputs(
    make: Callable[[], go.Figure],
    adjust: Callable[[go.Figure], object] | None = None,
    *,
    titled: bool = False,
) -> tuple[Any, Any, Any, str]:
    """Return figure, caption, message and class of a graph; a failure becomes a message."""
    figure, trouble = attempt(make)
    if trouble is not None:
        return no_update, "", trouble, "figure hidden"
    title = html_entities.unescape(figure.layout.title.text or "") if titled else ""
    caption = " · ".join(filter(None, (title, fit(figure))))
    if adjust is not None:
        adjust(figure)
    return figure, caption, None, "figure"


def current(
    view: View, changed: Any, values: Mapping[str, Any] | None, iteration: Any
) -> Selection:
    """Return the selection that the browser sent, checked; stop when there is none yet."""
    if changed is None or values is None:
        raise PreventUpdate
    selection, _ = read({**values, "iteration": iteration}, view.limits)
    return selection


def attempt(make: Callable[[], Any]) -> tuple[Any, Component | None]:
    """Call ``make``; return its value, or None and a message that says what went wrong."""
    try:
        return make(), None
    except AnalysisError as error:  # the run does not hold it, which is no fault
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
        [html.Strong("This part of the run cannot be shown. ") if fault else None, text],
        className="message fault" if fault else "message",
        role="alert" if fault else "status",
    )


def fit(figure: go.Figure) -> str:
    """Fit a figure into a card, in place, and return its subtitle for the caption.

    The card already has a heading and a size, so the title, the margin for it, and the size go. A
    legend moves above the figure, where it takes no width.
    """
    # A subtitle begins with the model and the prompt, which the bar of the page shows already; a
    # break with a blank behind it is within a sentence.
    subtitle = (figure.layout.title.subtitle.text or "").replace("<br> ", " ")
    subtitle = subtitle.replace("<br>", " · ")
    parts = html_entities.unescape(subtitle).split(" · ")[2:]
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
            "y": 1,
            "yanchor": "bottom",
            "maxheight": None,
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


def thin_ticks(figure: go.Figure, *axes: str) -> None:
    """Leave out labels of tokens that a card has no room for, and number those that stay."""
    for name in axes:
        axis = figure.layout[name]
        step = -(-len(axis.tickvals) // _MOST_TICKS)
        if step > 1:
            places = axis.tickvals[::step]
            texts = [f"{place} {axis.ticktext[step * row]}" for row, place in enumerate(places)]
            axis.update(tickvals=places, ticktext=texts)
            if name.startswith("x"):
                axis.tickangle = -90


def add_cursor(
    figure: go.Figure, selection: Selection, *, xref: str = "x", yref: str = "y domain"
) -> None:
    """Add the line at the selected iteration that the browser moves with the scrubber."""
    figure.add_shape(
        type="line",
        name=CURSOR,
        xref=xref,
        yref=yref,
        x0=selection.iteration,
        x1=selection.iteration,
        y0=0,
        y1=1,
        line={"color": plots.palette(selection.theme).accent, "width": 2},
    )
