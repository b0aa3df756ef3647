"""A row of the table of measurements, and how things are timed fairly side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

THREADS = 2
Action = Callable[[], object]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One measurement with its goal.

    Parameters
    ----------
    name : str
        What was measured, and against what.
    value : float
        The number.
    unit : str
        ``x`` for ratios.
    goal : float
        What the value should not exceed; with ``at_least``, what it should reach.
    peers : mapping of str to float
        The numbers that the value is to be read beside.
    at_least : bool
        Whether more is better.
    limit : str
        What keeps the value from its goal: printed where the goal is missed.
    """

    name: str
    value: float
    unit: str
    goal: float
    peers: Mapping[str, float] = field(default_factory=dict)
    at_least: bool = False
    limit: str = ""

    @property
    def met(self) -> bool:
        """Whether the goal is reached."""
        return self.value >= self.goal if self.at_least else self.value <= self.goal


def use_two_threads() -> None:
    """Give PyTorch the threads that every measurement here is made with."""
    torch.set_num_threads(THREADS)


def interleaved(
    actions: Mapping[str, Action], repeats: int, *, after: Action | None = None, warm: bool = True
) -> dict[str, list[float]]:
    """Time several actions in turn, so that a noisy neighbour hits all of them.

    Each round starts with another action, so that none always follows the same one.

    Parameters
    ----------
    actions : mapping of str to callable
        What is timed, by name.
    repeats : int
        Rounds.
    after : callable, optional
        Called after every action, untimed: to remove what it wrote.
    warm : bool
        Run everything once before the first round.

    Returns
    -------
    dict of str to list of float
        Seconds of each action, one a round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    names = list(actions)
    for number in range(-int(warm), repeats):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            started = time.perf_counter()
            actions[name]()
            spent = time.perf_counter() - started
            if number >= 0:
                seconds[name].append(spent)
            if after is not None:
                after()
    return seconds


def median_ratio(seconds: Mapping[str, list[float]], over: str, under: str) -> float:
    """Median over rounds of the ratio of two actions within a round."""
    pairs = zip(seconds[over], seconds[under], strict=True)
    return statistics.median(a / b for a, b in pairs)


def ratios(seconds: Mapping[str, list[float]], under: str) -> dict[str, float]:
    """Return the median ratio of every action to one of them."""
    return {name: median_ratio(seconds, name, under) for name in seconds}
