"""What the run is: model, sizes, whether it is whole, regimes found, and its path independence."""

from __future__ import annotations

from typing import Any

import numpy as np
from dash import Dash, Input, Output, State, html
from dash.development.base_component import Component

from looplens import plots
from looplens_dashboard.panels.frame import Panel, attempt, current
from looplens_dashboard.panels.strip import SYMBOLS
from looplens_dashboard.selection import listed
from looplens_dashboard.view import View


def recorded(view: View) -> list[Component]:
    """Return what the attributes of the run say; needs no analysis."""
    run = view.run
    lost = run.non_finite
    facts: list[tuple[str, str, bool]] = [
        ("Model", run.model_name, False),
        ("Prompts", f"{run.n_prompts:,}", False),
        ("Tokens", f"{run.n_tokens:,}", False),
        ("Iterations", f"{run.iterations:,}", False),
        ("Restarts", f"{run.restarts} ({run.initial_state})", False),
        ("Core", f"{run.n_layers} layers × {run.d_model}", False),
        ("Recorded", str(run.attrs.get("created", "unknown"))[:16].replace("T", " "), False),
        *([("Kept", kept, False)] if (kept := _kept(view)) else []),
        ("Complete", "yes", False) if run.complete else ("Complete", _part(view), True),
        (
            ("Non-finite", ", ".join(f"{count:,} in {name}" for name, count in lost.items()), True)
            if lost
            else ("Non-finite", "none", False)
        ),
    ]
    return [_fact(name, text, warn=warn) for name, text, warn in facts]


def _kept(view: View) -> str:
    """Say what was kept of the layers, iterations, tokens and dimensions, where not all was."""
    run = view.run
    parts = []
    if len(run.recorded_layers) < run.n_layers:
        parts.append(f"layers {listed(run.recorded_layers)}")
    if not run.all_iterations:
        parts.append(f"iterations {listed(run.kept_iterations)}")
    everything = int(run.prompts["length"].values.sum())
    if everything > run.n_tokens:
        parts.append(f"{run.n_tokens:,} of {everything:,} tokens")
    if run.reduction is not None:
        parts.append(f"{run.width} dimensions ({run.reduction.kind})")
    return "; ".join(parts)


def _part(view: View) -> str:
    return f"no: {len(view.run.committed)} of {view.run.n_blocks} blocks are recorded"


def found(view: View, theme: str) -> list[Component]:
    """Return what the analyses found: regimes with counts, and path independence."""
    regimes, trouble = attempt(lambda: _regimes(view, theme))
    score, no_score = attempt(lambda: _score(view))
    # The panels below say at length what is wrong.
    return [
        _fact("Regimes", "cannot be computed" if trouble else regimes, warn=bool(trouble)),
        _fact(
            "Path independence", "cannot be computed" if no_score else score, warn=bool(no_score)
        ),
    ]


def _regimes(view: View, theme: str) -> Component:
    names, counts = np.unique(view.results("classify")["regime"].values, return_counts=True)
    number = {str(name): int(count) for name, count in zip(names, counts, strict=True)}
    styles = plots.palette(theme).regimes
    return html.Span(
        [
            html.Span(
                [
                    html.Span(SYMBOLS[name], className="symbol", style={"color": style.colour}),
                    f"{number.get(name, 0):,} {style.label}",
                ],
                className="count",
            )
            for name, style in styles.items()
        ],
        title=f"of {sum(number.values()):,} trajectories (tokens × restarts)",
    )


def _score(view: View) -> Component:
    if view.run.restarts < 2:
        return html.Span("not measured: one restart", title="Record with restarts=2 or more.")
    results = view.results("path_independence")
    score = float(results["aa_score"] if "aa_score" in results else results.attrs["aa_score"])
    return html.Span(
        f"{score:.3f}",
        title="Mean cosine between the limits of two restarts (the asymptotic alignment score); 1 "
        "means that the answer does not depend on the initial state.",
    )


def _fact(name: str, text: Any, *, warn: bool = False) -> Component:
    return html.Div(
        [html.Dt(name), html.Dd(text, className="warn" if warn else None)], className="fact"
    )


def body(view: View) -> list[Component]:
    """Return the facts; those that need an analysis come with the first callback."""
    return [
        html.Dl(
            [
                *recorded(view),
                html.Div(_fact("Analyses", "computing…"), id="overview-found", className="found"),
            ],
            className="facts",
        )
    ]


def register(app: Dash, view: View) -> None:
    """Fill in what the analyses found."""

    @app.callback(
        Output("overview-found", "children"),
        Input("overview-view", "data"),
        State("selection", "data"),
        State("iteration", "data"),
    )
    def fill(changed: Any, values: Any, iteration: Any) -> Any:
        selection = current(view, changed, values, iteration)
        made, trouble = attempt(lambda: found(view, selection.theme))
        return made if trouble is None else trouble


PANEL = Panel(
    name="overview",
    title="Run",
    keys=("theme",),
    body=body,
    register=register,
    bare=True,
)
