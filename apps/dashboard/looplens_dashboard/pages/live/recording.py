"""What happens on the page Live: recordings start, are watched, kept and thrown away."""

from __future__ import annotations

import json
from typing import Any

import dash_mantine_components as dmc
from dash import ALL, Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from looplens.errors import LoopLensError
from looplens_dashboard.live import LiveShelf, LiveState
from looplens_dashboard.pages.live.form import FIELDS, about, form

LOOK_EVERY = 400  # ms, while something is recorded
_LONGEST_NAME = 64


def register(app: Dash, views: Any) -> None:
    """Add the callbacks of the page."""
    session = views.live
    shelf = LiveShelf(session, views.workspace)

    @app.callback(Output("live-place", "children"), Input("live-place", "id"))
    def show(_id: Any) -> list[Component]:
        states = shelf.states()
        return [
            form(session.models, session.limits),
            html.Div(
                [
                    html.H3("Now"),
                    html.Div(now(states), id="live-now"),
                    html.H3("Recorded"),
                    html.Div(recorded(shelf, states), id="live-recorded"),
                    dcc.Store(id="live-pressed"),
                    dcc.Interval(id="live-clock", interval=LOOK_EVERY, disabled=not busy(states)),
                ],
                className="live-recordings",
            ),
        ]

    @app.callback(
        Output("live-about", "children"),
        Output("live-iterations", "placeholder"),
        Input("live-model", "value"),
    )
    def describe(key: Any) -> tuple[Any, str]:
        model = session.models.get(key)
        if model is None:
            raise PreventUpdate
        return about(model), str(model.iterations or "its own")

    @app.callback(
        Output("live-text", "value"),
        Output("live-said", "children", allow_duplicate=True),
        Input("live-example", "n_clicks"),
        State("live-model", "value"),
        prevent_initial_call=True,
    )
    def example(clicks: Any, key: Any) -> tuple[Any, str]:
        model = session.models.get(key)
        if not clicks or model is None:
            raise PreventUpdate
        text = model.example(int(clicks))
        return (text, "") if text else (no_update, f"{model.key} names no task to draw one from.")

    # Not an input per button: with every look the buttons come anew, and each would ask again.
    @app.callback(
        Output("live-said", "children"),
        Output("live-now", "children"),
        Output("live-recorded", "children"),
        Output("live-clock", "disabled"),
        Output("picked", "data"),
        Input("live-record", "n_clicks"),
        Input("live-pressed", "data"),
        State({"live-folder": ALL}, "value"),
        State({"live-name": ALL}, "value"),
        State("selection", "data"),
        *[State(component, prop) for _, component, prop in FIELDS],
        prevent_initial_call=True,
    )
    def act(
        _clicks: Any, pressed: Any, _folders: Any, _names: Any, selection: Any, *values: Any
    ) -> tuple[Any, ...]:
        if not ctx.triggered or not ctx.triggered[0]["value"]:
            raise PreventUpdate  # the page has just been drawn
        said, chosen = "", no_update
        try:
            if ctx.triggered_id == "live-record":
                session.start(
                    {name: value for (name, *_), value in zip(FIELDS, values, strict=True)}
                )
            else:
                chosen = _carry_out(shelf, pressed, selection)
        except LoopLensError as error:
            said = str(error)
        states = shelf.states()
        return said, now(states), recorded(shelf, states), not busy(states), chosen

    # By itself: the page forgets the answer to a click when the same callback is asked again.
    @app.callback(
        Output("live-now", "children", allow_duplicate=True),
        Output("live-recorded", "children", allow_duplicate=True),
        Output("live-clock", "disabled", allow_duplicate=True),
        Input("live-clock", "n_intervals"),
        prevent_initial_call=True,
    )
    def look(_ticks: Any) -> tuple[Any, ...]:
        states = shelf.states()
        done = not busy(states)
        return now(states), recorded(shelf, states) if done else no_update, done


def _carry_out(shelf: LiveShelf, pressed: Any, selection: Any) -> Any:
    """Cancel, keep or throw away; return what the page selects then."""
    what, id = str(pressed["what"]), str(pressed["id"])
    shown = (selection or {}).get("run")
    if what == "cancel":
        shelf.session.cancel(id)
    elif what == "discard":
        return {"run": ""} if shelf.discard(id) == shown and shown else no_update
    elif what == "keep":
        before = shelf.key(id)
        folder, name = (_of(id, states) for states in ctx.states_list[:2])
        key = shelf.keep(id, int(folder or 0), str(name or ""))
        return {"run": key} if before == shown else no_update
    return no_update


