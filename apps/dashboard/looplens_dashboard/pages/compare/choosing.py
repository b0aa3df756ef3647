"""The list of runs to compare with, and what the recordings say of themselves and differ in."""

from __future__ import annotations

import json
from typing import Any

from dash import Dash, Input, Output, State, dcc, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from looplens.analysis.comparing.describing import settings
from looplens.errors import LoopLensError
from looplens_dashboard.pages.compare.background import WAIT, WaitError, comparisons_of
from looplens_dashboard.pages.compare.other import other_key, other_view, others
from looplens_dashboard.panels.card import WAITING
from looplens_dashboard.panels.drawing import message
from looplens_dashboard.panels.panel import part
from looplens_dashboard.selection import Selection
from looplens_dashboard.view import View

OF_WHOLE_RUNS = ("compare-differences", "compare-regimes", "compare-curve")
"""Panels that wait for the comparison of the whole runs."""

LOOK_EVERY = 500  # ms, while the runs are compared
_MOST_LISTED = 60
_LONGEST_VALUE = 60


def body(view: View, selection: Selection) -> Component:
    """Return the runs to choose from, and how the two differ in their settings."""
    listed = others(view)
    try:
        chosen = other_key(view, selection)
    except LoopLensError as error:
        chosen, trouble = "", message(str(error), fault=bool(listed))
    else:
        trouble = None
    buttons = [
        html.Button(
            [html.Span("b: " if one.key == chosen else "", className="which"), one.key],
            className="button",
            title=one.problem or f"{one.model}, {one.tokens:,} tokens, {one.iterations} iterations",
            disabled=one.problem is not None,
            **{
                "data-pick": json.dumps({"other": one.key}),
                "aria-pressed": "true" if one.key == chosen else "false",
            },
        )
        for one in listed[:_MOST_LISTED]
    ]
    left_out = len(listed) - len(buttons)
    return html.Div(
        [
            html.Div(
                [
                    html.Span(["a: ", html.Strong(view.key)], className="which"),
                    html.Span("compared with"),
                    *buttons,
                    html.Span(f"and {left_out} more" if left_out else "", className="hint"),
                ],
                className="compare-runs",
                role="group",
                **{"aria-label": "Run to compare with"},
            ),
            trouble or _settings(view, selection),
            dcc.Interval(
                id="compare-clock",
                interval=LOOK_EVERY,
                disabled=trouble is not None,
            ),
        ]
    )


def _settings(view: View, selection: Selection) -> Component:
    """Return a table of what the recordings differ in."""
    rows = settings(view.run, other_view(view, selection).run)
    if not rows:
        return html.Div("The recordings have the same settings.", className="hint")
    head = html.Thead(html.Tr([html.Th(""), html.Th("a", scope="col"), html.Th("b", scope="col")]))
    body = [
        html.Tr([html.Th(name, scope="row"), html.Td(_short(one)), html.Td(_short(other))])
        for name, one, other in rows
    ]
    return html.Div(
        html.Table([head, html.Tbody(body)], className="compare-settings"), className="scrolling"
    )


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def register(app: Dash, views: Any) -> None:
    """Let the panels of whole runs be drawn when the comparison is ready."""

    @app.callback(
        *[Output(part(name, "view"), "data", allow_duplicate=True) for name in OF_WHOLE_RUNS],
        Output("compare-clock", "disabled"),
        Input("compare-clock", "n_intervals"),
        State("selection", "data"),
        *[State(part(name, "message"), "children") for name in OF_WHOLE_RUNS],
        *[State(part(name, "view"), "data") for name in OF_WHOLE_RUNS],
        prevent_initial_call=True,
    )
    def look(looked: Any, values: Any, *shown: Any) -> tuple[Any, ...]:
        messages, parts = shown[: len(OF_WHOLE_RUNS)], shown[len(OF_WHOLE_RUNS) :]
        if not values or "problem" in values or not looked:
            raise PreventUpdate
        try:
            view = views.open(values["run"])
            chosen = values.get("other") or next(
                one.key for one in others(view) if one.problem is None
            )
            comparisons_of(views).get(view.run, views.open(chosen).run)
        except WaitError:
            raise PreventUpdate from None
        except (LoopLensError, StopIteration):
            pass  # the panels say what is wrong
        waiting = [WAIT in str(message) for message in messages]
        drawing = any(WAITING in str(message) for message in messages)
        # Their own part of the selection again: setting it has them drawn. The others stay.
        again = [one if late else no_update for one, late in zip(parts, waiting, strict=True)]
        return (*again, not (drawing or any(waiting)))
