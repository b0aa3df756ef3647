"""Conditions on the numbers of a run, such as ``path_independence.aa_score < 0.95``.

A condition names a value of the summary, an operator and what to compare with. It describes a
*failure*: a run fails when the condition is true. A value that is not there, or that no analysis
could determine, is an error and never a pass. This module does not know where the summary comes
from.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from looplens.errors import InputError, near_matches

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
_MOST_NAMES = 40
_PATTERN = re.compile(
    r"^\s*(?P<key>[A-Za-z_][\w.\-]*)\s*(?P<sign><=|>=|==|!=|<|>)\s*(?P<value>\S.*?)\s*$"
)

Summary = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """One condition.

    Attributes
    ----------
    key : str
        ``analysis.name``, or the name alone where only one analysis reports it.
    sign : str
        One of ``< <= > >= == !=``.
    value : float, bool or str
        What to compare with.
    """

    key: str
    sign: str
    value: float | bool | str

    def __str__(self) -> str:
        shown = self.value if isinstance(self.value, str) else f"{self.value:g}"
        return f"{self.key} {self.sign} {shown}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A condition that turned out true, and the value that made it so."""

    condition: Condition
    key: str
    actual: float | bool | str

    def __str__(self) -> str:
        shown = self.actual if isinstance(self.actual, str) else f"{self.actual:.6g}"
        return f"{self.condition} (it is {shown})"


def parse_condition(text: str) -> Condition:
    """Read a condition.

    Parameters
    ----------
    text : str
        Such as ``"classify.orbit_share > 0.1"`` or ``"classify.mode == 'fixed_point'"``.

    Returns
    -------
    Condition
        The parsed condition.

    Raises
    ------
    InputError
        If the text is not a key, an operator and a value.

    Examples
    --------
    >>> parse_condition("path_independence.aa_score < 0.95").sign
    '<'
    """
    match = _PATTERN.match(text)
    if match is None or match["value"][0] in "<>=!":
        raise InputError(
            f"{text!r} is not a condition. Expected a key, one of {' '.join(_OPERATORS)}, and a "
            "value, such as 'path_independence.aa_score < 0.95'."
        )
    value = _value(match["value"])
    if isinstance(value, float) and math.isnan(value):
        raise InputError(f"{text!r} compares with NaN, which no number is equal to or less than.")
    if isinstance(value, str | bool) and match["sign"] not in ("==", "!="):
        raise InputError(
            f"{text!r} orders by {match['sign']}, which needs a number on the right, got "
            f"{match['value']!r}. Text can only be compared with == and !=."
        )
    return Condition(key=match["key"], sign=match["sign"], value=value)


def _value(text: str) -> float | bool | str:
    if text[0] in "'\"":
        try:
            literal = ast.literal_eval(text)
        except (SyntaxError, ValueError):
            literal = None
        if not isinstance(literal, str):
            raise InputError(f"The quotes in {text!r} do not match.")
        return literal
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return float(text)
    except ValueError:
        return text


def flatten(summary: Summary) -> dict[str, Any]:
    """Return a nested summary as ``{"analysis.name": value}``."""
    flat: dict[str, Any] = {}
    for section, values in summary.items():
        for name, value in values.items():
            if isinstance(value, Mapping):
                flat.update(flatten({f"{section}.{name}": value}))
            else:
                flat[f"{section}.{name}"] = value
    return flat


def _find(key: str, flat: Mapping[str, Any], skipped: Mapping[str, str]) -> str:
    """Resolve a key: in full, or by its last part where that is unique."""
    if key in flat:
        return key
    ending = [name for name in flat if name.endswith(f".{key}")]
    # Of an analysis rather than of a table in it.
    ending = [name for name in ending if name.count(".") == min(n.count(".") for n in ending)]
    if len(ending) == 1:
        return ending[0]
    if ending:
        raise InputError(
            f"{key!r} is the name of several values: {', '.join(sorted(ending)[:_MOST_NAMES])}"
            f"{', …' if len(ending) > _MOST_NAMES else ''}. Write one in full."
        )
    listed = _listed(key, flat)
    short = [name.rpartition(".")[2] for name in flat]
    suggestion = near_matches(key, flat) or near_matches(key, dict.fromkeys(short))
    section = key.partition(".")[0]
    if section in skipped:
        raise InputError(f"{key!r} cannot be checked on this run. {skipped[section]}")
    left_out = "".join(
        f" {name} cannot be checked on it. {why}"
        for name, why in skipped.items()
        if "." not in name  # a variable of a comparison; there are many
    )
    raise InputError(
        f"There is no value {key!r} in this run.{suggestion} Available: {listed}.{left_out}"
    )


def _listed(key: str, flat: Mapping[str, Any]) -> str:
    """Return the names to choose from: all, those beside the key, or where they begin."""
    near = [name for name in flat if name.startswith(f"{key.rpartition('.')[0]}.")]
    for names in (list(flat), near):
        if 0 < len(names) <= _MOST_NAMES:
            return ", ".join(sorted(names))
    parts = dict.fromkeys(name.partition(".")[0] for name in flat)
    listed = ", ".join(f"{part}. …" for part in parts) or "none"
    return f"{listed} (a report in JSON lists all {len(flat)})" if flat else listed


def check(
    conditions: Iterable[str | Condition],
    summary: Summary,
    skipped: Mapping[str, str] | None = None,
) -> list[Failure]:
    """Evaluate conditions on a summary.

    Parameters
    ----------
    conditions : iterable of str or Condition
        Each describes a failure.
    summary : mapping
        ``{analysis: {name: value}}``, as :func:`looplens.analysis.summary` returns it.
    skipped : mapping of str to str, optional
        Analyses that were not possible, with the reason, for the message.

    Returns
    -------
    list of Failure
        The conditions that are true, in the order given. Empty when the run passes.

    Raises
    ------
    InputError
        If a condition cannot be read, names a value that does not exist or that is missing (NaN),
        or compares text with a number.
    """
    flat = flatten(summary)
    failures = []
    for item in conditions:
        condition = parse_condition(item) if isinstance(item, str) else item
        key = _find(condition.key, flat, skipped or {})
        actual = flat[key]
        if hasattr(actual, "item"):
            actual = actual.item()
        if actual is None or (isinstance(actual, float) and math.isnan(actual)):
            raise InputError(
                f"{condition} cannot be checked: {key} has no value in this run (it is missing or "
                "could not be determined), and that is not a pass."
            )
        if isinstance(actual, str) != isinstance(condition.value, str):
            raise InputError(
                f"{condition} cannot be checked: {key} is {actual!r}, "
                f"which cannot be compared with {condition.value!r}."
            )
        if _OPERATORS[condition.sign](actual, condition.value):
            failures.append(Failure(condition=condition, key=key, actual=actual))
    return failures
