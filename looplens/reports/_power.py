"""How many tokens it takes to see something rare, and how rare it may be when it was not seen.

Formulas only; the base rates come from the literature and are named where they stand.
"""

from __future__ import annotations

import math

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


def _check(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise InputError(f"{name} must lie strictly between 0 and 1, got {value!r}.")
