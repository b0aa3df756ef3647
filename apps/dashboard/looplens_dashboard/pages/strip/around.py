"""Which tokens of the prompt are shown, which of the run the filter holds for, the way to those."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from dash import html
from dash.development.base_component import Component

from looplens import analysis
from looplens.errors import LoopLensError
from looplens_dashboard.selection import Selection
from looplens_dashboard.view import View

MOST_TOKENS = 400
"""Buttons at once; of a longer prompt those around the selected token."""

_HINT = "filters: regime=orbit · settling_iteration>20 and entropy>=1 · text=the"


def window(view: View, selection: Selection) -> tuple[range, list[Component]]:
    """Return the tokens that are shown, and the way to the others of a long prompt."""
    tokens = view.limits.tokens_of(selection.prompt)
    if len(tokens) <= MOST_TOKENS:
        return tokens, []
    page = (selection.token - tokens.start) // MOST_TOKENS
    first = tokens.start + page * MOST_TOKENS
    shown = range(first, min(first + MOST_TOKENS, tokens.stop))
    ways = [("‹ earlier", shown.start - 1), ("later ›", shown.stop)]
    return shown, [
        html.Div(
            [
                f"positions {shown.start - tokens.start} to {shown.stop - 1 - tokens.start} of "
                f"{len(tokens)} ",
                *(
                    html.Button(
                        words,
                        className="button",
                        **{"data-pick": json.dumps({"token": str(token)})},
                    )
                    for words, token in ways
                    if token in tokens
                ),
            ],
            className="strip-note",
        )
    ]


def matched(view: View, selection: Selection) -> tuple[Any, str]:
    """Return the tokens of the run that the filter holds for, or None, and what is wrong with it.

    Returns
    -------
    found : ndarray of int, or None
        None without a filter that can be read.
    wrong : str
        Empty where all is well.
    """
    if not selection["filter"]:
        return None, ""
    try:
        found = analysis.matches(
            view.run, selection["filter"], restart=selection.restart, layer=selection.layer
        )
    except LoopLensError as error:
        return None, str(error)
    return found, ""


def between(found: Any, shown: range) -> slice:
    """Return the part of the matches that is shown."""
    return slice(*np.searchsorted(found, [shown.start, shown.stop]).tolist())


def ways(view: View, selection: Selection, found: Any, inside: set[int] | None) -> Component:
    """Return how many tokens match, and buttons to the next and the previous one."""
    if found is None:
        names = ", ".join(name for name, _ in view.limits.options["colour"])
        return html.Div(_HINT, className="matches hint", title=f"Names: {names}")
    count, total = (f"{n:,}".replace(",", "\u202f") for n in (len(found), view.limits.tokens))
    buttons = []
    for name, words, back in (
        ("previous-match", "‹ previous", True),
        ("next-match", "next ›", False),
    ):
        token = analysis.next_match(found, selection.token, back=back)
        buttons.append(
            html.Button(
                words,
                id=name,
                className="button",
                disabled=token is None,
                title="Shift+N" if back else "N",
                **{"data-pick": json.dumps({"token": str(token), "also": ""})},
            )
        )
    return html.Div(
        [
            html.Span(
                f"{count} of {total} tokens match, {len(inside or ())} in this prompt",
                role="status",
            ),
            *buttons,
        ],
        className="matches",
    )
