"""How texts from the address, the controls and clicks become a selection that the run can show.

There is one function that checks them, :func:`read`; a bad value is replaced and reported in words.
This module knows a run only by its sizes, and nothing of panels, figures or Dash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from looplens_dashboard.selection import choices
from looplens_dashboard.selection.limits import Limits
from looplens_dashboard.selection.selection import KEYS, LOOP_STATE, MEAN_HEAD, THEMES, Selection

MOST_TOKENS = 12
"""Tokens that can be selected together: more lines cannot be told apart."""

_LONGEST_QUERY = 4000
_MOST_NOTES = 6


class _Reader:
    """Takes texts out of a mapping and collects a sentence for each that cannot be used."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        self.notes: list[str] = []

    def number(
        self, name: str, allowed: Sequence[int], fallback: int, where: str = "this run"
    ) -> int:
        """Return a whole number within ``allowed``, which is ascending."""
        text = self.values.get(name)
        if text is None:
            return fallback
        number = whole_number(text)
        if number is not None and number in allowed:
            return number
        if len(allowed) > 1:
            held = f"{where} has {name} {_listed(allowed)}"
        elif len(allowed) == 1:
            held = f"{where} has only {name} {allowed[0]}"
        else:
            held = f"{where} has none"
        self.replace(name, text, held, str(fallback))
        return fallback

    def number_or_name(self, name: str, special: str, allowed: Sequence[int]) -> int | None:
        """Return a number, or None for the one name that stands beside the numbers."""
        text = self.values.get(name)
        if text is None or text == special:
            return None
        number = whole_number(text)
        if number is not None and number in allowed:
            return number
        numbers = f" or {_listed(allowed)}" if len(allowed) else ""
        self.replace(name, text, f"expected {special}{numbers}", special)
        return None

    def further(self, name: str, token: int, limit: int) -> tuple[int, ...]:
        """Return global token numbers that stand beside the selected one."""
        text = str(self.values.get(name) or "")
        numbers = [whole_number(part) for part in text.split(",") if part]
        good = [n for n in dict.fromkeys(numbers) if n is not None and n < limit and n != token]
        if any(n is None or n >= limit for n in numbers) or len(good) >= MOST_TOKENS:
            good = good[: MOST_TOKENS - 1]
            held = f"expected at most {MOST_TOKENS - 1} tokens from 0 to {limit - 1}"
            self.replace(name, text, held, ", ".join(map(str, good)) or "none")
        return tuple(good)

    def replace(self, name: str, text: Any, expected: str, fallback: str) -> None:
        """Say that a value was replaced."""
        self.notes.append(
            f"{name}={choices.quoted(text)} cannot be shown: {expected}. Showing "
            f"{fallback or 'none'}."
        )


def read(
    values: Mapping[str, Any], limits: Limits, pages: Sequence[str]
) -> tuple[Selection, list[str]]:
    """Turn named texts into a selection that the run can show.

    Parameters
    ----------
    values : mapping of str to str
        ``page``, any of :data:`KEYS` and any choice; what is missing gets its default. A token
        alone decides the prompt. ``run`` has been dealt with: the limits are those of the run.
    limits : Limits
        The sizes of the run.
    pages : sequence of str
        Names of the pages; the first is the default.

    Returns
    -------
    selection : Selection
        Always valid.
    notes : list of str
        One sentence for each value that was replaced or ignored.
    """
    reader = _Reader(values)
    page = str(values.get("page") or pages[0])
    if page not in pages:
        reader.replace("page", page, f"the pages are {choices.listed(pages)}", pages[0])
        page = pages[0]
    wanted = whole_number(values.get("token"))
    implied = limits.prompt_of(wanted) if wanted is not None and wanted < limits.tokens else 0
    prompt = reader.number("prompt", range(limits.prompts), implied)
    inside = limits.tokens_of(prompt)
    # The last token has read the whole prompt, so it is the one with most to show.
    token = reader.number("token", inside, inside[-1], f"prompt {prompt}")
    layer = reader.number_or_name("layer", LOOP_STATE, limits.layers)
    attended = limits.attention_layers or (0,)
    chosen, defaults = {}, {}
    for name, choice in limits.choices.items():
        options = limits.options[name]
        chosen[name], wrong = choice.read(values.get(name), options)
        defaults[name] = choice.fallback(options)
        if wrong:
            reader.replace(name, values.get(name), wrong, chosen[name])
    selection = Selection(
        page=page,
        run=limits.run,
        prompt=prompt,
        token=token,
        also=reader.further("also", token, limits.tokens),
        restart=reader.number("restart", range(limits.restarts), 0),
        layer=layer,
        head=reader.number_or_name("head", MEAN_HEAD, range(limits.heads)),
        iteration=reader.number("iteration", limits.selectable, limits.selectable[-1]),
        theme=_theme(reader),
        attention_layer=layer if layer in attended and layer is not None else attended[-1],
        chosen=chosen,
        defaults={**defaults, "also": ""},
    )
    for name in values:
        if name not in KEYS and name not in chosen and name != "page":
            reader.notes.append(
                f"{choices.quoted(name)} is not a part of the view and was ignored."
            )
    if len(reader.notes) > _MOST_NOTES:
        more = len(reader.notes) - _MOST_NOTES
        reader.notes[_MOST_NOTES:] = [f"And {more} more."]
    return selection, reader.notes


def _theme(reader: _Reader) -> str:
    text = reader.values.get("theme")
    if text is None or text in THEMES:
        return THEMES[0] if text is None else str(text)
    reader.replace("theme", text, "expected light or dark", THEMES[0])
    return THEMES[0]


def texts(address: str | None) -> tuple[dict[str, str], list[str]]:
    """Read the named texts of an address: its path is the page, its query the rest.

    Parameters
    ----------
    address : str or None
        Such as ``/restarts?run=demo&token=3``. A query of more than 4000 characters is ignored.
    """
    path, _, query = (address or "").partition("?")
    page = path.strip("/")
    found = {"page": page} if page else {}
    if len(query) > _LONGEST_QUERY:
        return found, [
            f"The address has {len(query)} characters after the '?', more than any view of a run "
            f"needs ({_LONGEST_QUERY}). It was ignored."
        ]
    return {**dict(parse_qsl(query, keep_blank_values=True)), **found}, []


def changed(current: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the texts of a selection with some replaced.

    Choosing another prompt also chooses its last token; choosing a token chooses its prompt;
    choosing another run begins at its first prompt, with the same choices.

    Parameters
    ----------
    current, changes : mapping of str to str
        The selection so far, and what the user chose, from the browser.
    """
    merged = {**current, **changes}
    if changes.get("run", current.get("run")) != current.get("run"):
        for name in ("prompt", "token", "also", "restart", "layer", "head", "iteration", "zoom"):
            if name not in changes:
                merged.pop(name, None)
    elif "prompt" in changes and "token" not in changes:
        merged.pop("token", None)
    elif "token" in changes and "prompt" not in changes:
        merged.pop("prompt", None)
    return merged


def whole_number(text: Any) -> int | None:
    """Return a non-negative whole number of at most nine digits, or None."""
    digits = str(text).strip()
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 9 else None


def _listed(numbers: Sequence[int]) -> str:
    """Return ascending numbers for a sentence: ``0 to 7``, or ``4, 8 and 12``."""
    if len(numbers) > 1 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]} to {numbers[-1]}"
    return choices.listed(numbers)
