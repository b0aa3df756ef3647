"""The loop clock: which pass of the loop is running right now, and how often each site fired.

A hook function is told which site it sits on, but not which pass it is seeing. The model sets this
clock around every pass, hooks read it. The clock knows nothing of tensors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from looplens.errors import SiteError


class LoopClock:
    """Tells the iteration that is running, and counts firings.

    Attributes
    ----------
    iteration : int or None
        The running pass of the loop, counted from 1; ``None`` before and after the loop.
    iterations : int or None
        How many passes the running forward was asked for; ``None`` outside a forward.
    """

    def __init__(self) -> None:
        self.iteration: int | None = None
        self.iterations: int | None = None

    @contextmanager
    def forward(self, iterations: int) -> Iterator[LoopClock]:
        """Announce a forward of so many passes."""
        previous = self.iterations
        self.iterations = iterations
        try:
            yield self
        finally:
            self.iterations = previous

    @contextmanager
    def at(self, iteration: int) -> Iterator[LoopClock]:
        """Set the running pass for the duration of a ``with`` block."""
        previous = self.iteration
        self.iteration = iteration
        try:
            yield self
        finally:
            self.iteration = previous


class FiringCounts:
    """Counts the firings of sites and compares them with what the loop declares."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def fired(self, site: str) -> None:
        """Note one firing of ``site``."""
        self._counts[site] += 1

    def check(self, expected: Mapping[str, int]) -> None:
        """Compare with the declared number of firings of each site, and start anew.

        Parameters
        ----------
        expected : mapping of str to int
            Site name to the number of firings that the loop declares.

        Raises
        ------
        SiteError
            If a site fired another number of times than declared, naming each with both counts.
        """
        wrong = [
            f"{site}: expected {count} firings, saw {self._counts[site]}"
            for site, count in expected.items()
            if self._counts[site] != count
        ]
        wrong += [
            f"{site}: not declared, saw {count} firings"
            for site, count in self._counts.items()
            if site not in expected
        ]
        self._counts.clear()
        if wrong:
            raise SiteError(
                "the loop did not fire as it declares, so coordinates cannot be trusted: "
                + "; ".join(wrong)
                + ". Check that the model runs every core layer once per iteration."
            )
