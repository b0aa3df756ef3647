"""The page Readout & exits: what the model would say after each iteration, and when it could stop.

``assets/readout.js`` fills the table at the scrubbed iteration and moves the threshold.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from dash import html
from dash.development.base_component import Component

from looplens import analysis
from looplens.analysis import EXIT_RULES
from looplens.analysis.grouping import columns
from looplens_dashboard.panels.call import Call, figure_call
from looplens_dashboard.panels.panel import Page, Panel
from looplens_dashboard.selection import Choice, Options, Selection
from looplens_dashboard.view import View

_MOST_RANKS = 10
_EVERYTHING = ("", "all tokens together")


def _columns(view: View) -> Options:
    """Return by what accuracy is known apart from that of all tokens."""
    if not view.run.has_readout or "readout" not in view.run.analyses:
        return (_EVERYTHING,)
    known = {str(name) for name in view.run.results("readout").data_vars}
    names = [name for name in columns(view.run) if f"accuracy_by_{name}" in known]
    return (_EVERYTHING, *((name, f"by {name}") for name in names))


def _rules(view: View) -> Options:
    """Return the rules that can be on the bench of a run."""
    possible = {"depth", "readout"} | ({"gate"} if view.run.has_exit_gate else set())
    possible |= set() if view.run.is_reduced else {"state"}
    return (
        ("", "cheapest safe rule"),
        *((name, rule.title) for name, rule in EXIT_RULES.items() if rule.reads in possible),
    )


CURVES_BY = Choice(name="accuracy_by", label="Accuracy by", options=_columns, width=170)
RULE = Choice(name="rule", label="Exit rule", options=_rules, width=210)
THRESHOLD = Choice(name="threshold", label="Threshold", control="none", longest=24)


def _of_token(figure: str, selection: Selection, **more: Any) -> Call:
    return figure_call(
        figure,
        token=selection.token,
        restart=selection.restart,
        iteration=selection.iteration,
        **more,
    )


def _of_prompt(figure: str, selection: Selection) -> Call:
    return _of_token(figure, selection, prompt=selection.prompt)


def _now(view: View, selection: Selection) -> Component:
    """Return the place of the table; whether there is a readout shows in its frames."""
    return html.Div(className="readout-now", **{"aria-live": "off"})


def predictions(view: View, selection: Selection) -> dict[str, Any]:
    """Return the readouts of the selected token at all iterations.

    Returns
    -------
    dict
        ``iterations``; ``words`` and ``probabilities`` (iteration, rank); ``entropy`` and
        ``change`` (KL from the iteration before) in nats; ``target``: None, or its ``word`` and by
        iteration its ``probability`` and ``rank``, from 0. What is not finite is None.
    """
    found = analysis.token_readout(view.run, selection.token, selection.restart)
    found = found.isel(rank=slice(_MOST_RANKS))
    target = None
    if "target" in found.attrs:
        target = {
            "word": view.id_texts([found.attrs["target"]])[str(found.attrs["target"])],
            "probability": _finite(found["target_probability"].values),
            "rank": found["target_rank"].values.tolist(),
        }
    ids = found["token_id"].values
    texts = view.id_texts(np.unique(ids))
    return {
        "iterations": found["iteration"].values.tolist(),
        "words": [[texts[str(number)] for number in row] for row in ids.tolist()],
        "probabilities": [_finite(row) for row in found["probability"].values],
        "entropy": _finite(found["entropy"].values),
        "change": _finite(found["kl_to_previous"].values),
        "target": target,
    }


def _finite(values: np.ndarray) -> list[float | None]:
    """Return numbers with six significant digits, None for what is not finite."""
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values]


def _legend_beside(figure: Any, _selection: Selection) -> None:
    """Put the legend of many groups beside the panels, which would have no height above it."""
    figure.update_layout(
        legend={"orientation": "v", "x": 1.01, "y": 1, "xanchor": "left", "yanchor": "top"}
    )


def _bench(view: View, selection: Selection) -> Call:
    """Return the bench of the chosen rule; a threshold of another rule is left alone."""
    rule = selection["rule"] or None
    threshold = None
    if selection["threshold"] and rule is not None:
        results = view.run.results("exits")
        held = results["threshold"].values[results["rule"].values == rule]
        threshold = next((float(one) for one in held if f"{one:g}" == selection["threshold"]), None)
    return _of_token("exit_bench", selection, rule=rule, threshold=threshold)


def _slider(_view: View) -> list[Component]:
    """Return the place of the slider, whose length the browser knows from the figure."""
    return [html.Span(id="threshold-place", className="threshold")]


PREDICTIONS = Panel(
    name="predictions",
    title="Most probable tokens",
    answers="What would the model say after each iteration, and how sure is it?",
    keys=("token", "restart"),
    call=lambda _view, selection: _of_token("predictions", selection),
    span=8,
    wide=5,
    height=420,
    follows=True,
)

NOW = Panel(
    name="readout-now",
    title="At this iteration",
    answers="What would the model say if it stopped here?",
    keys=("token", "restart"),
    body=_now,
    call=lambda _view, selection: _of_token("predictions", selection),
    frames=predictions,
    span=4,
    wide=3,
    height=420,
    follows=True,
)

CANDIDATES = Panel(
    name="candidates",
    title="Candidates",
    answers="Which tokens compete, and where does the right one rank?",
    keys=("token", "restart"),
    call=lambda _view, selection: _of_token("rank_trajectories", selection),
    span=6,
    wide=4,
    height=420,
    follows=True,
)

FLIPS = Panel(
    name="flips",
    title="Where predictions change",
    answers="At which tokens and iterations does the answer change, and for the better?",
    keys=("prompt", "token", "restart"),
    call=lambda _view, selection: _of_prompt("flips", selection),
    span=6,
    wide=5,
    height=420,
    follows=True,
)

RANKS = Panel(
    name="target-ranks",
    title="Rank of the right answer",
    answers="For which tokens of the prompt is the right answer found, and when?",
    keys=("prompt", "token", "restart"),
    call=lambda _view, selection: _of_prompt("target_ranks", selection),
    span=4,
    wide=3,
    height=420,
    follows=True,
)

CURVES = Panel(
    name="readout-curves",
    title="Over the run",
    answers="How right and how sure is the model after each iteration, on average?",
    call=lambda _view, selection: figure_call(
        "readout", by=selection["accuracy_by"] or None, iteration=selection.iteration
    ),
    adjust=_legend_beside,
    choices=(CURVES_BY,),
    span=8,
    wide=4,
    height=420,
    follows=True,
)

BENCH = Panel(
    name="bench",
    title="One exit rule",
    answers="If tokens left the loop by this rule, when would they, and what would be lost?",
    keys=("token", "restart"),
    call=_bench,
    frames=lambda _view, _selection: {},
    choices=(RULE, THRESHOLD),
    controls=_slider,
    span=8,
    wide=4,
    height=520,
    follows=True,
)

EXITS = Panel(
    name="exits",
    title="All exit rules",
    answers="Which rule keeps most for what it costs?",
    call=lambda _view, _selection: figure_call("exits"),
    span=12,
    wide=5,
    height=520,
)

AGREEMENT = Panel(
    name="agreement",
    title="Iterations that agree",
    answers="From which iteration on does the model say the same?",
    call=lambda _view, _selection: figure_call("prediction_agreement"),
    span=4,
    wide=3,
    height=520,
)

PAGE = Page(
    name="readout",
    title="Readout & exits",
    panels=(PREDICTIONS, NOW, CANDIDATES, FLIPS, RANKS, CURVES, AGREEMENT, BENCH, EXITS),
)
