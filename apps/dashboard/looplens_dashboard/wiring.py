"""How a choice becomes a selection, and a selection the address and the panels.

One server callback turns whatever was chosen into the next selection. Everything else here names a
function of ``assets/``, which runs in the browser: writing the address, telling panels what
changed, and all that follows the scrubber.
"""

from __future__ import annotations

from typing import Any

from dash import ALL, ClientsideFunction, Dash, Input, Output, State, ctx, no_update

from looplens_dashboard.panels import PANELS
from looplens_dashboard.selection import Selection, change, parse
from looplens_dashboard.view import View

FOLLOWERS = ("heatmap", "trajectory", "steps", "restarts", "attention")
"""Panels whose graph has something in it that moves with the scrubber."""


def register(app: Dash, view: View) -> None:
    """Add the callbacks that no single panel owns."""
    _register_selection(app, view)
    _register_browser(app)
    for panel in PANELS:
        panel.register(app, view)


def _register_selection(app: Dash, view: View) -> None:
    @app.callback(
        Output("selection", "data"),
        Output({"control": ALL}, "value"),
        Output("iteration", "data"),
        Output("scrubber", "value"),
        Output("note", "children"),
        Output("note", "hide"),
        Output("previous-prompt", "disabled"),
        Output("next-prompt", "disabled"),
        Input("address", "data"),
        Input({"control": ALL}, "value"),
        Input("picked", "data"),
        State("selection", "data"),
    )
    def select(address: Any, _values: Any, picked: Any, values: Any) -> tuple[Any, ...]:
        controls = [control["id"]["control"] for control in ctx.inputs_list[1]]
        opened = values is None
        if opened:
            selection, notes = parse(address, view.limits)
        else:
            chosen = _chosen(picked)
            selection, notes = change(values, chosen, view.limits)
        return (
            _without_iteration(selection),
            [selection.values()[name] for name in controls],
            # While the page is open the scrubber belongs to the browser alone.
            selection.iteration if opened else no_update,
            selection.iteration if opened else no_update,
            " ".join(notes),
            not notes,
            selection.prompt == 0,
            selection.prompt == view.limits.prompts - 1,
        )


def _chosen(picked: Any) -> dict[str, Any]:
    """Return what triggered the callback as values of the selection."""
    chosen: dict[str, Any] = {}
    for prop, component in ctx.triggered_prop_ids.items():
        if component == "picked" and isinstance(picked, dict):
            chosen.update(picked)
        elif isinstance(component, dict):
            chosen[component["control"]] = ctx.inputs[prop]
    return chosen


def _without_iteration(selection: Selection) -> dict[str, str]:
    return {name: text for name, text in selection.values().items() if name != "iteration"}


def _register_browser(app: Dash) -> None:
    def browser(function: str, *arguments: Any, **options: Any) -> None:
        app.clientside_callback(ClientsideFunction("looplens", function), *arguments, **options)

    browser("readAddress", Output("address", "data"), Input("panel-keys", "data"))
    browser("writeAddress", Input("selection", "data"), Input("iteration", "data"))
    browser("theme", Output("provider", "forceColorScheme"), Input("selection", "data"))
    browser(
        "route",
        [Output(panel.view_id, "data") for panel in PANELS],
        Input("selection", "data"),
        State("panel-keys", "data"),
        *[State(panel.view_id, "data") for panel in PANELS],
    )
    browser(
        "follow",
        Output("iteration-number", "children"),
        Input("iteration", "data"),
        Input("selection", "data"),
        Input("attention-frames", "data"),
        *[Input(f"{name}-graph", "figure") for name in FOLLOWERS],
    )
    browser(
        "readout",
        Output("readout-table", "children"),
        Input("iteration", "data"),
        Input("readout-data", "data"),
    )
    browser("pickCell", Input("heatmap-graph", "clickData"), prevent_initial_call=True)
    browser(
        "stepPrompt",
        Input("previous-prompt", "n_clicks"),
        Input("next-prompt", "n_clicks"),
        State("selection", "data"),
        prevent_initial_call=True,
    )
    browser("play", Input("play", "n_clicks"), prevent_initial_call=True)
    browser("speed", Input("speed", "value"))
