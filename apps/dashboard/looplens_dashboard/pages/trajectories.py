"""The page Trajectories."""

from __future__ import annotations

from looplens_dashboard.panels.call import Call, figure_call
from looplens_dashboard.panels.panel import Page, Panel
from looplens_dashboard.selection import Selection
from looplens_dashboard.view import View


def _trajectory(_view: View, selection: Selection) -> Call:
    return figure_call(
        "trajectory",
        tokens=list(selection.tokens),
        restart=selection.restart,
        layer=selection.layer,
        iteration=selection.iteration,
    )


TRAJECTORY = Panel(
    name="trajectory",
    title="Trajectory",
    answers="Where does the state go?",
    keys=("token", "also", "restart", "layer"),
    call=_trajectory,
    follows=True,
)

RECURRENCE = Panel(
    name="recurrence",
    title="Recurrence",
    answers="Does the state come back?",
    keys=("token", "restart", "layer"),
    call=lambda _view, selection: figure_call(
        "recurrence", token=selection.token, restart=selection.restart, layer=selection.layer
    ),
)

PAGE = Page(name="trajectories", title="Trajectories", panels=(TRAJECTORY, RECURRENCE))
