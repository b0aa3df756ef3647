"""What the colours of the tokens mean: words to filter for, or the scale of a number."""

from __future__ import annotations

import json

from dash import html
from dash.development.base_component import Component

from looplens import plots
from looplens.plots import TokenLook, TokenLooks, short_number


def legend(known: TokenLooks, query: str) -> Component:
    """Return what the colours mean; a word is a button that filters for it, or ends that."""
    if known.statistic.kind == "word":
        items = [_word(known, word, look, query) for word, look in known.of_words.items()]
        if not items:
            items = [html.Li(f"{known.statistic.title.lower()}: many words, no colours")]
    else:
        items = _scale(known)
    return html.Ul(items, className="legend", **{"aria-label": f"Legend: {known.statistic.title}"})


def _word(known: TokenLooks, word: str, look: TokenLook, query: str) -> Component:
    mine = f'{known.statistic.name}="{word}"' if " " in word else f"{known.statistic.name}={word}"
    on = query.replace(" ", "") == mine.replace(" ", "")
    count = f"{known.counts[word]:,}".replace(",", "\u202f")
    return html.Li(
        html.Button(
            [
                html.Span(
                    look.cue if not look.cue.isalnum() else "",
                    className="swatch",
                    style={"--token-colour": look.colour, "borderBottomStyle": look.border},
                ),
                f"{word.replace('_', ' ')} ",
                html.Span(count, className="count"),
            ],
            className="button legend-word",
            title=f"{count} tokens of the run. Filter for them" if not on else "End the filter",
            **{
                "aria-pressed": "true" if on else "false",
                "data-pick": json.dumps({"filter": "" if on else mine}),
            },
        )
    )


def _scale(known: TokenLooks) -> list[Component]:
    colours = plots.palette(known.theme)
    stops = ", ".join(f"{colour} {share:.0%}" for share, colour in colours.sequential)
    never = html.Span(
        "–",
        className="swatch",
        style={"--token-colour": colours.muted, "borderBottomStyle": "dotted"},
    )
    units = known.statistic.units
    units = "" if units in ("", "1", "iteration", "iterations") else f" {units}"
    return [
        html.Li(
            [
                f"{known.statistic.title} {short_number(known.low)}",
                html.Span(
                    className="scale",
                    title="logarithmic" if known.logarithmic else "linear",
                    style={"background": f"linear-gradient(90deg, {stops})"},
                ),
                f"{short_number(known.high)}{units}",
            ]
        ),
        html.Li([never, "never" if known.unknown == "never" else "not known"]),
    ]
