"""The page Overview: which runs there are, what this one is, and what was found in it."""

from __future__ import annotations

from typing import Any

from looplens.analysis import grouping
from looplens_dashboard.pages import any_figure, facts, numbers, runs_list
from looplens_dashboard.panels.call import Call, figure_call
from looplens_dashboard.panels.drawing import thin_ticks
from looplens_dashboard.panels.panel import Page, Panel
from looplens_dashboard.selection import Choice, Options, Selection
from looplens_dashboard.view import View


def _columns(view: View) -> Options:
    """Return the numbers that came with the tokens, to group them by."""
    return tuple((name, f"by {name}") for name in grouping.columns(view.run))


GROUPS = Choice(name="by", label="Group the tokens by", options=_columns, width=150)


def _grouped(function: str, selection: Selection, **more: Any) -> Call:
    return figure_call(function, by=selection["by"] or None, **more)


def _heatmap(_view: View, selection: Selection) -> Call:
    return figure_call(
        "convergence_heatmap",
        prompt=selection.prompt,
        restart=selection.restart,
        quantity=selection["quantity"],
        layer=selection.layer if selection["quantity"] == "relative_step" else None,
        iteration=selection.iteration,
        token=selection.token,
    )


REGIMES = Panel(
    name="regimes",
    title="Regimes",
    answers="How many tokens settle, orbit or slide, and for which tokens?",
    call=lambda _view, selection: _grouped("regimes", selection),
    choices=(GROUPS,),
    span=6,
    wide=4,
    height=400,
)

SETTLING = Panel(
    name="settling",
    title="When tokens settle",
    answers="Do harder tokens take more iterations?",
    keys=("layer", "by"),
    call=lambda _view, selection: _grouped("settling", selection, layer=selection.layer),
    span=6,
    wide=4,
    height=400,
)

DEVELOPMENT = Panel(
    name="development",
    title="Predictions",
    answers="How do accuracy, certainty and change of the predictions go on over the iterations?",
    call=lambda _view, _selection: figure_call("readout"),
    span=6,
    wide=4,
    height=400,
)

HEATMAP = Panel(
    name="heatmap",
    title="The prompt at a glance",
    answers="How fast does every token of the prompt come to rest?",
    keys=("prompt", "restart", "layer"),
    call=_heatmap,
    adjust=lambda figure, _selection: thin_ticks(figure, "yaxis"),
    choices=(
        Choice(
            name="quantity",
            label="What the colour shows",
            options=(("distance_to_limit", "distance to the limit"), ("relative_step", "step")),
            width=170,
        ),
    ),
    span=6,
    wide=12,
    height=400,
    follows=True,
)

PAGE = Page(
    name="overview",
    title="Overview",
    panels=(
        runs_list.PANEL,
        facts.PANEL,
        REGIMES,
        SETTLING,
        DEVELOPMENT,
        HEATMAP,
        any_figure.PANEL,
        numbers.PANEL,
    ),
)
"""What is known of the run as a whole, and of the selected prompt at a glance."""
