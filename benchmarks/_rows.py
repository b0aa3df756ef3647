"""A row of the table of measurements, and how a pair of things is timed fairly."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One measurement with its goal."""

    name: str
    value: float
    unit: str
    goal: float
    peers: dict[str, float]

    @property
    def met(self) -> bool:
        return self.value <= self.goal


def interleaved(actions: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Time several actions in turn, so that a noisy neighbour hits all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for action in actions.values():
        action()  # warm up
    for _ in range(repeats):
        for name, action in actions.items():
            started = time.perf_counter()
            action()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def median_ratio(seconds: dict[str, list[float]], over: str, under: str) -> float:
    """Median of the ratios of neighbouring measurements."""
    pairs = zip(seconds[over], seconds[under], strict=True)
    return statistics.median(a / b for a, b in pairs)
