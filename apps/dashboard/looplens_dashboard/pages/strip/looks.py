"""How a token looks for what is known of it, and what its colours mean.

What a colour says is always said a second time: a regime by a symbol and the style of the border,
another word by its letters, a number by its digits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from dash import html
from dash.development.base_component import Component

from looplens import analysis, plots
from looplens.analysis import REGIMES, TokenStatistic
from looplens_dashboard.selection import Selection
from looplens_dashboard.view import View, visible

SYMBOLS: Mapping[str, str] = {
    "fixed_point": "●",
    "orbit": "◆",
    "slider": "▶",
    "unresolved": "✕",
}
"""One character a regime: the symbols of the figures, as text."""

BORDERS: Mapping[str, str] = {
    "fixed_point": "solid",
    "orbit": "dashed",
    "slider": "double",
    "unresolved": "dotted",
}
"""Style of the border of a token, by regime."""

_STYLES = ("solid", "dashed", "double")
_LONGEST_CUE = 9
_MOST_WORDS = 18  # distinct words with colours of their own
_UNKNOWN = "–"


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """Colour, style of the border, and the text below a token."""

    colour: str
    border: str
    cue: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Looks:
    """How all tokens of a run look at a statistic.

    Attributes
    ----------
    statistic : TokenStatistic
        What colours them.
    of_words : mapping of str to Look
        Of words that are few enough for colours of their own, in their order.
    counts : mapping of str to int
        How many tokens of the run have each of them.
    low, high : float
        Ends of the scale of a number.
    logarithmic : bool
        Whether the scale is.
    theme : str
        Of the colours.
    """

    statistic: TokenStatistic
    of_words: Mapping[str, Look]
    counts: Mapping[str, int]
    low: float = 0.0
    high: float = 1.0
    logarithmic: bool = False
    theme: str = "light"

    def of(self, value: Any) -> Look:
        """Return the look of a token with a value."""
        muted = plots.palette(self.theme).muted
        if self.statistic.kind == "word":
            known = self.of_words.get(value)
            cue = visible(value, _LONGEST_CUE) if value else _UNKNOWN
            return known or Look(colour=muted, border="dotted" if not value else "solid", cue=cue)
        if not np.isfinite(value):
            return Look(colour=muted, border="dotted", cue=self.unknown)
        return Look(colour=self._colour(float(value)), border="solid", cue=short(value))

    @property
    def unknown(self) -> str:
        """What stands for a number that is not known."""
        return "never" if self.statistic.name.endswith("settling_iteration") else _UNKNOWN

    def _colour(self, value: float) -> str:
        stops = plots.palette(self.theme).sequential
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = np.log(low), np.log(high), np.log(max(value, low))
        share = (value - low) / (high - low) if high > low else 0.0
        return min(stops, key=lambda stop: abs(stop[0] - share))[1]


def looks(view: View, selection: Selection, statistic: TokenStatistic) -> Looks:
    """Return how tokens look for a statistic, at the selected restart and layer.

    Raises
    ------
    LoopLensError
        If it cannot be read.
    """
    place = {"restart": selection.restart, "layer": selection.layer}
    if statistic.kind == "word":
        counts = analysis.word_counts(view.run, statistic.name, **place)
        few = counts if len(counts) <= _MOST_WORDS else {}
        return Looks(
            statistic=statistic,
            of_words=_of_words(list(few), selection.theme),
            counts=few,
            theme=selection.theme,
        )
    low, high = analysis.value_range(view.run, statistic.name, **place) or (0.0, 1.0)
    return Looks(
        statistic=statistic,
        of_words={},
        counts={},
        low=low,
        high=high,
        logarithmic=low > 0 and (statistic.units == "iteration" or high > 100 * low),
        theme=selection.theme,
    )


def _of_words(words: Sequence[str], theme: str) -> dict[str, Look]:
    colours = plots.palette(theme)
    if words and set(words) <= set(REGIMES):
        return {
            word: Look(colour=colours.regimes[word].colour, border=BORDERS[word], cue=SYMBOLS[word])
            for word in words
        }
    many = len(colours.categories)
    return {
        word: Look(
            colour=colours.categories[number % many],
            border=_STYLES[number // many % len(_STYLES)],
            cue=visible(word, _LONGEST_CUE),
        )
        for number, word in enumerate(words)
    }


def legend(known: Looks, query: str) -> Component:
    """Return what the colours mean; a word is a button that filters for it, or ends that."""
    if known.statistic.kind == "word":
        items = [_word(known, word, look, query) for word, look in known.of_words.items()]
        if not items:
            items = [html.Li(f"{known.statistic.title.lower()}: many words, no colours")]
    else:
        items = _scale(known)
    return html.Ul(items, className="legend", **{"aria-label": f"Legend: {known.statistic.title}"})


def _word(known: Looks, word: str, look: Look, query: str) -> Component:
    mine = f'{known.statistic.name}="{word}"' if " " in word else f"{known.statistic.name}={word}"
    on = query.replace(" ", "") == mine.replace(" ", "")
    count = f"{known.counts[word]:,}".replace(",", "\u202f")
    return html.Li(
        html.Button(
            [
                html.Span(
                    look.cue if look.cue in SYMBOLS.values() else "",
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


def _scale(known: Looks) -> list[Component]:
    colours = plots.palette(known.theme)
    stops = ", ".join(f"{colour} {share:.0%}" for share, colour in colours.sequential)
    never = html.Span(
        _UNKNOWN,
        className="swatch",
        style={"--token-colour": colours.muted, "borderBottomStyle": "dotted"},
    )
    units = known.statistic.units
    units = "" if units in ("", "1", "iteration", "iterations") else f" {units}"
    return [
        html.Li(
            [
                f"{known.statistic.title} {short(known.low)}",
                html.Span(
                    className="scale",
                    title="logarithmic" if known.logarithmic else "linear",
                    style={"background": f"linear-gradient(90deg, {stops})"},
                ),
                f"{short(known.high)}{units}",
            ]
        ),
        html.Li([never, "never" if known.unknown == "never" else "not known"]),
    ]


def short(value: Any) -> str:
    """Write a number in a few characters."""
    number = float(value)
    if not np.isfinite(number):
        return _UNKNOWN
    if number == int(number) and abs(number) < 1e6:
        return str(int(number)).replace("-", "−")
    text = f"{number:.3g}" if 1e-3 <= abs(number) < 1e6 else f"{number:.1e}"
    return text.replace("e-0", "e-").replace("e+0", "e").replace("-", "−")
