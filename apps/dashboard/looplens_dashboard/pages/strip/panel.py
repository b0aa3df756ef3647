"""The strip: a button for each token of the prompt, its colour and filter, the way to matches.

A click is caught by ``assets/keys.js``; what one token's numbers are is shown by
``assets/strip.js`` from what is sent beside the strip.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from dash import html
from dash.development.base_component import Component

from looplens import analysis
from looplens.analysis import TokenStatistic
from looplens.errors import LoopLensError
from looplens.plots import TokenLook, TokenLooks, short_number, token_looks
from looplens_dashboard.pages.strip.legend import legend
from looplens_dashboard.panels.call import Call, figure_call
from looplens_dashboard.panels.panel import Panel
from looplens_dashboard.selection import Choice, Options, Selection
from looplens_dashboard.view import View, visible

MOST_TOKENS = 400
"""Buttons at once; of a longer prompt those around the selected token."""

_SMALL = 4000  # trajectories whose regimes take a moment to compute
_NEIGHBOURS = 20  # matches that are sent in each direction, so that keys need not wait
_LEFT_OUT = {"text", "position", "prompt", "token_id", "seed", "length", "reason"}
_LONGEST_WORD = 80


def _colours(view: View) -> Options:
    """Return what can colour the tokens: what is stored, and regimes of a run that is small."""
    known = analysis.token_statistics(view.run)
    small = view.run.n_tokens * view.run.restarts <= _SMALL
    now = [one for one in known.values() if one.stored or (small and one.name == "regime")]
    later = [one for one in known.values() if one not in now]
    return (
        *((one.name, one.title) for one in now),
        *((one.name, f"{one.title} (computed first)") for one in later),
    )


COLOUR = Choice(name="colour", label="Colour of the tokens", options=_colours, width=210)
FILTER = Choice(
    name="filter",
    label="Filter, such as regime=orbit",
    control="text",
    longest=500,
    width=300,
)


def strip(view: View, selection: Selection) -> Component:
    """Return the tokens of the selected prompt, what their colours mean, and the matches."""
    shown, note = window(view, selection)
    statistic = analysis.token_statistics(view.run)[selection["colour"]]
    trouble: list[Component] = []
    known: TokenLooks | None = None
    values: Sequence[Any] = [""] * len(shown)
    try:
        place = {"restart": selection.restart, "layer": selection.layer}
        known = token_looks(view.run, statistic.name, **place, theme=selection.theme)
        inside_prompt = slice(shown.start, shown.stop)
        found_values = analysis.token_values(view.run, statistic.name, inside_prompt, **place)
        values = found_values[statistic.name].values
    except LoopLensError as error:  # without what colours it a token can still be chosen
        trouble.append(html.Div(str(error), className="strip-note", role="status"))
    found, wrong = matched(view, selection)
    inside = None if found is None else set(found[_between(found, shown)].tolist())
    buttons = [
        _button(
            view,
            selection,
            token,
            None if known is None else known.of(value),
            statistic,
            value,
            None if inside is None else token in inside,
        )
        for token, value in zip(shown, values, strict=True)
    ]
    if "classify" not in view.run.analyses and view.run.n_tokens * view.run.restarts > _SMALL:
        trouble.append(
            html.Div(
                f"Regimes are not stored in this run. Store them with: looplens analyze "
                f"{view.run.path}",
                className="strip-note",
            )
        )
    if wrong:
        trouble.append(html.Div(wrong, className="strip-note", role="status"))
    return html.Div(
        [
            html.Div(
                buttons,
                className=f"tokens by-{statistic.kind}",
                role="group",
                **{"aria-label": f"Tokens of prompt {selection.prompt}"},
            ),
            *note,
            *trouble,
            html.Div(
                [
                    *([] if known is None else [legend(known, selection["filter"])]),
                    _matches(view, selection, found, inside),
                ],
                className="strip-foot",
            ),
        ]
    )


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


def _between(found: Any, shown: range) -> slice:
    return slice(*np.searchsorted(found, [shown.start, shown.stop]).tolist())


def _button(
    view: View,
    selection: Selection,
    token: int,
    look: TokenLook | None,
    statistic: TokenStatistic,
    value: Any,
    matches: bool | None,
) -> Component:
    text = view.token_text(token)
    chosen = token in selection.tokens
    classes = ["token"]
    classes += ["selected"] if token == selection.token else ["also"] if chosen else []
    classes += [] if matches is None else ["match"] if matches else ["other"]
    said = [f"token {view.positions[token]}", text]
    said += [f"{statistic.title} {_said(statistic, value)}"] if look else []
    said += ["match"] if matches else []
    style = (
        {} if look is None else {"--token-colour": look.colour, "borderBottomStyle": look.border}
    )
    return html.Button(
        [
            html.Span(text, className="token-text"),
            html.Span("" if look is None else look.cue, className="cue"),
        ],
        className=" ".join(classes),
        style=style,
        **{
            "data-token": str(token),
            "aria-pressed": "true" if chosen else "false",
            "aria-label": ", ".join(said),
        },
    )


def _said(statistic: TokenStatistic, value: Any) -> str:
    """Write a value for people, with its unit."""
    if statistic.kind == "word":
        return visible(str(value), _LONGEST_WORD).replace("_", " ") if value else "–"
    known = np.isfinite(value) and statistic.units not in ("", "1", "iteration", "iterations")
    return f"{short_number(value)} {statistic.units}" if known else short_number(value)


def _matches(view: View, selection: Selection, found: Any, inside: set[int] | None) -> Component:
    """Return how many tokens match, and buttons to the next and the previous one."""
    if found is None:
        names = ", ".join(name for name, _ in view.limits.options["colour"])
        hint = "filters: regime=orbit · settling_iteration>20 and entropy>=1 · text=the"
        return html.Div(hint, className="matches hint", title=f"Names: {names}")
    count, total = (f"{n:,}".replace(",", "\u202f") for n in (len(found), view.limits.tokens))
    ways = []
    for name, words, back in (
        ("previous-match", "‹ previous", True),
        ("next-match", "next ›", False),
    ):
        token = analysis.next_match(found, selection.token, back=back)
        ways.append(
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
            *ways,
        ],
        className="matches",
    )


def frames(view: View, selection: Selection) -> dict[str, Any]:
    """Return the numbers of the tokens for hovering, and the matches around the selected one.

    Returns
    -------
    dict
        ``first`` and ``token``, global numbers of the first and the selected one; ``names``;
        ``rows``, a list of texts a token;
        ``next`` and ``previous``, tokens that match, the nearest first; whether the selected one
        itself ``matches``.
    """
    shown, _ = window(view, selection)
    known = analysis.token_statistics(view.run)
    names = [
        name
        for name, one in known.items()
        if one.stored and "." not in name and name not in _LEFT_OUT
    ]
    coloured = selection["colour"]
    if coloured not in names:
        names.insert(0, coloured)
    values: dict[str, Any] = {}
    for name in names:
        try:
            values[name] = analysis.token_values(
                view.run,
                name,
                slice(shown.start, shown.stop),
                restart=selection.restart,
                layer=selection.layer,
            )[name].values
        except LoopLensError:
            continue  # the panel of that analysis says why
    rows = [
        [
            f"{view.token_text(token)} · position {view.positions[token]} · token {token}",
            *(_said(known[name], values[name][row]) for name in values),
        ]
        for row, token in enumerate(shown)
    ]
    around: dict[str, Any] = {"next": [], "previous": [], "matches": False}
    found, _ = matched(view, selection)
    if found is not None and len(found):
        at = int(np.searchsorted(found, selection.token, side="right"))
        before = int(np.searchsorted(found, selection.token, side="left"))
        steps = range(min(_NEIGHBOURS, len(found)))
        around["matches"] = at > before
        around["next"] = [int(found[(at + step) % len(found)]) for step in steps]
        around["previous"] = [int(found[(before - 1 - step) % len(found)]) for step in steps]
    return {
        "first": shown.start,
        "token": str(selection.token),
        "names": [known[name].title for name in values],
        "rows": rows,
        **around,
    }


def _call(_view: View, selection: Selection) -> Call:
    """Return the figure that shows the same in a notebook; its data is that of the strip."""
    return figure_call(
        "tokens",
        prompt=selection.prompt,
        colour=selection["colour"],
        restart=selection.restart,
        layer=selection.layer,
        token=selection.token,
    )


PANEL = Panel(
    name="strip",
    title="Tokens",
    answers="Which tokens does the prompt have, and what does each of them do?",
    keys=("prompt", "token", "also", "restart", "layer"),
    body=strip,
    call=_call,
    frames=frames,
    choices=(COLOUR, FILTER),
    height=None,
)
