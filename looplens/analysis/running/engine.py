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

from looplens.analysis.algebra.moments import moments_of
from looplens.analysis.algebra.products import Moments
from looplens.analysis.algebra.threads import threads
from looplens.analysis.running.coverage import Coverage, by_block, pieces_of
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
    wide : int
        The same for trajectories whose last state has come back; see `moments_of`.
    directions : dict of int to ndarray (k, width)
        Directions to project on, by number of the layer; -1 is the loop state.
    origins : dict of int to ndarray (width,)
        What is subtracted from the states before that, by the same numbers.
    values : bool
        Whether it looks at the residual stream itself, and not only at its products: `Block.values`
        then holds all layers, which takes as much memory as the products save.
    """

    state: bool = True
    layers: bool = False
    window: int | None = None
    wide: int = 0
    directions: dict[int, NDArray[np.floating]] = field(default_factory=dict)
    origins: dict[int, NDArray[np.floating]] = field(default_factory=dict)
    values: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One analysis, its plan, the tokens still to be looked at, and which it could not read."""

    analyzer: Analyzer
    plan: Any
    todo: NDArray[np.bool_]
    coverage: Coverage


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
    values : ndarray or None, shape (restart, token, layer, iteration, width)
        The residual stream after each recorded layer, where an analysis wants the values.
    """

    run: StoredRun
    tokens: slice
    states: np.ndarray | None
    state: list[Moments]
    layers: list[list[Moments]]
    layer_dtype: np.dtype
    values: np.ndarray | None = None

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
    *,
    client: Any = None,
    version: str = "",
    tell: Tell | None = None,
) -> dict[str, Arrays]:
    """Let analyses look at all tokens that they are to look at.

    Parameters
    ----------
    run : StoredRun
        The run.
    jobs : sequence of Job
        The analyses; tokens that one cannot read are given up in its coverage.
    client : distributed.Client, optional
        Where to do it.
    version : str
        Tells what the workers have to read from what they may have open from before.
    tell : callable, optional
        Gets ``(done, total)``.

    Returns
    -------
    dict
        By name of the analysis: its arrays with all tokens; what was not looked at is NaN, or empty
        text. Without any array, not one token could be read.
    """
    jobs = [job for job in jobs if job.todo.any()]
    arrays: dict[str, Arrays] = {job.analyzer.name: {} for job in jobs}
    if not jobs:
        return arrays
    wanted = np.any([job.todo for job in jobs], axis=0)
    pieces = [
        piece for tokens in run.blocks(_BYTES_PER_READ) for piece in pieces_of(wanted, tokens)
    ]
    if client is None:
        source = _here(run, jobs, pieces)
    else:
        source = _there(run, jobs, pieces, client, version)
    for done, (tokens, results) in enumerate(source, start=1):
        for job in jobs:
            name, axis = job.analyzer.name, job.analyzer.token_axis
            found = results.get(name, {})
            if isinstance(found, str):
                job.coverage.give_up(tokens, found)
            else:
                _place(arrays[name], found, tokens, axis, run.n_tokens)
        if tell is not None:
            tell(min(done, len(pieces)), len(pieces))
    return arrays


def nothing_read(run: StoredRun, coverage: Coverage) -> AnalysisError:
    """Make the error to raise where an analysis can read no token at all."""
    why = next(iter(coverage.problems.values()), "no block is recorded yet")
    return AnalysisError(f"No token of {run.path} can be read: {why.rstrip('.')}.")


# Some tokens, and by name of the analysis its arrays of them, or why it cannot read them.
Found = tuple[slice, "dict[str, Arrays | str]"]


def _here(run: StoredRun, jobs: Sequence[Job], pieces: Sequence[slice]) -> Iterator[Found]:
    for tokens in pieces:
        yield from _measured(run, jobs, tokens)


def _there(
    run: StoredRun, jobs: Sequence[Job], pieces: Sequence[slice], client: Any, version: str
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
        client.submit(
            _on_worker, str(run.path), version, sent, pieces[start : start + size], pure=False
        )
        for start in range(0, len(pieces), size)
    ]
    for future in futures:
        yield from future.result()
        future.release()


def _on_worker(
    path: str, version: str, jobs: Sequence[Job], pieces: Sequence[slice]
) -> list[Found]:
    with threads(1):
        run = _opened(path, version)
        return [found for tokens in pieces for found in _measured(run, jobs, tokens)]


@functools.lru_cache(maxsize=1)
def _opened(path: str, version: str) -> StoredRun:
    """Open a run once for many tasks, and again when it has grown or was replaced."""
    from looplens.store import open_stored

    return open_stored(path)


def _measured(run: StoredRun, jobs: Sequence[Job], tokens: slice) -> Iterator[Found]:
    """Read and measure some tokens; where that fails block by block, then job by job."""
    jobs = [job for job in jobs if job.todo[tokens].any()]
    try:
        block = _read(run, jobs, tokens)
    except CorruptRunError as error:
        parts = by_block(tokens, run.block_tokens)
        if len(parts) > 1:
            for part in parts:
                yield from _measured(run, jobs, part)
        elif len(jobs) > 1:
            # The damaged file may be one that only some of them read.
            for job in jobs:
                yield from _measured(run, [job], tokens)
        else:
            yield tokens, {job.analyzer.name: str(error) for job in jobs}
        return
    yield (
        tokens,
        {
            job.analyzer.name: job.analyzer.measure(block, job.plan)
            for job in jobs
            if job.analyzer.measure is not None
        },
    )


def _read(run: StoredRun, jobs: Sequence[Job], tokens: slice) -> Block:
    wants = [job.analyzer.wants(run, job.plan) for job in jobs]
    windows = [want.window for want in wants if want.window is not None]
    points = max(windows) if windows else None
    wide = max((want.wide for want in wants), default=0)

    def projection(number: int) -> dict[str, Any]:
        found = [want for want in wants if number in want.directions]
        if not found:
            return {}
        one = found[0]  # one analysis projects
        return {"directions": one.directions[number], "origin": one.origins.get(number)}

    states, state, layers = None, [], []
    dtype = np.dtype(np.float32)
    if any(want.state for want in wants):
        states = run.state(tokens=tokens).values
        skip = first_iteration(run)
        state = moments_of(_flat(states), points=points, wide=wide, skip=skip, **projection(-1))
    kept: list[np.ndarray] = []
    multiplied, looked_at = any(want.layers for want in wants), any(want.values for want in wants)
    for number in run.recorded_layers if multiplied or looked_at else ():
        values = run.site("resid_post", tokens=tokens, layer=number).values
        dtype = values.dtype
        if multiplied:
            found = moments_of(_flat(values), points=points, wide=wide, **projection(number))
            layers.append(found)
        if looked_at:
            kept.append(values)
    return Block(
        run=run,
        tokens=tokens,
        states=states,
        state=state,
        layers=layers,
        layer_dtype=dtype,
        values=np.stack(kept, axis=2) if kept else None,
    )


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, *values.shape[-2:])


def _place(whole: Arrays, found: Arrays, tokens: slice, axis: int, n_tokens: int) -> None:
    """Put the arrays of some tokens where they belong."""
    for name, values in found.items():
        if name not in whole:
            shape = (*values.shape[:axis], n_tokens, *values.shape[axis + 1 :])
            whole[name] = unknown(shape, values.dtype)
        whole[name][(*[slice(None)] * axis, tokens)] = values


def unknown(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Make an array of what is not known: NaN, empty text, or 0 where there is neither."""
    return np.full(shape, {"f": np.nan, "O": ""}.get(dtype.kind, 0), dtype=dtype)
