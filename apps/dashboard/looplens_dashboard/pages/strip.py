"""The tokens of the prompt as a row of buttons; ``assets/keys.js`` catches a click on one."""

from __future__ import annotations

from dash import html
from dash.development.base_component import Component

from looplens_dashboard.panels.panel import Panel
from looplens_dashboard.selection import Selection
from looplens_dashboard.view import View


def strip(view: View, selection: Selection) -> Component:
    """Return the tokens of the selected prompt."""
    buttons = []
    for token in view.limits.tokens_of(selection.prompt):
        chosen = token in selection.tokens
        classes = ["token", *(["selected"] * (token == selection.token)), *(["also"] * chosen)]
        buttons.append(
            html.Button(
                html.Span(view.token_text(token), className="token-text"),
                className=" ".join(classes),
                **{
                    "data-token": str(token),
                    "aria-pressed": "true" if chosen else "false",
                    "aria-label": f"token {view.positions[token]}, {view.token_text(token)}",
                },
            )
        )
    return html.Div(buttons, className="tokens")


PANEL = Panel(
    name="strip",
    title="Tokens",
    answers="Which tokens does the prompt have, and what does each of them do?",
    keys=("prompt", "token", "also", "restart", "layer"),
    body=strip,
    height=None,
    bare=True,
)
