"""Check what a caller asks a figure to show, and say what there is when it is not there.

The functions here compare indices with the sizes of a run. They read no arrays.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

from looplens.errors import AnalysisError, InputError


def index(name: str, value: Any, size: int) -> int:
    """Return ``value`` as an index into ``size`` things.

    Parameters
    ----------
    name : str
        What is counted, for the message: ``"restart"``.
    value : int
        What was asked for; must lie between 0 and ``size - 1``.
    size : int
        How many there are.

    Raises
    ------
    InputError
        If the value is not a whole number in that range.
    """
    try:
        chosen = operator.index(value)
    except TypeError:
        raise InputError(f"{name} must be a whole number, got {value!r}.") from None
    if not 0 <= chosen < size:
        held = f"0 to {size - 1}" if size > 1 else "only 0" if size else "none"
        raise InputError(f"{name} {chosen} is not in this run, which holds {name} {held}.")
    return chosen


def prompt(run: Any, value: Any) -> int:
    """Return a prompt number of the run; see :func:`index`."""
    return index("prompt", value, run.n_prompts)


def restart(run: Any, value: Any) -> int:
    """Return a restart number of the run; see :func:`index`."""
    return index("restart", value, run.restarts)


def token(run: Any, value: Any) -> int:
    """Return a global token number of the run; see :func:`index`."""
    return index("token", value, run.n_tokens)


def tokens(run: Any, values: int | Iterable[int]) -> list[int]:
    """Return one or several global token numbers, in the order given, as a list.

    Raises
    ------
    InputError
        If there are none, or one is out of range.
    """
    several = list(values) if isinstance(values, Iterable) else [values]
    if not several:
        raise InputError("tokens is empty: name at least one global token number.")
    return [token(run, value) for value in several]


def window(span: slice, token: int | None, most: int) -> tuple[slice, str]:
    """Return the tokens of a prompt that a figure with a row a token has room for, and a note.

    Parameters
    ----------
    span : slice
        Global numbers of all tokens of the prompt.
    token : int or None
        One that has to be among them; the first ones without.
    most : int
        How many there is room for.

    Returns
    -------
    shown : slice
        All, or `most` of them around `token`.
    note : str
        Says so for the subtitle; empty where all are shown.

    Raises
    ------
    InputError
        If the token is not of the prompt.
    """
    if token is not None and not span.start <= token < span.stop:
        raise InputError(
            f"token {token} is not in the prompt, which has the tokens {span.start} to "
            f"{span.stop - 1}."
        )
    count = span.stop - span.start
    if count <= most:
        return span, ""
    first = 0 if token is None else min(max(0, token - span.start - most // 2), count - most)
    start = span.start + first
    return slice(start, start + most), f"positions {first} to {first + most - 1} of {count}"


def layer(run: Any, value: Any) -> int | None:
    """Return a core layer of the run, or None for the loop state.

    Raises
    ------
    InputError
        If the layer does not exist.
    AnalysisError
        If the run does not hold the states after each layer (``resid_post``).
    """
    if value is None:
        return None
    if "resid_post" not in run.site_names:
        raise AnalysisError(
            "A layer was asked for, but this run holds no states after each layer. "
            "Record it with sites=('resid_post',), or leave layer out to see the loop state."
        )
    return kept_layer(run, value)


def kept_layer(run: Any, value: Any) -> int:
    """Return the number of a core layer that the run holds, whatever was recorded of it.

    Raises
    ------
    InputError
        If the model has no such layer, or it was not kept.
    """
    chosen = index("layer", value, run.n_layers)
    if chosen not in run.recorded_layers:
        raise InputError(
            f"layer {chosen} was not kept in this run, which holds {listed(run.recorded_layers)} "
            f"of {run.n_layers} layers. Record with layers= to choose others."
        )
    return chosen


def listed(numbers: Iterable[int], *, most: int = 12) -> str:
    """Return numbers for a message: ``0 to 7``, or ``4, 8, 12``; the middle of many is left out."""
    found = list(numbers)
    if len(found) > 2 and found == list(range(found[0], found[-1] + 1)):
        return f"{found[0]} to {found[-1]}"
    if len(found) > most:
        return f"{', '.join(map(str, found[: most - 1]))}, …, {found[-1]}"
    return ", ".join(map(str, found))


def iteration(run: Any, value: Any) -> int:
    """Return an iteration of the run, counted 1..T.

    Raises
    ------
    InputError
        If it is not between 1 and T, or was not kept.
    """
    try:
        chosen = operator.index(value)
    except TypeError:
        raise InputError(f"iteration must be a whole number, got {value!r}.") from None
    if not 1 <= chosen <= run.iterations:
        raise InputError(f"iteration must lie between 1 and {run.iterations}, got {chosen}.")
    if chosen not in run.kept_iterations:
        raise InputError(
            f"iteration {chosen} was not kept in this run, which holds iterations "
            f"{listed(run.kept_iterations)}. Record with keep_iterations= to choose others."
        )
    return chosen
