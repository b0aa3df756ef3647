"""What the dynamics lab stored in the run: of which tokens, and which command makes the rest."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dash import html
from dash.development.base_component import Component

from looplens.analysis.dynamics import DYNAMICS
from looplens.errors import CorruptRunError
from looplens_dashboard.panels.panel import Panel
from looplens_dashboard.selection import Selection
from looplens_dashboard.view import View

EXPERIMENTS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "fixed_points": ("Fixed points", "Which states does the loop leave as they are?"),
        "spectra": (
            "Eigenvalues",
            "How does a step stretch and turn what is near, and is that what was seen?",
        ),
        "causes": ("Causes", "Does a token move by itself, or is it driven by another?"),
        "lyapunov": (
            "Lyapunov exponents",
            "Do trajectories that begin beside each other meet or part?",
        ),
        "cycle_points": ("Points of the cycle", "Where does every layer come to rest?"),
        "landscape": ("Landscape", "How long is a step around the limit, and where does it go?"),
        "basin_map": ("Basins on a plane", "Which starts end where?"),
        "continuation": (
            "Continuation",
            "At which gain does the fixed point lose its stability, and what begins there?",
        ),
        "recovery": ("Recovery", "Does the loop pull a pushed state back?"),
        "basin_radius": (
            "Radius of the basin",
            "How far can a state be pushed and still come back?",
        ),
        "damage_cone": ("Damage", "Which tokens notice a foreign state, and when?"),
        "swap_states": ("Swapped states", "Does the loop keep the states of another prompt?"),
        "causal_effect": ("Causal effect", "Where and when is the answer written?"),
    }
)
"""Results of the lab, as they are called in a run: title, and what they answer."""

_MOST_TOKENS = 7


def held(view: View, name: str) -> tuple[list[int], int | None] | None:
    """Return the tokens that a stored result is of, and of which restart; None without one.

    Raises
    ------
    CorruptRunError
        If it is damaged.
    """
    found = view.run.analysis(f"{DYNAMICS}/{name}")
    if found is None or "token" not in found.coords:
        return None
    restart = found.attrs.get("restart")
    return found["token"].values.tolist(), None if restart is None else int(restart)


def body(view: View, selection: Selection) -> Component:
    """Return a table with a line for every experiment."""
    stored = set(view.run.analyses)
    rows = [
        _row(view, selection, name, title, question, f"{DYNAMICS}/{name}" in stored)
        for name, (title, question) in EXPERIMENTS.items()
    ]
    head = html.Thead(
        html.Tr([html.Th(name, scope="col") for name in ("Experiment", "Answers", "Of the tokens")])
    )
    return html.Table([head, html.Tbody(rows)], className="lab")


def _row(
    view: View, selection: Selection, name: str, title: str, question: str, stored: bool
) -> Component:
    try:
        found = held(view, name) if stored else None
    except CorruptRunError as error:
        return _line(title, question, [html.Span(str(error), className="warn")])
    if found is None:
        command = f"looplens dynamics {view.run.path} --parts {name}"
        return _line(title, question, ["not stored: ", html.Code(command)])
    tokens, restart = found
    mine = set(view.limits.tokens_of(selection.prompt))
    # Those of the prompt that is looked at come first.
    shown = sorted(tokens, key=lambda token: (token not in mine, token))[:_MOST_TOKENS]
    parts: list[Component | str] = [_button(view, token, selection) for token in shown]
    if len(tokens) > len(shown):
        parts.append(f"and {len(tokens) - len(shown)} more")
    return _line(title, question, parts, "" if restart is None else f"of restart {restart}")


def _line(title: str, question: str, parts: list[Component | str], of: str = "") -> Component:
    return html.Tr([html.Th(title, scope="row"), html.Td(question), html.Td(parts, title=of)])


def _button(view: View, token: int, selection: Selection) -> Component:
    chosen = token == selection.token
    return html.Button(
        f"{token} {view.token_text(token)}",
        className="button",
        **{
            "data-token": str(token),
            "aria-label": f"Look at token {token}",
            "aria-pressed": "true" if chosen else "false",
        },
    )


PANEL = Panel(
    name="lab",
    title="What the dynamics lab stored",
    answers="Which experiments were done with the model, and on which tokens?",
    keys=("token",),
    body=body,
    span=12,
    wide=12,
    height=260,
)
