"""How tokens, numbers and runs are written on a figure.

Everything here turns something into short text: a token into a label with its spaces visible, a
power of ten into a tick, a run into a subtitle. It reads the token table of a run and nothing else.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

_VISIBLE = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"})
_MOST_CHARACTERS = 14
PIXELS_PER_ROW = 18
"""Height that one row label needs so as not to touch the next."""


def visible_text(text: str, *, most: int = _MOST_CHARACTERS) -> str:
    """Return a token's text with its whitespace visible, shortened.

    Parameters
    ----------
    text : str
        The token as the tokenizer decodes it.
    most : int
        Longest label, in characters; the middle of a longer one becomes an ellipsis.
    """
    visible = text.translate(_VISIBLE) if text else "∅"
    if len(visible) > most:
        head = most // 2
        visible = f"{visible[:head]}…{visible[len(visible) - (most - 1 - head) :]}"
    return visible


def escape(text: str) -> str:
    """Make text safe inside a figure: plotly reads some HTML, and ``%{...}``, in its texts."""
    return html.escape(text, quote=False).replace("%{", "%\u200b{")


def written(text: str) -> str:
    """Return a token's text as a figure writes it: whitespace visible, shortened, made safe."""
    return escape(visible_text(text))


def token_labels(
    run: Any, tokens: Iterable[int] | slice, *, position: bool = False, escaped: bool = True
) -> list[str]:
    """Return the labels of some tokens of a run.

    Parameters
    ----------
    run : looplens.Run
        The opened run.
    tokens : iterable of int or slice
        Global token numbers.
    position : bool
        Put the position in the prompt in front of each label.
    escaped : bool
        Make the labels safe inside a figure.
    """
    chosen = tokens if isinstance(tokens, slice) else np.array(list(tokens), dtype=np.intp)
    labels = [visible_text(str(text)) for text in run.tokens["text"].values[chosen]]
    if position:
        places = run.tokens["position"].values[chosen]
        labels = [f"{int(place)} {label}" for place, label in zip(places, labels, strict=True)]
    return [escape(label) for label in labels] if escaped else labels


def prompt_labels(run: Any, prompt: int) -> list[str]:
    """Return one label for every token that a prompt was run with.

    Tokens that the run does not keep have no text in it: their position stands for them.
    """
    kept = run.token_range(prompt)
    length = int(run.prompts["length"].values[prompt])
    labels = [f"[{position}]" for position in range(length)]
    places = run.tokens["position"].values[kept]
    for place, label in zip(places, token_labels(run, kept), strict=True):
        labels[int(place)] = label
    return labels


