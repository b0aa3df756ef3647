"""What the dashboard looks at: one selection, its limits, and its way into the address and back.

A selection is the same set of named texts in three places: the store ``selection`` in the browser,
the values of the controls, and the query string of the address. So there is one function that
checks it, :func:`read`, and a bad value from any of the three is replaced and reported in words.
This module knows a run only by its sizes, and nothing of panels, figures or Dash.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import parse_qsl, urlencode

LOOP_STATE = "state"
"""Value of ``layer`` that means the loop state instead of a core layer."""

MEAN_HEAD = "mean"
"""Value of ``head`` that means the mean over heads."""

COLOURS = ("regime", "settling")
THEMES = ("light", "dark")
_LONGEST_QUERY = 1000
_LONGEST_QUOTE = 24
_MOST_LISTED = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The sizes of a run that a selection has to respect.

    Parameters
    ----------
    first_tokens : tuple of int
        Global number of the first token of each prompt, and last the number of all tokens.
    restarts, iterations : int
        Restarts; iterations T.
    kept_iterations : tuple of int
        Iterations that can be selected, ascending; empty for 0 to T.
    state_layers, attention_layers : tuple of int
        Core layers whose states and whose attention were recorded.
    heads : int
        Heads whose attention was recorded; 0 when none was.
    figures : tuple of str
        Names of the figures of the panel that shows one at a time; the first is the default.
    """

    first_tokens: tuple[int, ...]
    restarts: int
    iterations: int
    kept_iterations: tuple[int, ...] = ()
    state_layers: tuple[int, ...] = ()
    attention_layers: tuple[int, ...] = ()
    heads: int = 0
    figures: tuple[str, ...] = ("",)

    @property
    def selectable(self) -> Sequence[int]:
        """The iterations that the scrubber can stand at."""
        return self.kept_iterations or range(self.iterations + 1)

    @property
    def prompts(self) -> int:
        """How many prompts there are."""
        return len(self.first_tokens) - 1

    def prompt_of(self, token: int) -> int:
        """Return the prompt that a global token number lies in."""
        return bisect_right(self.first_tokens, token) - 1

    def tokens_of(self, prompt: int) -> range:
        """Return the global token numbers of a prompt."""
        return range(self.first_tokens[prompt], self.first_tokens[prompt + 1])


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """One valid view of a run.

    Parameters
    ----------
    prompt, token, restart : int
        Prompt, global token number (it lies in that prompt) and restart.
    layer : int or None
        Core layer whose states are shown; None for the loop state.
    attention_layer : int
        Core layer whose attention is shown.
    head : int or None
        Attention head; None for the mean over heads.
    iteration : int
        Where the scrubber stands: 0 to T, or one of those that were kept.
    colour : {"regime", "settling"}
        What colours the token strip.
    dims : {2, 3}
        Dimensions of the trajectory.
    theme : {"light", "dark"}
        Colours of the page.
    figure : str
        What the panel that shows one figure at a time shows.
    """

    prompt: int
    token: int
    restart: int
    layer: int | None
    attention_layer: int
    head: int | None
    iteration: int
    colour: str
    dims: int
    theme: str
    figure: str = ""

    def values(self) -> dict[str, str]:
        """Return the selection as texts, the way that the address and the controls hold it."""
        texts = {field.name: str(getattr(self, field.name)) for field in fields(self)}
        texts["layer"] = LOOP_STATE if self.layer is None else texts["layer"]
        texts["head"] = MEAN_HEAD if self.head is None else texts["head"]
        return texts

    def query(self) -> str:
        """Return the query string of the address that restores this selection."""
        return "?" + urlencode(self.values())


KEYS: tuple[str, ...] = tuple(field.name for field in fields(Selection))
"""Names in the address, in the order in which they are written."""


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
        number = _whole_number(text)
        if number is not None and number in allowed:
            return number
        if len(allowed) > 1:
            held = f"{where} has {name.replace('_', ' ')} {listed(allowed)}"
        elif len(allowed) == 1:
            held = f"{where} has only {name.replace('_', ' ')} {allowed[0]}"
        else:
            held = f"{where} has none"
        self._replace(name, text, held, str(fallback))
        return fallback

    def number_or_name(self, name: str, special: str, allowed: Sequence[int]) -> int | None:
        """Return a number, or None for the one name that stands beside the numbers."""
        text = self.values.get(name)
        if text is None or text == special:
            return None
        number = _whole_number(text)
        if number is not None and number in allowed:
            return number
        numbers = f" or {listed(allowed)}" if len(allowed) else ""
        self._replace(name, text, f"expected {special}{numbers}", special)
        return None

    def choice(self, name: str, allowed: tuple[str, ...]) -> str:
        """Return one of some names; the first is the fallback."""
        text = self.values.get(name)
        found = allowed[0] if text is None else str(text).strip()
        if found in allowed:
            return found
        self._replace(name, text, f"expected {' or '.join(allowed)}", allowed[0])
        return allowed[0]

    def _replace(self, name: str, text: Any, expected: str, fallback: str) -> None:
        self.notes.append(f"{name}={_quote(text)} cannot be shown: {expected}. Showing {fallback}.")


