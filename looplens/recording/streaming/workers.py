"""One run recorded by several processes: by hand, each with its share, or by the workers of Dask.

Shares are contiguous ranges of blocks. The only work done twice is the prompt that crosses the edge
between two of them.
"""

from __future__ import annotations

import itertools
import os
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

from looplens.errors import InputError, StoreError
from looplens.recording.preparing import Recording
from looplens.recording.streaming.blocks import record_blocks
from looplens.store import RunWriter
from looplens.store.files.location import RunLocation

# More shares than workers, so that a slow worker does not hold up the others.
_SHARES_PER_WORKER = 4

# Hooks belong to a model, so of several tasks in one process one runs at a time.
_one_at_a_time = threading.Lock()


def worker_of(value: Any) -> tuple[int, int] | None:
    """Return (number, count) of what the caller says: ``(0, 4)``, ``"0/4"`` or None.

    Raises
    ------
    InputError
        If it is none of these, or there is no such worker.
    """
    if value is None:
        return None
    parts = value.split("/") if isinstance(value, str) else value
    try:
        number, count = (int(str(part)) for part in parts)
    except (TypeError, ValueError):
        raise InputError(
            f"worker must be a number and a count such as '0/4' or (0, 4), got {value!r}"
        ) from None
    if count < 1:
        raise InputError(f"worker must be one of at least 1, such as '0/1', got {value!r}")
    if not 0 <= number < count:
        raise InputError(
            f"there is no worker {number} of {count}: workers are counted from 0 to {count - 1}"
        )
    return number, count


def record_on(
    client: Any,
    recording: Recording,
    writer: RunWriter,
    todo: Sequence[int],
    *,
    takeover: bool = False,
    advance: Callable[[int], None] = lambda blocks: None,
) -> None:
    """Record blocks on the workers of Dask.

    Parameters
    ----------
    client : distributed.Client
        Its workers must see the run under the same path, and get a copy of the model each.
    recording : Recording
        The run.
    writer : RunWriter
        The hold on it, which created or joined it.
    todo : sequence of int
        Blocks that are not committed yet, ascending.
    takeover : bool
        As for :func:`looplens.record`.
    advance : callable
        Is told how many more blocks are committed.

    Raises
    ------
    InputError
        If the client has no workers.
    StoreError
        If a worker does not see the run, or cannot write it.
    """
    if not todo:
        return
    from distributed import as_completed  # Dask is wanted only by those who have a client

    workers = len(client.scheduler_info(n_workers=-1)["workers"])
    if not workers:
        raise InputError("the Dask client has no workers: start some, then record again")
    n_shares = min(len(todo), workers * _SHARES_PER_WORKER)
    edges = [len(todo) * share // n_shares for share in range(n_shares + 1)]
    shares = [list(todo[a:b]) for a, b in itertools.pairwise(edges)]
    created = writer.location.root_attributes()["created"]
    path = os.fspath(writer.location.path)
    # One large message to each worker, instead of one with every share.
    everywhere = client.scatter(recording, broadcast=True, hash=False)
    futures = [
        client.submit(record_share, everywhere, path, share, created, takeover, pure=False)
        for share in shares
    ]
    try:
        for done in as_completed(futures):
            advance(done.result())
    finally:
        client.cancel(futures)


def record_share(
    recording: Recording, path: str, todo: Sequence[int], created: str, takeover: bool
) -> int:
    """Record some blocks of a run that exists, and return how many; runs on a worker of Dask.

    Blocks that are committed by now are left out, so a share can be tried again.
    """
    location = RunLocation(path)
    seen = location.exists("zarr.json") and location.root_attributes().get("created") == created
    if not seen:
        raise StoreError(
            f"The worker on host {socket.gethostname()} does not see the run at {path}. Record to "
            "a path that all workers share, or to an object store."
        )
    writer = RunWriter(path, recording.spec, resume=True, check_space=False, takeover=takeover)
    with _one_at_a_time, writer:
        record_blocks(recording, writer, [b for b in todo if b not in writer.committed])
    return len(todo)