def _of(id: str, states: list[dict[str, Any]]) -> Any:
    """Return the value of the field that belongs to a recording."""
    return next((one.get("value") for one in states if id in one["id"].values()), None)


def busy(states: list[LiveState]) -> bool:
    """Return whether something is being recorded."""
    return any(state.running for state in states)


def now(states: list[LiveState]) -> Component:
    """Return how far the recording is, or why the last one has no result."""
    state = next((one for one in states if one.stage != "done"), None)
    if state is None:
        return html.Div("Nothing is being recorded.", className="hint")
    heading = html.Div([html.Strong(state.model), f" · {state.prompt}"], className="live-title")
    if not state.running:
        failed = state.stage == "failed"
        words = state.message if failed else f"Cancelled after {state.seconds:.1f} s."
        return html.Div(
            [heading, html.Div(words, className="message fault" if failed else "message")],
            role="alert" if failed else "status",
        )
    share = {"starting": 2, "loading": 8, "recording": 15, "analysing": 60}[state.stage]
    part = {"recording": 45, "analysing": 40}.get(state.stage, 0)
    return html.Div(
        [
            heading,
            dmc.Progress(
                value=round(share + part * (state.share or 0)),
                **{"aria-label": "How far the recording is"},
            ),
            html.Div(
                [
                    html.Span(f"{state.words} · {state.seconds:.0f} s", role="status"),
                    _button("Cancel", "cancel", state.id),
                ],
                className="live-row",
            ),
            *_notes(state),
        ]
    )


def recorded(shelf: LiveShelf, states: list[LiveState]) -> Component | list[Component]:
    """Return the finished recordings, each with what can be done with it."""
    done = [state for state in states if state.stage == "done"]
    if not done:
        return html.Div("What is recorded here is listed until the app ends.", className="hint")
    return [_recording(shelf, state) for state in done]


def _recording(shelf: LiveShelf, state: LiveState) -> Component:
    key = shelf.key(state.id)
    folders = [
        {"value": str(number), "label": folder.name or str(folder)}
        for number, folder in enumerate(shelf.folders)
    ]
    keep: list[Component] = [html.Div("To keep it, start the app with a folder.", className="hint")]
    if folders:
        keep = [
            dmc.TextInput(
                id={"live-name": state.id},
                value=f"{state.model}-{key}"[:_LONGEST_NAME].replace(" ", "-"),
                size="xs",
                w=190,
                inputProps={"maxLength": _LONGEST_NAME},
                **{"aria-label": f"Name to keep {key} under"},
            ),
            dmc.Select(
                id={"live-folder": state.id},
                data=folders,
                value="0",
                allowDeselect=False,
                size="xs",
                w=120,
                **{"aria-label": f"Folder to keep {key} in"},
            ),
            _button("Keep", "keep", state.id, f"Keep {key}"),
        ]
    return html.Div(
        [
            html.Div(
                [html.Strong(key), f" · {state.model} · {state.prompt}"], className="live-title"
            ),
            html.Div(_found(shelf, state), className="hint"),
            *_notes(state),
            html.Div(
                [
                    html.Button(
                        "Look at it",
                        className="button main",
                        **{
                            "data-pick": json.dumps({"run": key, "page": "trajectories"}),
                            "aria-label": f"Look at {key}",
                        },
                    ),
                    *keep,
                    _button("Throw away", "discard", state.id, f"Throw {key} away"),
                ],
                className="live-row",
            ),
        ],
        className="live-recording",
    )


def _found(shelf: LiveShelf, state: LiveState) -> str:
    """Say what there is to look at."""
    entry = shelf.workspace.entry(shelf.key(state.id))
    sizes = f"{entry.tokens} tokens × {entry.iterations} iterations × {entry.restarts} restarts"
    regimes = [
        f"{count} {name.replace('_', ' ')}"
        for name, count in (entry.regimes or {}).items()
        if count
    ]
    found = f" · trajectories: {', '.join(regimes)}" if regimes else ""
    return f"{sizes}{found} · made in {state.seconds:.1f} s"


def _notes(state: LiveState) -> list[Component]:
    return [html.Div(note, className="hint") for note in state.notes]


def _button(words: str, what: str, id: str, label: str = "") -> Component:
    return html.Button(
        words,
        className="button",
        **{
            "data-press": json.dumps({"place": "live-pressed", "what": what, "id": id}),
            "aria-label": label or words,
        },
    )
