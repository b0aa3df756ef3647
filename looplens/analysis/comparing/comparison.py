"""What a comparison of two runs holds; it knows nothing of how it is computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_OF_A_VARIABLE = 2
_RESOLUTION = 1e-6
_UNITS_WITH_A_SCALE = ("state units", "operations")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Named:
    """What was compared."""

    analysis: str
    name: str
    title: str

    @property
    def key(self) -> str:
        """Its full name: ``analysis.name``."""
        return f"{self.analysis}.{self.name}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference(_Named):
    """One number of both runs.

    Attributes
    ----------
    analysis, name : str
        Where it is from: a variable (with the place on its other axes, ``rate.layer_1``), the share
        of a word (``regime.orbit``), the share that is known (``settling_iteration.known``), or a
        name of the summary.
    title, units : str
        What it is.
    a, b : float
        Mean over the tokens that are known in both runs, or the value of the summary.
    difference, low, high : float
        b - a and its interval; NaN where no interval can be given.
    spread : float
        Standard deviation of the tokens of both runs together, what lies between the runs included;
        NaN for a summary.
    tokens : int
        How many tokens (or prompts, where a variable is of prompts) the means are over; 0 for a
        summary.
    """

    units: str = ""
    a: float
    b: float
    difference: float
    low: float = float("nan")
    high: float = float("nan")
    spread: float = float("nan")
    tokens: int = 0

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0

    @property
    def effect(self) -> float:
        """The difference in units of `spread`, -2 to 2; NaN without one.

        At 2 the runs share nothing: all tokens of one have one value, all of the other another.
        """
        return self.difference / self.spread if self.spread > 0 else float("nan")

    @property
    def beyond_rounding(self) -> bool:
        """Whether states that are stored in single precision can tell the two values apart.

        A number without a scale of its own, such as a cosine, a share or a relative step, is known
        to about 1e-6; one in units of the states, or in operations, to 1e-6 of itself.
        """
        scale = max(abs(self.a), abs(self.b))
        if not any(word in self.units for word in _UNITS_WITH_A_SCALE):
            scale = max(scale, 1.0)
        return abs(self.difference) > _RESOLUTION * scale


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve(_Named):
    """A mean over tokens at each iteration, of both runs.

    Attributes
    ----------
    analysis, name, title, units : str
        As in `Difference`.
    iteration : ndarray of int, shape (iteration,)
        Those that both runs have.
    a, b, difference, low, high : ndarray, shape (iteration,)
        As in `Difference`; the intervals hold for single iterations, not for the whole curve.
    """

    units: str = ""
    iteration: NDArray[np.int_]
    a: NDArray[np.float64]
    b: NDArray[np.float64]
    difference: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement(_Named):
    """How often both runs say the same word of a token.

    Attributes
    ----------
    analysis, name, title : str
        Which variable, such as ``classify`` and ``regime``.
    levels : tuple of str
        The words; empty where they are too many for a table.
    table : ndarray, shape (level of a, level of b)
        Share of the pairs of trajectories; sums to 1.
    share, low, high : float
        Share of the pairs with the same word, and its interval.
    """

    levels: tuple[str, ...]
    table: NDArray[np.float64]
    share: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two runs of the same prompts, compared token by token; differences are b - a.

    Attributes
    ----------
    a, b : run
        The opened runs.
    labels : tuple of str
        A short name of either.
    n_prompts, n_tokens : int
        What they share.
    n_boot, level, seed : int, float, int
        Of the intervals.
    settings : tuple of (name, value of a, value of b)
        What the recordings say of themselves and differ in.
    statistics : tuple of Difference
        Means over tokens.
    curves : tuple of Curve
        Means over tokens by iteration.
    agreements : tuple of Agreement
        Words, such as regimes.
    summaries : tuple of Difference
        The numbers of ``run.summary()``.
    by, groups : str or None, dict
        Statistics in groups of tokens, by label of the group.
    notes : tuple of str
        What to keep in mind, in sentences.
    skipped : dict of str to str
        Analyses and variables that are not compared, and why.
    """

    a: Any
    b: Any
    labels: tuple[str, str]
    n_prompts: int
    n_tokens: int
    n_boot: int
    level: float
    seed: int
    settings: tuple[tuple[str, str, str], ...]
    statistics: tuple[Difference, ...]
    curves: tuple[Curve, ...]
    agreements: tuple[Agreement, ...]
    summaries: tuple[Difference, ...]
    by: str | None = None
    groups: dict[str, tuple[Difference, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    skipped: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, key: str) -> Difference | Curve | Agreement:
        """Return a statistic, curve or agreement by its full name, such as ``convergence.rate``."""
        for found in self._parts():
            if found.key == key:
                return found
        raise KeyError(key)

    def __contains__(self, key: str) -> bool:
        return any(found.key == key for found in self._parts())

    def _parts(self) -> Iterator[Difference | Curve | Agreement]:
        yield from self.statistics
        yield from self.curves
        yield from self.agreements

    def largest(self, most: int) -> list[Difference]:
        """Return the statistics with the largest effects, the largest first.

        At most two of one variable. What rounding hides is left out, and what only repeats another
        number of the same analysis, such as the regime of the last layer that of the loop.
        """
        known = [row for row in self.statistics if np.isfinite(row.effect) and row.beyond_rounding]
        found: list[Difference] = []
        taken: Counter[tuple[str, str]] = Counter()
        said: set[tuple[Any, ...]] = set()
        for row in sorted(known, key=lambda row: -abs(row.effect)):
            variable = row.analysis, row.name.partition(".")[0]
            numbers = row.analysis, row.a, row.b, row.low, row.high
            if taken[variable] < _MOST_OF_A_VARIABLE and numbers not in said:
                taken[variable] += 1
                said.add(numbers)
                found.append(row)
        return found[:most]

    def numbers(self) -> dict[str, dict[str, Any]]:
        """Return all numbers by name, for JSON and for conditions.

        Returns
        -------
        dict
            Such as ``["classify"]["orbit_share"]["difference"]`` (and "a", "b", "low", "high")
            for summaries, ``tokens.<analysis>`` for means over tokens, ``groups.<label>...``
            for those in groups, ``agreement`` for words, and ``compared`` for the counts.
        """
        found: dict[str, dict[str, Any]] = {
            "compared": {"prompts": self.n_prompts, "tokens": self.n_tokens},
            "agreement": {one.key: _interval(one.share, one) for one in self.agreements},
        }
        for start, one in self._named():
            values = {"a": one.a, "b": one.b, "difference": one.difference}
            place = found.setdefault(f"{start}{one.analysis}", {})
            place[one.name] = values | {"low": one.low, "high": one.high}
        return found

    def _named(self) -> Iterator[tuple[str, Difference]]:
        yield from (("", one) for one in self.summaries)
        yield from (("tokens.", one) for one in self.statistics)
        for label, group in self.groups.items():
            yield from ((f"groups.{'_'.join(label.split())}.", one) for one in group)


def _interval(value: float, found: Agreement) -> dict[str, float]:
    return {"share": value, "low": found.low, "high": found.high}
