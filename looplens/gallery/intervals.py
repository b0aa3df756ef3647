"""Means over seeds with their 95 % intervals. Nothing here knows what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from looplens.errors import InputError

LEVEL = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A mean over seeds and its 95 % interval.

    Attributes
    ----------
    mean, low, high : float
        The mean and the ends of the interval. One value alone has no interval: there ``low`` and
        ``high`` are the value itself, and the text says ``n=1``.
    n : int
        How many seeds.
    """

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return format(self, _format_of(self.mean))

    def __format__(self, spec: str) -> str:
        if not spec:
            return str(self)
        if self.n == 1:
            return f"{self.mean:{spec}} (n=1)"
        return f"{self.mean:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def _format_of(value: float) -> str:
    """Return a number format with two to three telling digits."""
    size = abs(value)
    if size >= 100:
        return ",.0f"
    if size >= 10:
        return ".1f"
    return ".2f" if size >= 0.1 or size == 0 else ".2g"


def mean_interval(values: Sequence[float] | np.ndarray) -> Interval:
    """Return the mean of a measurement over seeds with its 95 % interval (Student's t).

    Parameters
    ----------
    values : sequence of float, shape (seed,)
        One number a seed.

    Raises
    ------
    InputError
        When there is no value, or one that is not finite.
    """
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 1 or given.size == 0 or not np.isfinite(given).all():
        raise InputError(
            f"An interval needs one finite number a seed; got {given.tolist()}. Leave out of the "
            "comparison what could not be measured, and say so in the limits."
        )
    mean = float(given.mean())
    if given.size == 1:
        return Interval(mean=mean, low=mean, high=mean, n=1)
    from scipy.stats import t

    spread = float(given.std(ddof=1)) / math.sqrt(given.size)
    half = float(t.ppf((1 + LEVEL) / 2, given.size - 1)) * spread
    return Interval(mean=mean, low=mean - half, high=mean + half, n=given.size)


def share_interval(values: Sequence[float] | np.ndarray) -> Interval:
    """Return :func:`mean_interval` of shares or accuracies, with its ends kept within 0 to 1.

    Parameters
    ----------
    values : sequence of float, shape (seed,)
        One share a seed, each from 0 to 1.

    Raises
    ------
    InputError
        When a value is no share, or there is none.
    """
    given = np.asarray(values, dtype=np.float64)
    if given.size and (given.min() < 0 or given.max() > 1):
        raise InputError(f"A share is from 0 to 1; got {given.tolist()}. Use mean_interval.")
    free = mean_interval(given)
    return replace(free, low=max(free.low, 0.0), high=min(free.high, 1.0))


def above(value: Interval, bound: float = 0.0) -> bool | None:
    """Tell whether a mean is above a bound: True, False (it is below), None (open).

    Open is an interval that contains the bound. One value alone decides by itself.
    """
    if value.low > bound:
        return True
    return False if value.high < bound or value.n == 1 else None


def below(value: Interval, bound: float = 0.0) -> bool | None:
    """Tell whether a mean is below a bound: True, False (it is above), None (open)."""
    if value.high < bound:
        return True
    return False if value.low > bound or value.n == 1 else None


def paired(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> Interval:
    """Return the mean of ``a - b``, paired by seed, with its 95 % interval.

    Parameters
    ----------
    a, b : sequence of float, shape (seed,)
        The two measurements, seeds in the same order.

    Raises
    ------
    InputError
        When the two differ in their number of seeds.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise InputError(
            f"A paired difference needs the same seeds on both sides; got {first.size} and "
            f"{second.size} values."
        )
    return mean_interval(first - second)
