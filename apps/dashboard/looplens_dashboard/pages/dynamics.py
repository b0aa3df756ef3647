"""The page Dynamics: what the live model says of the motion that was recorded.

The dynamics lab stores it in a run; panels of what a run lacks show the command that makes it.
"""

from __future__ import annotations

from inspect import signature
from typing import Any

from looplens import plots
from looplens_dashboard.pages import lab
from looplens_dashboard.panels.call import Call, figure_call
from looplens_dashboard.panels.panel import Page, Panel
from looplens_dashboard.selection import Choice, Selection
from looplens_dashboard.view import View

_ELSEWHERE = ("spectra", "lyapunov", "landscape")  # they have panels of their own

_FIGURES: tuple[tuple[str, str], ...] = (
    ("lyapunov_tokens", "Exponents of the prompt"),
    *(
        (name, title)
        for name, (title, _) in lab.EXPERIMENTS.items()
        if name in plots.FIGURES and name not in _ELSEWHERE
    ),
)


def _path(view: View, selection: Selection) -> Call:
    """Return the recorded path of the restart that the eigenvalues are of."""
    stored = lab.held(view, "spectra")
    restart = selection.restart if stored is None or stored[1] is None else stored[1]
    first = 0 if view.run.all_iterations else 1
    return figure_call(
        "trajectory",
        tokens=[selection.token],
        restart=restart,
        basis=selection["plane"],
        iteration=max(first, selection.iteration),
    )


def _experiment(_view: View, selection: Selection) -> Call:
    name = selection["experiment"]
    known = signature(plots.FIGURES[name]).parameters
    arguments: dict[str, Any] = {"token": selection.token}
    if "iteration" in known:
        arguments["iteration"] = selection.iteration
    return figure_call(name, **arguments)


def _below(figure: Any, _selection: Selection) -> None:
    """Give the legend of a figure of several plots a place below all of them."""
    figure.update_layout(
        legend={"y": -0.11, "yanchor": "top", "maxheight": 84}, margin={"t": 30, "b": 118}
    )


SPECTRA = Panel(
    name="spectra",
    title="Eigenvalues",
    answers="What does the linear map at the limit predict, and is that what was measured?",
    keys=("token",),
    call=lambda _view, selection: figure_call("spectra", token=selection.token),
    adjust=_below,
    span=6,
    wide=4,
    height=560,
)

PATH = Panel(
    name="explained-path",
    title="The motion that they explain",
    answers="Does the recorded state turn and shrink as the eigenvalues say?",
    keys=("token", "restart"),
    call=_path,
    choices=(
        Choice(
            name="plane",
            label="What the plane is fitted to",
            options=(
                ("token", "of the token"),
                ("tail", "of the tail"),
                ("prompt", "of the prompt"),
                ("run", "of the run"),
            ),
            width=130,
        ),
    ),
    span=6,
    wide=4,
    height=560,
    follows=True,
)

LANDSCAPE = Panel(
    name="landscape",
    title="Landscape",
    answers="How long is a step around the limit, and where does it lead?",
    keys=("token",),
    call=lambda _view, selection: figure_call(
        "landscape", token=selection.token, iteration=selection.iteration
    ),
    adjust=_below,
    span=6,
    wide=4,
    height=560,
    follows=True,
)

LYAPUNOV = Panel(
    name="lyapunov",
    title="Lyapunov spectrum",
    answers="Do neighbours of the trajectory meet or part, and which sublayer does it?",
    keys=("token",),
    call=lambda _view, selection: figure_call(
        "lyapunov", token=selection.token, iteration=selection.iteration
    ),
    adjust=_below,
    span=6,
    wide=6,
    height=560,
    follows=True,
)

EXPERIMENT = Panel(
    name="experiment",
    title="Further experiments",
    answers="What do fixed points, causes, pushes and patches say of this token?",
    keys=("token",),
    call=_experiment,
    adjust=_below,
    choices=(Choice(name="experiment", label="Experiment", options=_FIGURES, width=220),),
    span=12,
    wide=6,
    height=560,
    follows=True,
)

PAGE = Page(
    name="dynamics",
    title="Dynamics",
    panels=(lab.PANEL, SPECTRA, PATH, LANDSCAPE, LYAPUNOV, EXPERIMENT),
)
"""Eigenvalues beside the path that they explain, exponents, landscape, experiments."""
