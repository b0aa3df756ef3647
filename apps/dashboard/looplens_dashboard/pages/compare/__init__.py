"""The page Compare: two runs side by side, with one selection."""

from __future__ import annotations

from typing import Any

from looplens_dashboard.pages.compare import choosing
from looplens_dashboard.pages.compare.background import comparisons_of, shared_names
from looplens_dashboard.pages.compare.other import (
    OTHER,
    ComparisonCall,
    OtherCall,
    PairCall,
    other_view,
    tokens_of_both,
)
from looplens_dashboard.panels.call import Call, figure_call
from looplens_dashboard.panels.drawing import thin_ticks
from looplens_dashboard.panels.panel import Page, Panel
from looplens_dashboard.selection import Choice, Selection
from looplens_dashboard.view import View

VALUE = Choice(
    name="compared",
    label="Number of each token",
    options=(
        ("settling_iteration", "settling iteration"),
        ("rate", "rate"),
        ("period", "period"),
        ("entropy", "entropy of the answer"),
        ("target_logprob", "log-probability of the target"),
        ("restart_gap", "gap between restarts"),
    ),
    width=190,
)
CURVE = Choice(
    name="curve",
    label="Mean over tokens of",
    options=(
        ("convergence.relative_step", "step over state"),
        ("convergence.distance_to_limit", "distance to the limit"),
        ("path_independence.gap", "gap between restarts"),
        ("predictions.same_best_token", "same answer in both"),
        ("predictions.correct", "right answers"),
        ("predictions.entropy", "entropy of the answer"),
    ),
    width=190,
)
_SELECTED = ("token", "also", "restart", "layer", "other")


def _iteration(view: View, selection: Selection) -> int | None:
    """Return where the cursor stands, as far as a run has that iteration."""
    first = 1 if selection.layer is not None or not view.run.all_iterations else 0
    wanted = max(selection.iteration, first)
    held = wanted in view.limits.selectable and wanted <= view.run.iterations
    return wanted if held else None


def _path_a(view: View, selection: Selection) -> Call:
    return figure_call(
        "trajectory",
        tokens=list(selection.tokens),
        restart=selection.restart,
        layer=selection.layer,
        iteration=_iteration(view, selection),
    )


def _path_b(view: View, selection: Selection) -> Call:
    other = other_view(view, selection)
    tokens = tokens_of_both(view, other, selection)
    return OtherCall(
        function="trajectory",
        other=other.run,
        numbers={theirs: ours for ours, theirs in tokens.items()},
        arguments={
            "tokens": list(tokens.values()),
            "restart": min(selection.restart, other.run.restarts - 1),
            "layer": selection.layer,
            "iteration": _iteration(other, selection),
        },
    )


def _tokens(view: View, selection: Selection) -> Call:
    return PairCall(
        function="compare_tokens",
        other=other_view(view, selection).run,
        arguments={
            "prompt": selection.prompt,
            "value": selection["compared"],
            "restart": selection.restart,
            "layer": selection.layer,
            "token": selection.token,
        },
    )


def _states(view: View, selection: Selection) -> Call:
    return PairCall(
        function="compare_states",
        other=other_view(view, selection).run,
        arguments={
            "prompt": selection.prompt,
            "restart": selection.restart,
            "layer": selection.layer,
            "iteration": selection.iteration,
            "token": selection.token,
        },
    )


def _compared(function: str, view: View, selection: Selection, **arguments: Any) -> Call:
    other = other_view(view, selection).run
    found = comparisons_of(view.views).get(view.run, other)
    return ComparisonCall(
        function=function,
        other=other,
        names=shared_names(view.run, other),
        comparison=found,
        arguments=arguments,
    )


def _notes(view: View, selection: Selection) -> dict[str, Any]:
    other = other_view(view, selection).run
    return {"note": " ".join(comparisons_of(view.views).get(view.run, other).notes)}


PANELS = (
    Panel(
        name="compare-with",
        title="Two runs",
        answers="Which run is this one compared with, and how were they recorded?",
        keys=("other",),
        choices=(OTHER,),
        body=choosing.body,
        register=choosing.register,
        span=12,
        wide=12,
        height=None,
    ),
    Panel(
        name="compare-path-a",
        title="Trajectory in a",
        answers="Where does the state of the token go in this run?",
        keys=_SELECTED,
        call=_path_a,
        follows=True,
    ),
    Panel(
        name="compare-path-b",
        title="Trajectory in b",
        answers="Where does the state of the same token go in the other run?",
        keys=_SELECTED,
        call=_path_b,
        follows=True,
    ),
    Panel(
        name="compare-tokens",
        title="Token by token",
        answers="Which tokens of the prompt do something else in the other run?",
        keys=("prompt", *_SELECTED),
        choices=(VALUE,),
        call=_tokens,
        # Room for the legend from the start: plotly places it before it makes that room.
        adjust=lambda figure, _: figure.update_layout(margin_t=64),
    ),
    Panel(
        name="compare-states",
        title="Distance between the states",
        answers="Where do the states of the two runs part, and do they come together again?",
        keys=("prompt", *_SELECTED),
        call=_states,
        adjust=lambda figure, _: thin_ticks(figure, "yaxis", most=14),
        follows=True,
    ),
    Panel(
        name="compare-curve",
        title="Means over tokens",
        answers="How do the two runs differ from iteration to iteration, over all prompts?",
        keys=("other",),
        choices=(CURVE,),
        call=lambda view, selection: _compared(
            "compare_curve", view, selection, name=selection["curve"]
        ),
        span=7,
    ),
    Panel(
        name="compare-regimes",
        title="Regimes, one against the other",
        answers="Which regimes do tokens have in the other run?",
        keys=("other",),
        call=lambda view, selection: _compared("compare_words", view, selection),
        span=5,
    ),
    Panel(
        name="compare-differences",
        title="Largest differences",
        answers="Which numbers differ most between the runs, and how surely?",
        keys=("other",),
        call=lambda view, selection: _compared("compare_forest", view, selection),
        frames=_notes,
        height=560,
        span=12,
        wide=12,
    ),
)

PAGE = Page(name="compare", title="Compare", panels=PANELS)
