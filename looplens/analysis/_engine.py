"""One pass over a run for all analyses: each block is read once and multiplied once.

Which numbers an analysis makes of a block is its own affair (`looplens.analysis.analyzers`); here
blocks are read, their products taken with all that any of the analyses wants, and the results put
where they belong, in this process or on the workers of a Dask cluster.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from looplens.analysis._coverage import Coverage
from looplens.analysis._moments import moments_of
from looplens.analysis._products import Moments
from looplens.analysis._threads import threads
from looplens.errors import AnalysisError, CorruptRunError, InputError

if TYPE_CHECKING:
    from looplens.analysis.analyzers._analyzer import Analyzer
    from looplens.store import StoredRun

Arrays = dict[str, np.ndarray]
Tell = Callable[[int, int], None]

_BYTES_PER_READ = 2**26
_PIECES_PER_TASK = 4  # of a cluster: enough of them to share the work evenly


@dataclass(frozen=True, kw_only=True, slots=True)
class Wants:
    """What an analysis asks of a block.

    Attributes
    ----------
    state, layers : bool
        Whether it looks at loop states, and at the residual stream after each layer.
    window : int or None
        Last iterations whose Gram matrix it needs, of states and of layers.
    directions : dict of int to ndarray (k, width)
        Directions to project on, by number of the layer; -1 is the loop state.
    """

    state: bool = True
    layers: bool = False
    window: int | None = None
    directions: dict[int, NDArray[np.floating]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One analysis, its plan, and the tokens that are still to be looked at."""

    analyzer: Analyzer
    plan: Any
    todo: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Some tokens of a run, read and multiplied.

    Attributes
    ----------
    run : StoredRun
        The run; nothing of it needs to be read again.
    tokens : slice
        Which tokens.
    states : ndarray or None, shape (restart, token, iteration, width)
        Loop states.
    state : list of Moments
        Their products, restart by restart.
    layers : list of list of Moments
        Those of the residual stream, for each recorded layer.
    layer_dtype : dtype
        In which the layers are stored.
    """

    run: StoredRun
    tokens: slice
    states: np.ndarray | None
    state: list[Moments]
    layers: list[list[Moments]]
    layer_dtype: np.dtype

    @property
    def shape(self) -> tuple[int, int]:
        """How many restarts and tokens."""
        return self.run.restarts, self.tokens.stop - self.tokens.start


def first_iteration(run: StoredRun) -> int:
    """Return how many states come before iteration 1 on the axis of loop states: 1 or 0."""
    return 1 if run.all_iterations else 0


def measure_run(
    run: StoredRun,
    jobs: Sequence[Job],
    coverage: Coverage,
    *,
    client: Any = None,
    tell: Tell | None = None,
) -> dict[str, Arrays]:
    """Let analyses look at all tokens that they are to look at.

    Returns
    -------
    dict
        By name of the analysis: its arrays with all tokens; what was not looked at is NaN, or empty
        text.

    Raises
    ------
    AnalysisError
        If there is no token to look at.
    """
    wanted = np.zeros(run.n_tokens, dtype=bool)
    for job in jobs:
        wanted |= job.todo
    pieces = [
        piece for tokens in run.blocks(_BYTES_PER_READ) for piece in coverage.pieces(tokens, wanted)
    ]
    arrays: dict[str, Arrays] = {job.analyzer.name: {} for job in jobs}
    if jobs and not pieces:
        raise AnalysisError(
            f"No token of {run.path} can be read: "
            f"{next(iter(coverage.problems.values()), 'no block is recorded yet')}."
        )
    source = _here(run, jobs, pieces) if client is None else _there(run, jobs, pieces, client)
    for done, (tokens, found) in enumerate(source, start=1):
        if isinstance(found, str):
            coverage.give_up(tokens, found)
        else:
            for job in jobs:
                name = job.analyzer.name
                if name in found:
                    _place(arrays[name], found[name], tokens, job.analyzer.token_axis, run.n_tokens)
        if tell is not None:
            tell(min(done, len(pieces)), len(pieces))
    if jobs and not any(arrays.values()):
        raise AnalysisError(
            f"No token of {run.path} can be read: {next(iter(coverage.problems.values()))}"
        )
    return arrays


Found = tuple[slice, "dict[str, Arrays] | str"]


def _here(run: StoredRun, jobs: Sequence[Job], pieces: Sequence[slice]) -> Iterator[Found]:
    for tokens in pieces:
        yield from _measured(run, jobs, tokens)


def _there(
    run: StoredRun, jobs: Sequence[Job], pieces: Sequence[slice], client: Any
) -> Iterator[Found]:
    """Spread the pieces over the workers of a cluster, in their order."""
    if not hasattr(client, "submit") or not hasattr(client, "scatter"):
        raise InputError(
            f"client must be a distributed.Client; got {type(client).__name__}. Make one with "
            "distributed.Client(address)."
        )
    sent = client.scatter(list(jobs), broadcast=True, hash=False)
    workers = max(1, sum(client.nthreads().values()))
    size = max(1, len(pieces) // (workers * _PIECES_PER_TASK))
    futures = [
        client.submit(_on_worker, str(run.path), sent, pieces[start : start + size], pure=False)
        for start in range(0, len(pieces), size)
    ]
    for future in futures:
        yield from future.result()
        future.release()


def _on_worker(path: str, jobs: Sequence[Job], pieces: Sequence[slice]) -> list[Found]:
    with threads(1):
        run = _opened(path)
        return [found for tokens in pieces for found in _measured(run, jobs, tokens)]


@functools.lru_cache(maxsize=1)
def _opened(path: str) -> StoredRun:
    from looplens.store import open_stored

    return open_stored(path)


def _measured(run: StoredRun, jobs: Sequence[Job], tokens: slice) -> Iterator[Found]:
    """Read and measure some tokens; block by block where they cannot be read at once."""
    try:
        block = _read(run, jobs, tokens)
    except CorruptRunError as error:
        parts = Coverage(run).by_block(tokens)
        if len(parts) < 2:
            yield tokens, str(error)
            return
        for part in parts:
            yield from _measured(run, jobs, part)
        return
    yield (
        tokens,
        {
            job.analyzer.name: job.analyzer.measure(block, job.plan)
            for job in jobs
            if job.analyzer.measure is not None and job.todo[tokens].any()
        },
    )


def _read(run: StoredRun, jobs: Sequence[Job], tokens: slice) -> Block:
    wants = [job.analyzer.wants(run, job.plan) for job in jobs if job.todo[tokens].any()]
    windows = [want.window for want in wants if want.window is not None]
    points = max(windows) if windows else None

    def directions(number: int) -> NDArray[np.floating] | None:
        found = [want.directions[number] for want in wants if number in want.directions]
        return found[0] if found else None  # one analysis projects

    states, state, layers = None, [], []
    dtype = np.dtype(np.float32)
    if any(want.state for want in wants):
        states = run.state(tokens=tokens).values
        skip = first_iteration(run)
        state = moments_of(_flat(states), points=points, skip=skip, directions=directions(-1))
    if any(want.layers for want in wants):
        for number in run.recorded_layers:
            values = run.site("resid_post", tokens=tokens, layer=number).values
            dtype = values.dtype
            layers.append(moments_of(_flat(values), points=points, directions=directions(number)))
    return Block(
        run=run, tokens=tokens, states=states, state=state, layers=layers, layer_dtype=dtype
    )


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, *values.shape[-2:])


def _place(whole: Arrays, found: Arrays, tokens: slice, axis: int, n_tokens: int) -> None:
    """Put the arrays of some tokens where they belong."""
    for name, values in found.items():
        if name not in whole:
            shape = (*values.shape[:axis], n_tokens, *values.shape[axis + 1 :])
            empty = {"f": np.nan, "O": ""}.get(values.dtype.kind, 0)
            whole[name] = np.full(shape, empty, dtype=values.dtype)
        whole[name][(*[slice(None)] * axis, tokens)] = values
