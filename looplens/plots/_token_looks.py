"""How a token looks for what is known of it: a colour, a style of its border, and a text.

What a colour says is always said a second time: a regime by a symbol and the border, another word
by its letters, a number by its digits. The values are those of
:func:`looplens.analysis.token_values`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from looplens import analysis
from looplens.analysis import REGIMES, TokenStatistic
from looplens.plots import _labels, _palette

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
class TokenLook:
    """Colour, style of the border, and the text below a token."""

    colour: str
    border: str
    cue: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenLooks:
    """How all tokens of a run look for a statistic.

    Attributes
    ----------
    statistic : TokenStatistic
        What colours them.
    of_words : mapping of str to TokenLook
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
    of_words: Mapping[str, TokenLook]
    counts: Mapping[str, int]
    low: float = 0.0
    high: float = 1.0
    logarithmic: bool = False
    theme: str = "light"

    def of(self, value: Any) -> TokenLook:
        """Return the look of a token with a value of the statistic."""
        muted = _palette.palette(self.theme).muted
        if self.statistic.kind == "word":
            if value in self.of_words:
                return self.of_words[value]
            cue = _labels.visible_text(str(value), most=_LONGEST_CUE) if value else _UNKNOWN
            return TokenLook(colour=muted, border="solid" if value else "dotted", cue=cue)
        if not np.isfinite(value):
            return TokenLook(colour=muted, border="dotted", cue=self.unknown)
        stops = _palette.palette(self.theme).sequential
        nearest = min(stops, key=lambda stop: abs(stop[0] - self.share(float(value))))
        return TokenLook(colour=nearest[1], border="solid", cue=short_number(value))

    @property
    def unknown(self) -> str:
        """What stands for a number that is not known."""
        return "never" if self.statistic.name.endswith("settling_iteration") else _UNKNOWN

    def share(self, value: float) -> float:
        """Return where a number lies on the scale, from 0 to 1."""
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = np.log(low), np.log(high), np.log(max(value, low))
        return float(np.clip((value - low) / (high - low), 0, 1)) if high > low else 0.0


def token_looks(
    run: Any, name: str, *, restart: int = 0, layer: int | None = None, theme: str = "light"
) -> TokenLooks:
    """Return how the tokens of a run look for a statistic.

    Parameters
    ----------
    run : looplens.Run
        The opened run.
    name : str
        One of :func:`looplens.analysis.token_statistics`.
    restart, layer : int, optional
        Whose values the scale is of; see :func:`looplens.analysis.token_values`.
    theme : {"light", "dark"}
        Of the colours.

    Raises
    ------
    InputError
        If the run knows nothing of that name, or has no such restart or layer.
    AnalysisError
        If the run does not hold the data for it.
    """
    counts: Mapping[str, int] = {}
    known = analysis.token_statistics(run)
    if name not in known or known[name].kind == "word":
        counts = analysis.word_counts(run, name, restart=restart, layer=layer)
        few = counts if len(counts) <= _MOST_WORDS else {}
        return TokenLooks(
            statistic=known[name], of_words=_of_words(list(few), theme), counts=few, theme=theme
        )
    ends = analysis.value_range(run, name, restart=restart, layer=layer)
    low, high = ends or (0.0, 1.0)
    return TokenLooks(
        statistic=known[name],
        of_words={},
        counts={},
        low=low,
        high=high,
        logarithmic=low > 0 and (known[name].units == "iteration" or high > 100 * low),
        theme=theme,
    )


def _of_words(words: Sequence[str], theme: str) -> dict[str, TokenLook]:
    colours = _palette.palette(theme)
    if words and set(words) <= set(REGIMES):
        return {
            word: TokenLook(
                colour=colours.regimes[word].colour, border=BORDERS[word], cue=SYMBOLS[word]
            )
            for word in words
        }
    many = len(colours.categories)
    return {
        word: TokenLook(
            colour=colours.categories[number % many],
            border=_STYLES[number // many % len(_STYLES)],
            cue=_labels.visible_text(word, most=_LONGEST_CUE),
        )
        for number, word in enumerate(words)
    }


def short_number(value: Any) -> str:
    """Write a number in a few characters."""
    number = float(value)
    if not np.isfinite(number):
        return _UNKNOWN
    if number == int(number) and abs(number) < 1e6:
        return str(int(number)).replace("-", "−")
    text = f"{number:.3g}" if 1e-3 <= abs(number) < 1e6 else f"{number:.1e}"
    return text.replace("e-0", "e-").replace("e+0", "e").replace("-", "−")
