"""What the run is, and what was found in it, in a few numbers; with tokens to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dash import html
from dash.development.base_component import Component

from looplens import plots
from looplens.analysis import ANALYZERS, get
from looplens.analysis.dynamics import DYNAMICS
from looplens.errors import LoopLensError
from looplens_dashboard.panels.panel import Panel
from looplens_dashboard.selection import Selection
from looplens_dashboard.view import View

_EXAMPLES = 4  # tokens of each regime

# Analysis, name in its summary, words, how it is written, and what it means.
_FOUND: tuple[tuple[str, str, str, str, str], ...] = (
    (
        "path_independence",
        "aa_score",
        "Alignment of restarts",
        "cosine",
        "Mean cosine between the limits of two restarts (asymptotic alignment score): 1 where the "
        "end does not depend on the initial state.",
    ),
    (
        "path_independence",
        "regime_agreement",
        "Same regime in two restarts",
        "share",
        "Share of the pairs of restarts of a token that end in the same regime.",
    ),
    (
        "convergence",
        "settled_share",
        "Settle",
        "share",
        "Share of the trajectories whose steps stay below the tolerance from some iteration on.",
    ),
    (
        "convergence",
        "median_settling_iteration",
        "Settle at iteration",
        "number",
        "Median over the trajectories that settle.",
    ),
    (
        "readout",
        "final_accuracy",
        "Right at the end",
        "share",
        "Share of the targets that are the best token after the last iteration.",
    ),
    (
        "readout",
        "median_prediction_settling",
        "Prediction settles at",
        "number",
        "Median iteration from which the best token stays the same.",
    ),
)


def body(view: View, selection: Selection) -> Component:
    """Return the facts of the recording, those of the analyses, and examples of each regime."""
    found = view.remembered(("facts",), lambda: _found(view))
    parts = [
        *(
            html.Dl([_fact(*row) for row in rows], className="facts")
            for rows in (recorded(view), found)
            if rows
        ),
        _examples(view, selection),
    ]
    missing = [
        name
        for name, analyzer in ANALYZERS.items()
        if analyzer.standard and name not in view.run.analyses and analyzer.needs(view.run) is None
    ]
    if missing:
        parts.append(
            html.P(
                [
                    f"Not stored yet: {', '.join(missing)}. Panels that need one compute it, which "
                    "a large run does not allow. Store them with ",
                    html.Code(f"looplens analyze {view.run.path}"),
                ],
                className="table-note",
            )
        )
    return html.Div(parts)


def recorded(view: View) -> list[tuple[str, str, str, bool]]:
    """Return what the attributes of the run say: name, value, meaning, and whether it warns."""
    run = view.run
    lost = run.non_finite
    kept = _kept(view)
    blocks = f"{len(run.committed)} of {run.n_blocks} blocks are recorded"
    numbers = ", ".join(f"{count:,} in {name}" for name, count in lost.items())
    holds = [
        *(["states after each layer"] if "resid_post" in run.site_names else []),
        *(["readout"] if run.has_readout else []),
        *(["exit gate"] if run.has_exit_gate else []),
        *(
            [f"attention of {len(run.attention_prompts)} of {run.n_prompts:,} prompts"]
            if run.attention_prompts
            else []
        ),
    ]
    lab = sum(name.startswith(f"{DYNAMICS}/") for name in run.analyses)
    return [
        ("Model", run.model_name, "", False),
        ("Computed in", f"{run.source_dtype}, stored in {run.store_dtype}", "", False),
        ("Initial state", run.initial_state, "How the first state of the loop was made.", False),
        ("Holds", ", ".join(["loop states", *holds]), "", False),
        *([("Kept", kept, "What was kept of all there was.", False)] if kept else []),
        *([] if run.complete else [("Incomplete", blocks, "Go on with --resume.", True)]),
        *([("Not finite", numbers, "Numbers that are NaN or infinite.", True)] if lost else []),
        ("Dynamics lab", f"{lab} results" if lab else "nothing stored", "See Dynamics.", False),
    ]


def _kept(view: View) -> str:
    """Say what was kept of the layers, iterations, tokens and dimensions, where not all was."""
    run = view.run
    parts = []
    if len(run.recorded_layers) < run.n_layers:
        parts.append(f"{len(run.recorded_layers)} of {run.n_layers} layers")
    if not run.all_iterations:
        parts.append(f"{len(run.kept_iterations)} of {run.iterations} iterations")
    everything = int(run.prompts["length"].values.sum())
    if everything > run.n_tokens:
        parts.append(f"{run.n_tokens:,} of {everything:,} tokens")
    if run.is_reduced:
        parts.append(f"{run.width} of {run.d_model} dimensions")
    return "; ".join(parts)


def _found(view: View) -> list[tuple[str, str, str, bool]]:
    """Return what the stored analyses found; those that are not stored are left out."""
    run, rows = view.run, []
    summaries: dict[str, Any] = {}
    for name, key, words, how, meaning in _FOUND:
        if name not in run.analyses:
            continue
        if name not in summaries:
            try:
                summaries[name] = ANALYZERS[name].summary(get(run, name), run)
            except LoopLensError:
                summaries[name] = {}
        value = summaries[name].get(key)
        if value is not None and value == value:
            rows.append((words, _WRITE[how](float(value)), meaning, False))
    return rows


_WRITE: dict[str, Callable[[float], str]] = {
    "cosine": lambda value: f"{value:.4f}" if value < 0.9999 else "> 0.9999",
    "share": lambda value: f"{100 * value:.1f} %",
    "number": lambda value: f"{value:g}",
}


def _fact(name: str, text: str, meaning: str, warn: bool) -> Component:
    return html.Div(
        [html.Dt(name, title=meaning), html.Dd(text, className="warn" if warn else None)],
        className="fact",
    )


def _examples(view: View, selection: Selection) -> Component | None:
    """Return a row of tokens for each regime that the run holds; a click selects one."""
    if "classify" not in view.run.analyses:
        return None
    try:
        found = view.remembered(("regime examples",), lambda: _of_regimes(view))
    except LoopLensError:  # the panel of the regimes says what is wrong
        return None
    styles = plots.palette(selection.theme).regimes
    rows = [
        html.Div(
            [
                html.Dt(
                    [
                        html.Span(className="dot", style={"background": styles[name].colour}),
                        styles[name].label,
                    ]
                ),
                html.Dd([_button(*one) for one in examples]),
            ],
            className="example",
        )
        for name, examples in found.items()
        if examples
    ]
    return html.Dl(rows, className="examples", title="Tokens of each regime, to look at")


def _of_regimes(view: View) -> dict[str, Sequence[tuple[int, int, str]]]:
    results = get(view.run, "classify")
    return plots.regime_examples(view.run, results, most=_EXAMPLES)


def _button(restart: int, token: int, words: str) -> Component:
    return html.Button(
        words.partition("): ")[0] + (")" if "): " in words else ""),  # the reason is in the title
        className="button",
        title=words,
        **{"data-pick": f'{{"token": "{token}", "restart": "{restart}", "page": "trajectories"}}'},
    )


PANEL = Panel(
    name="facts",
    title="This run",
    answers="What was recorded, what was found, and which tokens are worth a look?",
    body=body,
    span=12,
    wide=12,
    height=None,
)
