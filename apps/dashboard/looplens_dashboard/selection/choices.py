"""What a panel lets one choose beside the shared selection: the basis of a plot, what colours it.

A choice has a name (its part of the address), what it can be in a run, and the control that shows
it. Its value is a text everywhere; :meth:`Choice.read` checks one from outside.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from looplens.errors import near_matches

Options = tuple[tuple[str, str], ...]
"""What can be chosen: (value, words) pairs; the first is the default."""

_LONGEST_QUOTE = 24
_MOST_LISTED = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """One value of the view that a panel needs and others do not.

    Parameters
    ----------
    name : str
        In the address; letters, digits and underscores. Panels may share a choice of one name.
    label : str
        Read out for the control, and its tooltip.
    options : tuple of (value, words), or callable (View) -> such a tuple
        What can be chosen; the first is the default. Empty for a free text or a number.
    control : {"select", "segmented", "several", "number", "text", "none"}
        Control beside the heading of the panel; "several" is a list of which many can be chosen
        (its value joins them with commas); "none" for what is chosen otherwise.
    low, high : int
        Bounds of a number.
    default : str
        Of a number, a text or several.
    longest : int
        Characters of a text.
    width : int
        Of the control, in pixels.
    """

    name: str
    label: str
    options: Options | Callable[[Any], Options] = ()
    control: Literal["select", "segmented", "several", "number", "text", "none"] = "select"
    low: int = 0
    high: int = 10**6
    default: str = ""
    longest: int = 200
    width: int = 140

    def options_of(self, view: Any) -> Options:
        """Return what can be chosen in a run."""
        return tuple(self.options(view)) if callable(self.options) else self.options

    def fallback(self, options: Options) -> str:
        """Return the value that holds until another one is chosen."""
        if self.control in ("number", "text", "several") or not options:
            return self.default
        known = [value for value, _ in options]
        return self.default if self.default in known else known[0]

    def read(self, text: Any, options: Options) -> tuple[str, str | None]:
        """Check a text from outside.

        Returns
        -------
        value : str
            One that can be shown.
        note : str or None
            What was wrong with the text, as a sentence without its end.
        """
        fallback = self.fallback(options)
        if text is None:
            return fallback, None
        said = str(text).strip()
        if self.control == "number":
            if re.fullmatch(r"-?[0-9]{1,9}", said) and self.low <= int(said) <= self.high:
                return str(int(said)), None
            return fallback, f"expected a whole number from {self.low} to {self.high}"
        if self.control == "text" or (self.control == "none" and not options):
            if len(said) <= self.longest and said.isprintable():
                return said, None
            return fallback, f"expected at most {self.longest} printable characters"
        known = [value for value, _ in options]
        if self.control == "several":
            asked = [part for part in said.split(",") if part]
            wrong = [part for part in asked if part not in known]
            kept = ",".join(dict.fromkeys(part for part in asked if part in known))
            return kept, f"expected some of {listed(known)}" if wrong else None
        if said in known:
            return said, None
        if not known:
            return fallback, "there is nothing to choose from in this run"
        return fallback, f"expected {listed(known, last='or')}{near_matches(said, known)}"


def listed(values: Sequence[Any], *, last: str = "and") -> str:
    """Return values for a sentence: ``a, b and c``, with the middle of many left out."""
    texts = [str(value) for value in values]
    if len(texts) > _MOST_LISTED:
        return f"{', '.join(texts[:_MOST_LISTED])}, … {texts[-1]}"
    return f" {last} ".join(filter(None, (", ".join(texts[:-1]), texts[-1] if texts else "")))


def quoted(text: Any) -> str:
    """Return a text from outside in quotation marks, shortened."""
    shown = str(text)
    return repr(shown if len(shown) <= _LONGEST_QUOTE else shown[:_LONGEST_QUOTE] + "…")
