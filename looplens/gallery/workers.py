"""The processes in which the jobs of the gallery run: started once, and gone with the run.

What the jobs are is not known here.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor

_POOLS: dict[int, ProcessPoolExecutor] = {}


def pool(workers: int) -> ProcessPoolExecutor:
    """Return processes that stay for the next claim; each costs seconds of imports to start."""
    if workers not in _POOLS:
        # Not forked: torch's threads do not survive a fork.
        context = multiprocessing.get_context("spawn")
        _POOLS[workers] = ProcessPoolExecutor(
            workers, mp_context=context, initializer=_end_with_parent
        )
        atexit.register(close, workers)
    return _POOLS[workers]


def close(workers: int) -> None:
    """End the processes of a pool; the next call of :func:`pool` starts others."""
    ended = _POOLS.pop(workers, None)
    if ended is not None:
        ended.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Have a worker end with the process that started it, in the middle of a job too."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