def row_ticks(labels: Sequence[str], pixels: float) -> tuple[list[int], list[str]]:
    """Choose which rows of an axis carry their label so that none overlap.

    Parameters
    ----------
    labels : sequence of str
        One label a row.
    pixels : float
        Length of the axis.

    Returns
    -------
    positions, texts : list of int, list of str
        Every n-th row, n as small as the length allows.
    """
    fitting = max(1, int(pixels // PIXELS_PER_ROW))
    step = max(1, math.ceil(len(labels) / fitting))
    positions = list(range(0, len(labels), step))
    return positions, [labels[position] for position in positions]


def decade_ticks(low: float, high: float, *, most: int = 7) -> tuple[list[int], list[str]]:
    """Return whole powers of ten between two base-10 logarithms, and their labels."""
    first, last = math.ceil(low - 1e-9), math.floor(high + 1e-9)
    step = max(1, math.ceil((last - first + 1) / most))
    exponents = list(range(first, last + 1, step))
    return exponents, [power_of_ten(exponent) for exponent in exponents]


def log_axis(*curves: np.ndarray) -> dict[str, Any]:
    """Return settings of a logarithmic axis for the positive values among the curves.

    Whole powers of ten are its ticks where there are enough of them. Within a factor of three the
    axis is linear: a logarithmic one has no tick there.
    """
    values = np.concatenate([np.ravel(curve) for curve in curves]).astype(np.float64)
    values = values[np.isfinite(values) & (values > 0)]
    if not values.size:
        return {"type": "log"}
    low, high = np.log10([values.min(), values.max()])
    if high - low < 0.5:
        return {"type": "linear", "exponentformat": "power"}
    if high - low < 1.5:
        return {"type": "log", "dtick": "D2", "exponentformat": "power"}
    exponents, texts = decade_ticks(low - 0.3, high + 0.3, most=5)
    return {"type": "log", "tickvals": [10.0**e for e in exponents], "ticktext": texts}


def over_decades(*curves: np.ndarray) -> bool:
    """Return whether all known values are positive and the largest is over 100 times the least."""
    values = np.concatenate([np.ravel(curve) for curve in curves]).astype(np.float64)
    values = values[np.isfinite(values)]
    return bool(values.size and values.min() > 0 and values.max() > 100 * values.min())


def decade_axis(*curves: np.ndarray) -> dict[str, Any]:
    """Return settings of a logarithmic axis over whole decades, at least one, of positive values.

    Without any, three decades up to 1.
    """
    values = np.concatenate([np.ravel(curve) for curve in curves]).astype(np.float64)
    values = np.log10(values[np.isfinite(values) & (values > 0)])
    low, high = (np.floor(values.min()), np.ceil(values.max())) if values.size else (-3.0, 0.0)
    high = max(high, low + 1)
    exponents, texts = decade_ticks(low, high)
    return {
        "type": "log",
        "range": [low - 0.2, high + 0.2],
        "tickvals": [10.0**exponent for exponent in exponents],
        "ticktext": texts,
    }


def power_of_ten(exponent: int) -> str:
    """Return ``10`` raised to an exponent in the HTML dialect of plotly."""
    if exponent in (0, 1):
        return str(10**exponent)
    return f"10<sup>{exponent}</sup>".replace("-", "−")


def number(value: float, *, digits: int = 3) -> str:
    """Write a number for people: at most ``digits`` significant digits, ``–`` when missing."""
    if value is None or not np.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    if 1e4 <= abs(value) < 1e7:
        whole = value if float(value).is_integer() else float(f"{value:.{digits}g}")
        text = f"{whole:,.0f}".replace(",", "\u202f")
    elif 1e-3 <= abs(value) < 1e4:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        text = f"{value:.{decimals}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    else:
        text = f"{value:.{digits - 1}e}"
        mantissa, exponent = text.split("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        text = f"{mantissa}e{int(exponent)}"
    return text.replace("-", "−")


def percent(share: float) -> str:
    """Write a share between 0 and 1 as a percentage that never rounds to 0 % or 100 % falsely."""
    if share is None or not np.isfinite(share):
        return "–"
    value = 100 * share
    for decimals in (1, 2, 3) if 1 <= value <= 99 else (2, 3):
        text = f"{value:.{decimals}f}"
        if float(text) not in (0.0, 100.0) or share in (0.0, 1.0):
            break
    else:
        text = "< 0.001" if share < 0.5 else "> 99.999"
    # a narrow space that does not break, so that the sign stays with its number
    return f"{text.rstrip('0').rstrip('.')}\u202f%"


def cosine(value: float) -> str:
    """Write a cosine; one that is close to 1 is written by how far it is from 1.

    Rounding .99999 to "1" would claim what was not measured.
    """
    if not np.isfinite(value):
        return "–"
    short_of_one = 1 - value
    if 0 < short_of_one < 1e-4:
        return f"1 − {number(short_of_one, digits=1)}"
    return f"{value:.4f}".replace("-", "−")


def of_token(run: Any, token: int, *parts: str) -> str:
    """Return the subtitle of a figure of one token, which names it with its position."""
    return subtitle(run, f"token {token_labels(run, [token], position=True)[0]}", *parts)


def of_prompt(run: Any, token: int, *parts: str) -> str:
    """Return the same with the prompt of the token."""
    return of_token(run, token, f"prompt {int(run.tokens['prompt'].values[token])}", *parts)


def subtitle(run: Any, *parts: str) -> str:
    """Say which part of which run a figure shows: ``synthetic · prompt 0 · restart 1``."""
    named = [escape(str(run.model_name)), *[part for part in parts if part]]
    return " · ".join(named)
