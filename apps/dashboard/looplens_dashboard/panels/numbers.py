"""What the stored analyses say of the selected token and restart, as a table."""

from __future__ import annotations

from typing import Any

from dash import Dash, Input, Output, State, html
from dash.development.base_component import Component

from looplens.errors import AnalysisError
from looplens_dashboard.panels.frame import WAITING, Panel, attempt, current, message
from looplens_dashboard.selection import Selection
from looplens_dashboard.view import View


def table(view: View, selection: Selection) -> Component:
    """Return tables of numbers and words of one trajectory, one an analysis."""
    found = view.numbers(selection.token, selection.restart)
    if not found:
        raise AnalysisError(
            "No analysis is stored in this run. Run `looplens analyze` on it, or run.analyze(), "
            "and open this page again."
        )
    tables = []
    for heading, numbers in found.items():
        rows = [html.Tr(html.Th(heading, colSpan=2, scope="colgroup"))]
        rows += [
            html.Tr([html.Td(name), html.Td(value)], title=meaning)
            for name, value, meaning in numbers
        ]
        tables.append(html.Table(html.Tbody(rows), className="numbers"))
    return html.Div(tables, className="number-columns")


def body(_view: View) -> list[Component]:
    """Return the place of the table."""
    return [html.Div(message(WAITING), id="numbers-table", className="scroll")]


def register(app: Dash, view: View) -> None:
    """Fill the table when the token or the restart changes."""

    @app.callback(
        Output("numbers-table", "children"),
        Input("numbers-view", "data"),
        State("selection", "data"),
        State("iteration", "data"),
    )
    def fill(changed: Any, values: Any, iteration: Any) -> Component:
        selection = current(view, changed, values, iteration)
        made, trouble = attempt(lambda: table(view, selection))
        return made if trouble is None else trouble


PANEL = Panel(
    name="numbers",
    title="Numbers of the token",
    keys=("token", "restart"),
    body=body,
    register=register,
)
