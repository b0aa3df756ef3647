"""Finding tokens by what is known of them: a small language of filters.

A filter is one condition or several joined by ``and``::

    regime=orbit
    settling_iteration>20 and entropy>=1.5
    text=the and reason~driven

A condition is a name of :func:`looplens.analysis.token_statistics`, a sign and a value. The signs
are ``=`` and ``!=``; for numbers also ``<``, ``<=``, ``>``, ``>=``; for words also ``~``, contains.
``none`` as the value means not known: ``settling_iteration=none`` finds what never settles. A
regime alone, such as ``orbit``, stands for ``regime=orbit``. Case and the blanks around a word do
not count. A value in double quotes may hold anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from looplens.analysis.per_token.catalogue import token_statistics
from looplens.analysis.per_token.values import Column, column, named
from looplens.analysis.regimes.classifying import REGIMES
from looplens.errors import InputError, near_matches

if TYPE_CHECKING:
    from looplens.store import StoredRun

LONGEST = 500
"""Characters of a filter."""

_NONE = "none"
_SIGNS = ("<=", ">=", "!=", "=", "<", ">", "~")
_CONDITION = re.compile(r"^(?P<name>[^<>=!~\"]+?)\s*(?P<sign><=|>=|!=|==?|<|>|~)\s*(?P<value>.*)$")
_AND = re.compile(r'\s+and\s+(?=(?:[^"]*"[^"]*")*[^"]*$)', re.IGNORECASE)
_MOST_WORDS_LISTED = 24

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """One condition of a filter: a name, one of the signs, and a value as it was written."""

    name: str
    sign: str
    value: str


def matches(
    run: StoredRun, query: str, *, restart: int = 0, layer: int | None = None
) -> NDArray[np.int64]:
    """Find the tokens of a run that a filter holds for.

    Parameters
    ----------
    run : StoredRun
        The run.
    query : str
        The filter, such as ``"regime=orbit and period>3"``; see :func:`conditions`.
    restart : int
        Which restart, for what restarts have of their own.
    layer : int, optional
        After which core layer, for what layers have of their own; the loop state by default.

    Returns
    -------
    ndarray of int64
        Global token numbers, ascending. What is not known of a token meets no condition but
        ``=none``.

    Raises
    ------
    InputError
        If the filter cannot be read, or asks for what the run does not know of its tokens.
    """
    chosen, known_of_run = np.ones(run.n_tokens, dtype=bool), token_statistics(run)
    for condition in conditions(query):
        found = named(known_of_run, condition.name)
        known = column(run, found, restart=restart, layer=layer)
        judge = _words if found.kind == "word" else _numbers
        chosen &= judge(condition, known, found.words)
    return np.flatnonzero(chosen)


def next_match(found: NDArray[np.int64], token: int, *, back: bool = False) -> int | None:
    """Return the match after a token, or before it; from the other end where there is none.

    Parameters
    ----------
    found : ndarray of int
        As `matches` returns them.
    token : int
        Global token number; it need not be a match.
    back : bool
        Whether the one before is wanted.

    Returns
    -------
    int or None
        None where nothing matches.
    """
    if not len(found):
        return None
    if back:
        return int(found[np.searchsorted(found, token, side="left") - 1])
    return int(found[np.searchsorted(found, token, side="right") % len(found)])


def conditions(query: str) -> list[Condition]:
    """Read a filter: conditions joined by ``and``.

    Parameters
    ----------
    query : str
        At most 500 characters.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    text = str(query).strip()
    if not text:
        raise InputError("The filter is empty. Write a condition, such as regime=orbit.")
    if len(text) > LONGEST:
        raise InputError(f"The filter has {len(text)} characters; at most {LONGEST} are read.")
    return [_condition(part) for part in _AND.split(text)]


def _condition(part: str) -> Condition:
    part = part.strip()
    alone = part.casefold().replace(" ", "_")
    if alone in REGIMES:
        return Condition(name="regime", sign="=", value=alone)
    read = _CONDITION.match(part)
    value = read["value"].strip() if read else ""
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = value[1:-1]
    elif not value:
        read = None
    if read is None:
        raise InputError(
            f"The condition {part!r} cannot be read: expected a name, a sign ({' '.join(_SIGNS)}) "
            f"and a value, such as regime=orbit or entropy>=1.5.{near_matches(alone, REGIMES)}"
        )
    return Condition(name=read["name"].strip(), sign=read["sign"].replace("==", "="), value=value)


def _numbers(condition: Condition, known: Column, _: tuple[str, ...]) -> NDArray[np.bool_]:
    values = known.values
    if condition.value.casefold() == _NONE and condition.sign in ("=", "!="):
        return np.isnan(values) if condition.sign == "=" else ~np.isnan(values)
    if condition.sign == "~":
        raise InputError(
            f"{condition.name!r} is a number, which contains nothing: use =, !=, <, <=, > or >= "
            f"and not ~."
        )
    try:
        number = float(condition.value)
    except ValueError:
        raise InputError(
            f"{condition.name!r} is a number; got {condition.value!r} to compare with. Write a "
            f"number, such as {condition.name}{condition.sign}2.5, or {condition.name}=none."
        ) from None
    with np.errstate(over="ignore"):  # larger than any that is stored
        rounded = values.dtype.type(number) if values.dtype.kind == "f" else number
    # What is not known compares as unequal, which must not count as known to be another.
    return _COMPARE[condition.sign](values, rounded) & ~np.isnan(values)


def _words(condition: Condition, known: Column, possible: tuple[str, ...]) -> NDArray[np.bool_]:
    if condition.sign not in ("=", "!=", "~"):
        raise InputError(
            f"{condition.name!r} is a word, which is not more or less than another: use =, != or "
            f"~ (contains) and not {condition.sign}."
        )
    words = known.words or ()
    wanted = _plain(condition.value)
    if wanted == _NONE and condition.sign != "~" and _NONE not in map(_plain, words):
        holds = known.values < 0
        return holds if condition.sign == "=" else ~holds
    if condition.sign == "~":
        chosen = [code for code, word in enumerate(words) if wanted in _plain(word)]
        return np.isin(known.values, chosen)
    chosen = [code for code, word in enumerate(words) if _plain(word) == wanted]
    if possible and wanted not in map(_plain, possible):
        listed = ", ".join(possible[:_MOST_WORDS_LISTED])
        raise InputError(
            f"No token can have {condition.name} {condition.value!r}; there are: {listed}."
            f"{near_matches(condition.value, possible)}"
        )
    holds = np.isin(known.values, chosen)
    return holds if condition.sign == "=" else ~holds & (known.values >= 0)


def _plain(word: str) -> str:
    """Return a word as it is compared: without case and the blanks around it."""
    return word.strip().casefold()
