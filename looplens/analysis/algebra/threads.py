"""Work on parts of an array in a few threads: numpy lets go of the interpreter while it computes.

Workers of a cluster have one thread each for their task and turn this off.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST = 8
_THREADS: ContextVar[int | None] = ContextVar("looplens_analysis_threads", default=None)


def thread_count() -> int:
    """How many threads `in_threads` uses: the processors of this process, at most eight."""
    chosen = _THREADS.get()
    if chosen is not None:
        return chosen
    try:
        available = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        available = os.cpu_count() or 1
    return min(available, _MOST)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Use `count` threads inside the block."""
    token = _THREADS.set(count)
    try:
        yield
    finally:
        _THREADS.reset(token)


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Apply a function to every item, in order; an exception of one is raised here."""
    work = list(items)
    workers = min(thread_count(), len(work))
    if workers < 2:
        return [function(item) for item in work]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(function, work))
