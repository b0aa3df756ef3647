"""The strip: a button for each token of the prompt, its colour and filter, the way to matches.

A click is caught by ``assets/keys.js``; what one token's numbers are is shown by
``assets/strip.js`` from what is sent beside the strip.
"""

from __future__ import annotations

from typing import Any

from dash import html
from dash.development.base_component import Component

from looplens import analysis
from looplens.analysis import TokenStatistic
from looplens.errors import LoopLensError
from looplens.plots import TokenLook, TokenLooks, token_looks
from looplens_dashboard.pages.strip.around import between, matched, ways, window
from looplens_dashboard.pages.strip.legend import legend
from looplens_dashboard.pages.strip.sent import frames, said
from looplens_dashboard.panels.call import Call, figure_call
from looplens_dashboard.panels.panel import Panel
from looplens_dashboard.selection import Choice, Options, Selection
from looplens_dashboard.view import View

_SMALL = 4000  # trajectories whose regimes take a moment to compute


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
    values: Any = [""] * len(shown)
    try:
        place = {"restart": selection.restart, "layer": selection.layer}
        known = token_looks(view.run, statistic.name, **place, theme=selection.theme)
        inside_prompt = slice(shown.start, shown.stop)
        found_values = analysis.token_values(view.run, statistic.name, inside_prompt, **place)
        values = found_values[statistic.name].values
    except LoopLensError as error:  # without what colours it a token can still be chosen
        trouble.append(html.Div(str(error), className="strip-note", role="status"))
    found, wrong = matched(view, selection)
    inside = None if found is None else set(found[between(found, shown)].tolist())
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
                    ways(view, selection, found, inside),
                ],
                className="strip-foot",
            ),
        ]
    )


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
    words = [f"token {view.positions[token]}", text]
    words += [f"{statistic.title} {said(statistic, value)}"] if look else []
    words += ["match"] if matches else []
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
            "aria-label": ", ".join(words),
        },
    )


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
