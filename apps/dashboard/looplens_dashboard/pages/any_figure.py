"""A panel that shows any figure of looplens, for what is selected."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any

from looplens import plots
from looplens.analysis import ANALYZERS
from looplens_dashboard.panels.call import Call, figure_call
from looplens_dashboard.panels.panel import Panel
from looplens_dashboard.selection import Choice, Options, Selection
from looplens_dashboard.view import View

_FILLED = ("prompt", "token", "tokens", "restart", "layer", "head", "iteration")


def figures() -> dict[str, Callable[..., Any]]:
    """Return the figures that a selection can fill, the regimes first."""
    return {
        name: figure
        for name, figure in sorted(
            plots.FIGURES.items(), key=lambda item: (item[0] != "regimes", item[0])
        )
        if all(
            parameter.name in _FILLED or parameter.default is not Parameter.empty
            for parameter in list(signature(figure).parameters.values())[1:]
        )
    }


def _titles(_view: View) -> Options:
    return tuple(
        (name, ANALYZERS[name].title if name in ANALYZERS else name.replace("_", " ").capitalize())
        for name in figures()
    )


def _call(_view: View, selection: Selection) -> Call:
    """Return the chosen figure; it does not follow the scrubber, which stands where it stood."""
    name = selection["figure"]
    known = signature(figures()[name]).parameters
    values = {
        "prompt": selection.prompt,
        "token": selection.token,
        "tokens": list(selection.tokens),
        "restart": selection.restart,
        "layer": selection.layer,
        "head": selection.head,
    }
    if "iteration" in known and known["iteration"].default is Parameter.empty:
        values["iteration"] = max(1, selection.iteration)
        if selection.layer is None:
            values["layer"] = selection.attention_layer
    return figure_call(name, **{key: value for key, value in values.items() if key in known})


PANEL = Panel(
    name="any-figure",
    title="Any figure",
    answers="What does any other analysis say about what is selected?",
    keys=("prompt", "token", "also", "restart", "layer", "head"),
    call=_call,
    choices=(
        Choice(
            name="figure", label="Figure", options=_titles, default="path_independence", width=270
        ),
    ),
    span=12,
    wide=8,
    height=540,
)
