"""The card around a panel: heading, caption, controls, the menu that takes it out of the app."""

from __future__ import annotations

from dash import dcc, html
from dash.development.base_component import Component

from looplens import plots
from looplens_dashboard import controls
from looplens_dashboard.panels.drawing import message
from looplens_dashboard.panels.panel import Panel, part
from looplens_dashboard.selection import Selection
from looplens_dashboard.view import View

WAITING = "Drawing… Analyses that the run does not hold yet are computed first."

EXPORTS = (
    ("png", "Picture (PNG)"),
    ("svg", "Picture (SVG)"),
    ("csv", "Data (CSV)"),
    ("json", "Data (JSON)"),
    ("py", "Copy the Python"),
)
"""What the menu of a panel offers; ``assets/exports.js`` does it."""


def card(panel: Panel, view: View, selection: Selection) -> Component:
    """Return a panel, empty, with its controls set to the selection."""
    values = selection.values()
    shown = [
        controls.control(choice, view.limits.options[choice.name], values[choice.name])
        for choice in panel.choices
        if choice.control != "none"
    ]
    shown += panel.controls(view) if panel.controls else []
    heading = html.Header(
        [
            html.H2(panel.title, title=panel.answers),
            html.Div(id=part(panel.name, "caption", panel.kind), className="caption"),
            html.Div([*shown, *_menu(panel)], className="controls"),
        ]
    )
    inside = _body(panel) if panel.body else _graph(panel)
    style = {"--span": str(panel.span), "--wide": str(panel.wide)}
    if panel.height:
        style["--height"] = f"{panel.height}px"
    return html.Section(
        [
            dcc.Store(id=part(panel.name, "view", panel.kind)),
            *([] if panel.bare else [heading]),
            *inside,
        ],
        id=f"{panel.name}-panel",
        className="card" if panel.height else "card tall",
        style=style,
        **{"aria-label": panel.title, "data-panel": panel.name},
    )


def without_run(panels: tuple[Panel, ...]) -> list[Component]:
    """Return the panels of a page that needs no run, where there is none: their bodies alone."""
    return [
        html.Section(
            panel.body(None, None),  # type: ignore[arg-type]
            className="card tall",
            style={"--span": str(panel.span), "--wide": str(panel.wide)},
            **{"aria-label": panel.title},
        )
        for panel in panels
        if panel.body
    ]


def _graph(panel: Panel) -> list[Component]:
    """Return a graph and the place for the message that stands there instead of it."""
    return [
        html.Div(
            html.Div(WAITING, className="message drawing", role="status"),
            id=part(panel.name, "message"),
            className="message-place waiting",
        ),
        html.Div(
            dcc.Graph(
                id=part(panel.name, "graph"),
                config=plots.CONFIG,
                responsive=True,
                className="graph",
                clear_on_unhover=False,
            ),
            id=part(panel.name, "figure"),
            className="figure hidden",
        ),
        dcc.Store(id=part(panel.name, "frames")),
    ]


def _body(panel: Panel) -> list[Component]:
    return [
        html.Div(
            message(WAITING),
            id=part(panel.name, "body", "body"),
            className="body scroll" if panel.height else "body",
        ),
        dcc.Store(id=part(panel.name, "frames", "body")),
    ]


def _menu(panel: Panel) -> list[Component]:
    """Return the button that opens the menu of the panel; there is one menu for all of them."""
    if panel.call is None:
        return []
    return [
        html.Button(
            "⋯",
            className="button icon out",
            title="Save or copy",
            **{
                "aria-label": f"Save or copy: {panel.title}",
                "aria-haspopup": "menu",
                "data-export": panel.name,
                "data-figure": "no" if panel.body else "yes",
            },
        )
    ]
