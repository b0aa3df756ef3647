"""The page Restarts: whether the end depends on the initial state."""

from __future__ import annotations

from typing import Any

from looplens_dashboard.panels.call import Call, figure_call
from looplens_dashboard.panels.drawing import thin_ticks
from looplens_dashboard.panels.panel import Page, Panel
from looplens_dashboard.selection import Selection
from looplens_dashboard.view import View


def _of_prompt(figure: str, selection: Selection) -> Call:
    return figure_call(
        figure,
        prompt=selection.prompt,
        iteration=selection.iteration,
        token=selection.token,
    )


def _thin_rows(figure: Any, _selection: Selection) -> None:
    thin_ticks(figure, "yaxis", most=10)


RESTARTS = Panel(
    name="restarts",
    title="Restarts of the token",
    answers="Does this token end in the same place from every initial state?",
    keys=("token", "layer"),
    call=lambda view, selection: figure_call(
        "restarts",
        token=selection.token,
        layer=selection.layer,
        iteration=max(selection.iteration, _first(view, selection)),
    ),
    span=7,
    wide=5,
    height=420,
    follows=True,
)

OVERVIEW = Panel(
    name="path-independence",
    title="Path independence of the run",
    answers="How many tokens of the run end in the same place from every initial state?",
    call=lambda _view, _selection: figure_call("path_independence"),
    span=5,
    wide=4,
    height=420,
)

INPUTS = Panel(
    name="input-dependence",
    title="Input against initial state",
    answers="Is it the input that decides where a token ends, or the initial state?",
    call=lambda _view, _selection: figure_call("input_dependence"),
    span=5,
    wide=3,
    height=420,
)

GAPS = Panel(
    name="restart-gaps",
    title="Distance between restarts",
    answers="How fast does every token of the prompt forget where it started?",
    keys=("prompt",),
    call=lambda _view, selection: _of_prompt("restart_gaps", selection),
    adjust=_thin_rows,
    span=7,
    wide=4,
    height=420,
    follows=True,
)

AGREEMENT = Panel(
    name="restart-agreement",
    title="Agreement of predictions",
    answers="From which iteration on do all initial states predict the same token?",
    keys=("prompt",),
    call=lambda _view, selection: _of_prompt("restart_agreement", selection),
    adjust=_thin_rows,
    span=6,
    wide=4,
    height=420,
    follows=True,
)

BASINS = Panel(
    name="basins",
    title="Basins",
    answers="Which restarts end together, and how far are the others?",
    keys=("prompt",),
    call=lambda _view, selection: figure_call("basins", prompt=selection.prompt),
    adjust=_thin_rows,
    span=6,
    wide=4,
    height=420,
)


def _first(view: View, selection: Selection) -> int:
    """Return the first iteration with a state: those after a layer begin at 1."""
    return 1 if selection.layer is not None or not view.run.all_iterations else 0


PAGE = Page(
    name="restarts",
    title="Restarts",
    panels=(RESTARTS, OVERVIEW, INPUTS, GAPS, AGREEMENT, BASINS),
)
