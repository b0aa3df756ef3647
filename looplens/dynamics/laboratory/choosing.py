"""Which tokens of a run are looked at, where the caller does not say or says it by a word.

Everything that moves is worth a look; of what settles, a sample shows what it has in common.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from looplens.analysis import get
from looplens.errors import AnalysisError, InputError, near_matches
from looplens.models.inputs import whole_number
from looplens.store import StoredRun

SETTLED = "fixed_point"
MOVING = ("orbit", "slider", "unresolved")
UNKNOWN = "not classified"
WORDS = ("moving", "settled", "all", *MOVING)

_Tokens = Mapping[str, list[int]]  # by regime
_LEAST_SETTLED = 4  # one in so many is a token that settles, to compare with


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Tokens of a run, and how they were chosen.

    Attributes
    ----------
    tokens : tuple of int
        Their numbers in the run, ascending.
    regimes : tuple of str
        The regime of each, by the recording.
    first : frozenset of int
        Tokens of which no earlier one of the prompt moves: what moves the others is among them.
    numbered : bool
        Whether they were given by their numbers.
    sentence : str
        What was chosen of what, and why.
    """

    tokens: tuple[int, ...]
    regimes: tuple[str, ...]
    first: frozenset[int]
    numbered: bool
    sentence: str

    def few(self, most: int | None) -> list[int]:
        """Return at most so many of the tokens, every regime having its share; None means all.

        Tokens that were given by their numbers are all meant.
        """
        if most is None or self.numbered or most >= len(self.tokens):
            return list(self.tokens)
        kinds = {
            kind: [t for t, r in zip(self.tokens, self.regimes, strict=True) if r == kind]
            for kind in (*MOVING, SETTLED, UNKNOWN)
        }
        return sorted(
            token for taken in _shared(kinds, most, self.first).values() for token in taken
        )


def choose(
    run: StoredRun,
    tokens: str | int | Sequence[int] | None = None,
    *,
    prompts: int | Sequence[int] | None = None,
    restart: int = 0,
    max_tokens: int = 64,
) -> Choice:
    """Choose tokens of a run.

    Parameters
    ----------
    run : StoredRun
        The run.
    tokens : str, int or sequence of int, optional
        Numbers of tokens in the run, which are all taken; or a word: ``moving`` (orbit, slider and
        unresolved, or one of these), ``settled``, ``all``. By default all that move and, with what
        is left of `max_tokens`, tokens that settle. Where there are too many they are evenly
        spaced, after the first one of every prompt that moves: it may be what moves the others.
    prompts : int or sequence of int, optional
        Only tokens of these.
    restart : int
        Whose regimes count.
    max_tokens : int
        Most tokens, unless they were given by their numbers. A quarter is kept for tokens that
        settle; regimes that move share the rest.

    Raises
    ------
    InputError
        If a token or prompt is not in the run, or a word is unknown.
    AnalysisError
        If no token is left.
    """
    most = whole_number(max_tokens, "max_tokens", least=1)
    if not 0 <= restart < run.restarts:
        raise InputError(
            f"restart={restart}, but this run has the restarts 0 to {run.restarts - 1}."
        )
    allowed = _of_prompts(run, prompts)
    regimes = _regimes(run, restart)
    first = _first_moving(run, regimes)
    if tokens is not None and not isinstance(tokens, str):
        wanted = _numbers(run, tokens)
        outside = [token for token in wanted if not allowed[token]]
        if outside:
            raise InputError(
                f"The tokens {listed(outside)} are not of the chosen prompts. Tokens are counted "
                "over the whole run; leave prompt out, or name tokens of it."
            )
        sentence = f"{len(wanted)} of {run.n_tokens} tokens, by their numbers"
        return _choice(wanted, regimes, first, sentence, numbered=True)
    kinds = _kinds(tokens)
    there = {kind: np.flatnonzero(allowed & (regimes == kind)).tolist() for kind in kinds}
    there = {kind: found for kind, found in there.items() if found}
    if not there:
        seen = ", ".join(sorted(set(regimes[allowed].tolist()))) or "none"
        raise AnalysisError(
            f"There are no tokens to choose {'' if tokens is None else repr(tokens) + ' '}from: "
            f"the regimes of restart {restart} are {seen}. Take tokens='all', or name some."
        )
    taken = _within(there, most, first)
    chosen = sorted(token for found in taken.values() for token in found)
    return _choice(chosen, regimes, first, _sentence(run, taken, there))


def _choice(
    tokens: list[int],
    regimes: np.ndarray,
    first: frozenset[int],
    sentence: str,
    *,
    numbered: bool = False,
) -> Choice:
    return Choice(
        tokens=tuple(tokens),
        regimes=tuple(regimes[tokens].tolist()),
        first=first,
        numbered=numbered,
        sentence=sentence,
    )


