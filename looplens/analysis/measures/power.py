"""How many tokens it takes to see something rare, and how rare it may be when it was not seen.

The base rates come from the literature and are named where they stand. Tokens count as independent,
which tokens of one prompt are not: what is said here is the best case.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from looplens.errors import InputError

BASE_RATES: tuple[tuple[float, str], ...] = (
    (2e-4, "reported on GSM8K questions without a system prompt"),
    (1.4e-3, "reported there with a long system prompt"),
)
"""Shares of tokens that are not fixed points (Blayney et al., arXiv 2604.11791, appendix C)."""


def tokens_needed(rate: float, confidence: float = 0.95) -> int:
    """Return how many tokens show at least one case with a given probability.

    Parameters
    ----------
    rate : float
        Share of tokens that are cases, between 0 and 1 exclusively.
    confidence : float
        Probability of seeing at least one, between 0 and 1 exclusively.

    Returns
    -------
    int
        Smallest n with ``1 - (1 - rate)**n >= confidence``; tokens count as independent.

    Raises
    ------
    InputError
        If a number is not strictly between 0 and 1.
    """
    _check("rate", rate)
    _check("confidence", confidence)
    return math.ceil(math.log1p(-confidence) / math.log1p(-rate))


def chance_of_seeing(rate: float, tokens: int) -> float:
    """Return the probability of at least one case: ``1 - (1 - rate)**tokens``."""
    _check("rate", rate)
    return -math.expm1(tokens * math.log1p(-rate))


def largest_rate_unseen(tokens: int, confidence: float = 0.95) -> float:
    """Return the largest rate that seeing none of ``tokens`` does not rule out.

    Parameters
    ----------
    tokens : int
        How many were looked at; at least 1.
    confidence : float
        Of the bound.

    Returns
    -------
    float
        ``1 - (1 - confidence)**(1 / tokens)``, about 3 / tokens at 95 %.
    """
    _check("confidence", confidence)
    if tokens < 1:
        raise InputError(f"tokens must be at least 1, got {tokens}.")
    return -math.expm1(math.log1p(-confidence) / tokens)


@dataclass(frozen=True, kw_only=True, slots=True)
class Power:
    """What a number of tokens can show.

    Attributes
    ----------
    tokens, seen : int
        How many were looked at, and how many of them were cases.
    confidence : float
        Of `needed` and `largest_rate`.
    rates : tuple of float
        Base rates.
    needed : tuple of int
        Tokens that show at least one case at each rate with this confidence.
    chance : tuple of float
        Probability of seeing at least one case at each rate among the tokens there are.
    largest_rate : float
        Largest rate that seeing none does not rule out; NaN where a case was seen.
    """

    tokens: int
    seen: int
    confidence: float
    rates: tuple[float, ...]
    needed: tuple[int, ...]
    chance: tuple[float, ...]
    largest_rate: float


def power_of(
    tokens: int,
    seen: int = 0,
    *,
    rates: tuple[float, ...] = (BASE_RATES[0][0], BASE_RATES[1][0]),
    confidence: float = 0.95,
) -> Power:
    """State what a number of tokens can show of rare cases.

    Parameters
    ----------
    tokens, seen : int
        How many were looked at, at least 1, and how many of them were cases.
    rates : tuple of float
        Base rates, by default those of `BASE_RATES`.
    confidence : float
        Between 0 and 1 exclusively.

    Returns
    -------
    Power
    """
    return Power(
        tokens=tokens,
        seen=seen,
        confidence=confidence,
        rates=rates,
        needed=tuple(tokens_needed(rate, confidence) for rate in rates),
        chance=tuple(chance_of_seeing(rate, tokens) for rate in rates),
        largest_rate=math.nan if seen else largest_rate_unseen(tokens, confidence),
    )


def _check(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise InputError(f"{name} must lie strictly between 0 and 1, got {value!r}.")
