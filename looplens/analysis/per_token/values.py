"""The values of what is known of single tokens: of a few, or of all of a run.

What is asked of all tokens is kept in a compact form while the run is open, since filters and
scales of colour ask for it again and again. A few tokens are read as they are.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from looplens.analysis.per_token.catalogue import token_statistics
from looplens.analysis.per_token.known import PROMPTS, RECORDING, TOKENS, TokenStatistic
from looplens.analysis.per_token.reading import Tokens, read
from looplens.errors import InputError, near_matches

if TYPE_CHECKING:
    from looplens.store import StoredRun

MOST_BYTES = 64_000_000
"""Bytes of whole columns that are kept of one run; those that were asked for longest ago go."""

ALL = slice(None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One statistic of all tokens of a run.

    Attributes
    ----------
    values : ndarray, shape (token,)
        Numbers, NaN where not known; of words the place in `words`, -1 where there is none.
    words : tuple of str, optional
        The distinct words.
    """

    values: NDArray[Any]
    words: tuple[str, ...] | None = None


_COLUMNS: weakref.WeakKeyDictionary[Any, dict[Any, Column]] = weakref.WeakKeyDictionary()
_LOCK = threading.Lock()


def named(known: Mapping[str, TokenStatistic], name: str) -> TokenStatistic:
    """Return one of `token_statistics`, or raise InputError that lists what there is."""
    if name not in known:
        short = [known_name for known_name in known if "." not in known_name]
        raise InputError(
            f"This run knows no {name!r} of its tokens; it knows: {', '.join(short)}."
            f"{near_matches(name, known)}"
        )
    return known[name]


def token_values(
    run: StoredRun,
    names: str | Iterable[str],
    tokens: int | slice | Iterable[int] | None = None,
    *,
    restart: int = 0,
    layer: int | None = None,
) -> xr.Dataset:
    """Return what a run knows of some of its tokens.

    Parameters
    ----------
    run : StoredRun
        The run.
    names : str or iterable of str
        Which of `token_statistics`.
    tokens : int, slice or iterable of int, optional
        Global token numbers; all by default.
    restart : int
        Which restart, for what restarts have of their own.
    layer : int, optional
        After which core layer, for what layers have of their own; the loop state by default.

    Returns
    -------
    Dataset
        A variable (token) for each name, numbers or words, with the coordinate ``token`` and the
        attributes ``title``, ``kind``, ``long_name`` and ``units``. NaN, and an empty word, where
        it is not known.

    Raises
    ------
    InputError
        If the run knows nothing of that name, or has no such token, restart or layer.
    AnalysisError
        If the run does not hold the data for it.
    """
    place = _place(run, tokens)
    _check(run, restart, layer)
    data, known = {}, token_statistics(run)
    for name in [names] if isinstance(names, str) else names:
        found = named(known, name)
        about = {"title": found.title, "kind": found.kind, "long_name": found.meaning}
        values = read(run, found, place, restart, layer)
        data[name] = xr.Variable(("token",), values, {**about, "units": found.units})
    return xr.Dataset(data, coords={"token": np.arange(run.n_tokens)[place]})


def value_range(
    run: StoredRun, name: str, *, restart: int = 0, layer: int | None = None
) -> tuple[float, float] | None:
    """Return the least and the largest value of a number over all tokens; None where none is known.

    Iterations go from 1 to T, whatever their values.
    """
    found = named(token_statistics(run), name)
    if found.kind == "word":
        raise InputError(f"{name!r} is a word and has no range; its values are words.")
    if found.units == "iteration":
        return 1.0, float(run.iterations)
    values = column(run, found, restart=restart, layer=layer).values
    known = values[np.isfinite(values)]
    return (float(known.min()), float(known.max())) if known.size else None


def word_counts(
    run: StoredRun, name: str, *, restart: int = 0, layer: int | None = None
) -> dict[str, int]:
    """Return how many tokens of a run have each word of a statistic.

    Words that the statistic can have but no token has are left out; the others come in its order,
    or in the order of the tokens.
    """
    found = named(token_statistics(run), name)
    if found.kind == "number":
        raise InputError(f"{name!r} is a number: its range is analysis.value_range(run, {name!r}).")
    whole = column(run, found, restart=restart, layer=layer)
    words = whole.words or ()
    counts = np.bincount(whole.values[whole.values >= 0], minlength=len(words))
    return {word: int(count) for word, count in zip(words, counts, strict=True) if count}


def column(
    run: StoredRun, found: TokenStatistic, *, restart: int = 0, layer: int | None = None
) -> Column:
    """Return one statistic of all tokens; see `token_values` for what it raises."""
    _check(run, restart, layer)
    layer = layer if found.layer_variable else None
    key = (found.name, restart if found.by_restart else 0, layer, _stamp(run, found))
    with _LOCK:
        kept = _COLUMNS.setdefault(run, {})
        if key in kept:
            kept[key] = kept.pop(key)  # the last one is the one that was asked for last
            return kept[key]
    made = _compact(read(run, found, ALL, restart, layer), found)
    with _LOCK:
        kept[key] = made
        while len(kept) > 1 and sum(each.values.nbytes for each in kept.values()) > MOST_BYTES:
            kept.pop(next(iter(kept)))
    return made


def _stamp(run: StoredRun, found: TokenStatistic) -> str:
    """Tell one stored result from the next; columns and readouts of an open run stay."""
    result = None if found.source in (RECORDING, TOKENS, PROMPTS) else run.analysis(found.source)
    return (
        ""
        if result is None
        else "".join(str(result.attrs.get(key, "")) for key in ("created", "parameters"))
    )


def _compact(values: NDArray[Any], found: TokenStatistic) -> Column:
    if found.kind == "number":
        return Column(values=values.astype(np.float32) if values.dtype.kind == "f" else values)
    code_of: dict[str, int] = {word: code for code, word in enumerate(found.words)}
    code_of[""] = -1
    codes = np.empty(values.shape, dtype=np.int32)
    for place, word in enumerate(values.tolist()):
        code = code_of.get(word)
        if code is None:
            code = code_of[word] = len(code_of) - 1
        codes[place] = code
    del code_of[""]
    small = np.int8 if len(code_of) < 127 else np.int32
    return Column(values=codes.astype(small), words=tuple(code_of))


def _place(run: StoredRun, tokens: int | slice | Iterable[int] | None) -> Tokens:
    if tokens is None:
        return ALL
    if isinstance(tokens, slice):
        return tokens
    several = [tokens] if isinstance(tokens, (int, np.integer)) else list(tokens)
    numbers = np.asarray(several, dtype=np.int64)
    if numbers.size and not (numbers.min() >= 0 and numbers.max() < run.n_tokens):
        raise InputError(
            f"tokens must lie between 0 and {run.n_tokens - 1}; got {numbers.min()} to "
            f"{numbers.max()}."
        )
    return numbers


def _check(run: StoredRun, restart: int, layer: int | None) -> None:
    if not 0 <= restart < run.restarts:
        raise InputError(f"There is no restart {restart}: this run has {run.restarts}, from 0 on.")
    if layer is not None:
        run.layers_index(layer)