def _kinds(word: str | None) -> tuple[str, ...]:
    """Return the regimes that a word stands for."""
    if word is None or word == "all":
        return (*MOVING, SETTLED, UNKNOWN)
    if word not in WORDS:
        raise InputError(
            f"tokens={word!r}: expected numbers of tokens, or one of {', '.join(WORDS)}."
            f"{near_matches(word, WORDS)}"
        )
    return {"moving": MOVING, "settled": (SETTLED,)}.get(word, (word,))


def _within(there: _Tokens, most: int, first: frozenset[int]) -> dict[str, list[int]]:
    """Take at most so many: first of those that move, then of those that settle."""
    moving = {kind: found for kind, found in there.items() if kind in MOVING}
    still = {kind: found for kind, found in there.items() if kind not in MOVING}
    kept = min(sum(map(len, still.values())), most // _LEAST_SETTLED) if moving else most
    taken = _shared(moving, most - kept, first)
    return taken | _shared(still, most - sum(map(len, taken.values())), first)


def _shared(kinds: _Tokens, most: int, first: frozenset[int]) -> dict[str, list[int]]:
    """Share places out between kinds as evenly as they allow."""
    taken, left = {}, most
    waiting = sorted((kind for kind in kinds if kinds[kind]), key=lambda kind: len(kinds[kind]))
    for place, kind in enumerate(waiting):
        # What does not divide goes to the last, which are the many.
        share = min(len(kinds[kind]), left // (len(waiting) - place))
        if share:
            begin = _spaced([token for token in kinds[kind] if token in first], share)
            rest = [token for token in kinds[kind] if token not in first]
            taken[kind] = begin + _spaced(rest, share - len(begin))
        left -= share
    return {kind: taken[kind] for kind in kinds if kind in taken}


def _spaced(tokens: list[int], most: int) -> list[int]:
    """Return at most so many tokens, evenly spaced."""
    if most >= len(tokens):
        return tokens
    return [tokens[i] for i in np.linspace(0, len(tokens) - 1, max(most, 0)).round().astype(int)]


def _first_moving(run: StoredRun, regimes: np.ndarray) -> frozenset[int]:
    """Return the first token of every prompt that moves."""
    moving = np.flatnonzero(np.isin(regimes, MOVING))
    _, places = np.unique(run.tokens["prompt"].values[moving], return_index=True)
    return frozenset(moving[places].tolist())


def _sentence(
    run: StoredRun, taken: Mapping[str, list[int]], there: Mapping[str, list[int]]
) -> str:
    """Say what was chosen of what."""
    parts = []
    for kind, found in there.items():
        count, total = len(taken.get(kind, ())), len(found)
        word = "settled" if kind == SETTLED else kind
        parts.append(f"all {total} {word}" if count == total else f"{count} of {total} {word}")
    count = sum(map(len, taken.values()))
    return f"{count} of {run.n_tokens} tokens: {', '.join(parts)}"


def _regimes(run: StoredRun, restart: int) -> np.ndarray:
    """Return the regime of every token; a word for none where the run cannot be classified."""
    try:
        return get(run, "classify")["regime"].isel(restart=restart).values.astype(object)
    except AnalysisError:
        return np.full(run.n_tokens, UNKNOWN, object)


def _of_prompts(run: StoredRun, prompts: int | Sequence[int] | None) -> np.ndarray:
    """Return which tokens are recorded, of the prompts that are asked for."""
    allowed = run.committed_tokens.copy()
    if prompts is None:
        return allowed
    if not np.size(prompts):
        raise InputError("prompts is empty: name some, or leave it out.")
    within = np.zeros(run.n_tokens, bool)
    for prompt in np.atleast_1d(np.asarray(prompts)).tolist():
        within[run.token_range(prompt)] = True
    return allowed & within


def _numbers(run: StoredRun, tokens: int | Sequence[int]) -> list[int]:
    """Return numbers of tokens, ascending, each once."""
    wanted = np.atleast_1d(np.asarray(tokens))
    if not wanted.size or wanted.dtype.kind not in "iu":
        raise InputError(
            f"tokens={tokens!r}: expected numbers of tokens in the run (0 to {run.n_tokens - 1}), "
            f"or one of {', '.join(WORDS)}."
        )
    outside = wanted[(wanted < 0) | (wanted >= run.n_tokens)].tolist()
    if outside:
        raise InputError(
            f"tokens: {listed(outside)} is not in this run, which holds 0 to {run.n_tokens - 1}."
        )
    return sorted(set(wanted.tolist()))


def listed(numbers: Sequence[int], most: int = 8) -> str:
    """Write numbers in a sentence, the first few of many."""
    shown = ", ".join(map(str, numbers[:most]))
    return shown + (f" and {len(numbers) - most} more" if len(numbers) > most else "")
