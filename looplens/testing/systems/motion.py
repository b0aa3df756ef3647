"""What a recipe returns, and the pieces that several recipes are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rng = np.random.Generator


@dataclass(frozen=True, kw_only=True, slots=True)
class Motion:
    """A trajectory in its own few dimensions.

    Attributes
    ----------
    path : ndarray of float64, shape (iteration 0..T, dims)
        At most 24 dimensions.
    period : float
        Iterations in a turn; NaN where it is no orbit.
    rest : str
        How far from the origin the motion takes place: ``free`` (as far as the motion is large, to
        ten times that), ``far`` (20 to 100 times) or ``origin`` (the path as it stands: its norm
        means something).
    rounded : bool
        Whether it is covered with what rounding to float32 leaves.
    """

    path: Floats
    period: float = np.nan
    rest: Literal["free", "far", "origin"] = "free"
    rounded: bool = False


Recipe = Callable[[Rng, int], Motion]


def times(iterations: int) -> Floats:
    """Return 0..T as a column."""
    return np.arange(iterations + 1, dtype=np.float64)[:, None]


def decay(rng: Rng, iterations: int, low: float, high: float, dims: int) -> Floats:
    """Return real geometric decays towards the origin along `dims` axes."""
    rates = rng.uniform(low, high, dims)
    return rng.normal(size=dims) * rates ** times(iterations)


def longest_period(iterations: int) -> float:
    """Three turns fit in the second half of the record."""
    return max(iterations / 6.0, 3.5)


def log_uniform(rng: Rng, low: float, high: float) -> float:
    """Draw between two positive numbers, every factor as likely; `low` where they are reversed."""
    return float(np.exp(rng.uniform(np.log(low), np.log(max(low, high)))))