def read(values: Mapping[str, Any], limits: Limits) -> tuple[Selection, list[str]]:
    """Turn named texts into a selection that the run can show.

    Parameters
    ----------
    values : mapping of str to str
        Any of :data:`KEYS`; what is missing gets its default. A token alone decides the prompt.
    limits : Limits
        The sizes of the run.

    Returns
    -------
    selection : Selection
        Always valid.
    notes : list of str
        One sentence for each value that was replaced or ignored.
    """
    reader = _Reader(values)
    every_token = range(limits.first_tokens[-1])
    wanted = _whole_number(values.get("token"))
    implied = limits.prompt_of(wanted) if wanted is not None and wanted in every_token else 0
    prompt = reader.number("prompt", range(limits.prompts), implied)
    inside = limits.tokens_of(prompt)
    attended = limits.attention_layers or (0,)
    selection = Selection(
        prompt=prompt,
        # The last token has read the whole prompt, so it is the one with most to show.
        token=reader.number("token", inside, inside[-1], f"prompt {prompt}"),
        restart=reader.number("restart", range(limits.restarts), 0),
        layer=reader.number_or_name("layer", LOOP_STATE, limits.state_layers),
        attention_layer=reader.number("attention_layer", attended, attended[0]),
        head=reader.number_or_name("head", MEAN_HEAD, range(limits.heads)),
        iteration=reader.number("iteration", limits.selectable, limits.selectable[-1]),
        colour=reader.choice("colour", COLOURS),
        dims=int(reader.choice("dims", ("2", "3"))),
        theme=reader.choice("theme", THEMES),
        figure=reader.choice("figure", limits.figures),
    )
    for name in values:
        if name not in KEYS:
            reader.notes.append(f"{_quote(name)} is not a part of the view and was ignored.")
    return selection, reader.notes


def parse(query: str | None, limits: Limits) -> tuple[Selection, list[str]]:
    """Read a selection from the query string of an address; see :func:`read`.

    Parameters
    ----------
    query : str or None
        With or without the leading ``?``. One longer than 1000 characters is ignored.
    limits : Limits
        The sizes of the run.
    """
    text = (query or "").removeprefix("?")
    if len(text) > _LONGEST_QUERY:
        selection, _ = read({}, limits)
        return selection, [
            f"The address has {len(text)} characters after the '?', more than any view of a run "
            f"needs ({_LONGEST_QUERY}). It was ignored."
        ]
    return read(dict(parse_qsl(text, keep_blank_values=True)), limits)


def change(
    current: Mapping[str, Any], changes: Mapping[str, Any], limits: Limits
) -> tuple[Selection, list[str]]:
    """Return a selection with some values replaced.

    Choosing another prompt also chooses its last token; choosing a token chooses its prompt.

    Parameters
    ----------
    current : mapping of str to str
        The selection so far, from the browser; checked like everything from there.
    changes : mapping of str to str
        What the user chose.
    limits : Limits
        The sizes of the run.
    """
    merged = {**current, **changes}
    if "prompt" in changes and "token" not in changes:
        merged.pop("token", None)
    elif "token" in changes and "prompt" not in changes:
        merged.pop("prompt", None)
    return read(merged, limits)


def listed(numbers: Sequence[int]) -> str:
    """Return ascending numbers for a sentence: ``0 to 7``, or ``4, 8, 12``."""
    if len(numbers) > 1 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]} to {numbers[-1]}"
    if len(numbers) > _MOST_LISTED:
        return f"{', '.join(map(str, numbers[:_MOST_LISTED]))}, …, {numbers[-1]}"
    return ", ".join(map(str, numbers))


def _whole_number(text: Any) -> int | None:
    """Return a non-negative whole number of at most nine digits, or None."""
    digits = str(text).strip()
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 9 else None


def _quote(text: Any) -> str:
    """Return a text from outside in quotation marks, shortened."""
    shown = str(text)
    return repr(shown if len(shown) <= _LONGEST_QUOTE else shown[:_LONGEST_QUOTE] + "…")
