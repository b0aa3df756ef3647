"""The page Trajectories: where the state of a token goes, how fast, and whether it comes back."""

from __future__ import annotations

from typing import Any

from looplens_dashboard.panels.call import Call, figure_call
from looplens_dashboard.panels.panel import Page, Panel
from looplens_dashboard.selection import LOOP_STATE, Choice, Selection
from looplens_dashboard.selection.choices import Options
from looplens_dashboard.view import View

_COMPONENTS = 6  # that the analysis pca keeps


def _layers_of(view: View) -> Options:
    """Return the states that a path can go through, where there are several."""
    if "resid_post" not in view.run.site_names:
        return ()
    layers = tuple((str(layer), f"layer {layer}") for layer in view.run.recorded_layers)
    return ((LOOP_STATE, "loop state"), *layers)


def _components_of(view: View) -> Options:
    """Return which components the axes can show: three in a row; a plane has the first two."""
    there = max(3, min(_COMPONENTS, view.run.width))
    firsts = range(1, there - 1)
    return tuple((f"{n}-{n + 1}-{n + 2}", f"PC {n}, {n + 1}, {n + 2}") for n in firsts)


BASIS = Choice(
    name="basis",
    label="Basis: what the components are fitted to",
    options=(
        ("run", "of the run"),
        ("prompt", "of the prompt"),
        ("token", "of the tokens"),
        ("tail", "of their tails"),
    ),
    width=126,
)
DIMS = Choice(
    name="dims", label="Dimensions", options=(("2", "2-D"), ("3", "3-D")), control="segmented"
)
COMPONENTS = Choice(
    name="components", label="Components on the axes", options=_components_of, width=108
)
LAYERS = Choice(
    name="layers", label="Layers together", options=_layers_of, control="several", width=190
)


def _first(view: View, *, of_layers: bool) -> int:
    """Return the first iteration with a state: those after a layer begin at 1."""
    return 1 if of_layers or not view.run.all_iterations else 0


def _trajectory(view: View, selection: Selection) -> Call:
    chosen = selection.several("layers")
    together = [
        None if text == LOOP_STATE else int(text)
        for text, _ in view.limits.options["layers"]
        if text in chosen
    ]
    places = together or [selection.layer]
    return figure_call(
        "trajectory",
        tokens=list(selection.tokens),
        restart=selection.restart,
        layer=None if together else selection.layer,
        layers=together or None,
        basis=selection["basis"],
        dims=int(selection["dims"]),
        components=tuple(int(text) - 1 for text in selection["components"].split("-")),
        iteration=max(selection.iteration, _first(view, of_layers=None not in places)),
    )


def _steps(_view: View, selection: Selection) -> Call:
    return figure_call(
        "steps",
        tokens=list(selection.tokens),
        restart=selection.restart,
        layer=selection.layer,
        iteration=selection.iteration,
    )


def _short_legend(figure: Any, _selection: Selection) -> None:
    """Keep a legend of many tokens or layers to two rows of the height of the card."""
    figure.update_layout(legend_maxheight=50)


def _of_token(figure: str, selection: Selection, **more: int | None) -> Call:
    return figure_call(figure, token=selection.token, restart=selection.restart, **more)


TRAJECTORY = Panel(
    name="trajectory",
    title="Trajectory",
    answers="Where does the state go, and how much of that does this plane show?",
    keys=("token", "also", "restart", "layer"),
    call=_trajectory,
    adjust=_short_legend,
    choices=(BASIS, DIMS, COMPONENTS, LAYERS),
    span=7,
    wide=6,
    height=520,
    follows=True,
)

STEPS = Panel(
    name="steps",
    title="Step size",
    answers="How fast does the state come to rest, and when does it settle?",
    keys=("token", "also", "restart", "layer"),
    call=_steps,
    adjust=_short_legend,
    span=5,
    wide=3,
    height=520,
    follows=True,
)

VERDICT = Panel(
    name="verdict",
    title="Verdict",
    answers="What does the regime of this token rest on?",
    keys=("token", "restart"),
    call=lambda _view, selection: _of_token("verdict", selection, iteration=selection.iteration),
    span=5,
    wide=3,
    height=520,
    follows=True,
)

CYCLE = Panel(
    name="cycle",
    title="Cycle over the layers",
    answers="Which limit does the state have after each layer?",
    keys=("token", "restart"),
    call=lambda view, selection: _of_token(
        "cycle", selection, iteration=max(selection.iteration, _first(view, of_layers=True))
    ),
    adjust=_short_legend,
    span=7,
    wide=5,
    height=520,
    follows=True,
)

RECURRENCE = Panel(
    name="recurrence",
    title="Recurrence",
    answers="Does the state come back to where it was?",
    keys=("token", "restart", "layer"),
    call=lambda _view, selection: _of_token(
        "recurrence", selection, layer=selection.layer, iteration=selection.iteration
    ),
    span=6,
    wide=3,
    height=520,
    follows=True,
)

GEOMETRY = Panel(
    name="geometry",
    title="Geometry of the steps",
    answers="Do the steps go on, turn aside or go back?",
    keys=("token", "restart"),
    call=lambda _view, selection: _of_token("geometry", selection, iteration=selection.iteration),
    span=6,
    wide=4,
    height=520,
    follows=True,
)

PAGE = Page(
    name="trajectories",
    title="Trajectories",
    panels=(TRAJECTORY, STEPS, VERDICT, CYCLE, RECURRENCE, GEOMETRY),
)
