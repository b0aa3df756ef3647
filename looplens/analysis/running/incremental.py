"""What of a stored result still holds, and computing only the rest.

A result says of which blocks it was made, by their fingerprints. A run that has grown since, or a
block that could not be read then, leaves the rest of the result as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from looplens.analysis.analyzers._analyzer import Analyzer, Source
from looplens.analysis.running.coverage import Coverage, unreadable_blocks
from looplens.analysis.running.engine import Job, Tell, measure_run, nothing_read, unknown
from looplens.errors import AnalysisError, CorruptRunError

if TYPE_CHECKING:
    from looplens.store import StoredRun

_DIGITS = 16  # of a fingerprint: enough for any number of blocks


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of one analysis.

    Attributes
    ----------
    analyzer : Analyzer
        Which one.
    parameters : dict
        What it was computed with.
    result : Dataset or AnalysisError
        What it found, with attributes that say of which blocks it is, or why it found nothing.
    """

    analyzer: Analyzer
    parameters: dict[str, Any]
    result: xr.Dataset | AnalysisError


@dataclass(kw_only=True, slots=True)
class _Work:
    """An analysis on its way: what it starts from, and what of it need not be computed."""

    job: Job
    parameters: dict[str, Any]
    kept: tuple[xr.Dataset, NDArray[np.bool_]] | None


def computed(
    run: StoredRun,
    analyzers: Sequence[Analyzer],
    parameters: dict[str, Any],
    *,
    complete: bool = False,
    client: Any = None,
    tell: Tell | None = None,
) -> Iterator[Outcome]:
    """Compute analyses in one pass, over the blocks that their stored results lack.

    Parameters
    ----------
    run : StoredRun
        The run.
    analyzers : sequence of Analyzer
        The analyses.
    parameters : dict
        Each analysis takes those that it knows.
    complete : bool
        Take the parameters of a stored result, where no other ones are given.
    client, tell
        See `looplens.analysis.running.engine.measure_run`.

    Yields
    ------
    Outcome
        Of each of the analyses, in order.
    """
    hashes = block_hashes(run)
    works = [_work(run, analyzer, parameters, complete, hashes) for analyzer in analyzers]
    jobs = [work.job for work in works if work.job.analyzer.measure is not None]
    found = measure_run(run, jobs, client=client, version=_version(run, hashes), tell=tell)
    while works:
        work = works.pop(0)
        analyzer, coverage = work.job.analyzer, work.job.coverage
        arrays = found.pop(analyzer.name, {})
        result: xr.Dataset | AnalysisError
        try:
            if work.kept is not None:
                _take_over(arrays, *work.kept, analyzer.token_axis)
            if analyzer.measure is not None and not arrays:
                raise nothing_read(run, coverage)
            result = analyzer.build(Source(run=run, coverage=coverage), work.job.plan, arrays)
            result.attrs |= _described(coverage, hashes, run)
        except AnalysisError as error:
            result = error
        yield Outcome(analyzer=analyzer, parameters=work.parameters, result=result)


def _work(
    run: StoredRun,
    analyzer: Analyzer,
    parameters: dict[str, Any],
    complete: bool,
    hashes: dict[str, str],
) -> _Work:
    """Plan an analysis, around a stored result of the same parameters where there is one."""
    coverage = Coverage(run)
    source = Source(run=run, coverage=coverage)
    taken = {key: value for key, value in parameters.items() if key in analyzer.parameters}
    stored = _stored(run, analyzer)
    kept = plan = None
    if stored is not None:
        before = _parameters(stored)
        if complete and _agree(before, taken):
            taken = before
        if len(before) == len(taken) and _agree(before, taken):
            kept = _partial(run, analyzer, stored, hashes)
    if kept is not None and analyzer.keep is not None:
        plan = analyzer.keep(source, kept[0], **taken)
        kept = None if plan is None else kept
    if plan is None:
        plan = analyzer.plan(source, **taken)
    todo = coverage.known
    if kept is not None:
        todo &= ~kept[1]
    job = Job(analyzer=analyzer, plan=plan, todo=todo, coverage=coverage)
    return _Work(job=job, parameters=taken, kept=kept)


def current(
    run: StoredRun, analyzer: Analyzer, parameters: Mapping[str, Any] | None = None
) -> xr.Dataset | None:
    """Read the stored result, if it is of this version and of all that is recorded now.

    Blocks that it says it could not read count as looked at; whoever takes it has to say so, or to
    try again.

    Parameters
    ----------
    run : StoredRun
        The run.
    analyzer : Analyzer
        Which analysis.
    parameters : mapping, optional
        What is asked for: a result that was computed with another value of one of these is not
        current.
    """
    stored = _stored(run, analyzer)
    if stored is None:
        return None
    given = {key: value for key, value in (parameters or {}).items() if key in analyzer.parameters}
    if not _agree(_parameters(stored), given):
        return None
    known = json.loads(stored.attrs.get("blocks", "{}"))
    hashes = block_hashes(run)
    missing = {int(block) for block, digest in hashes.items() if known.get(block) != digest}
    return None if missing - set(unreadable_blocks(stored)) else stored


def block_hashes(run: StoredRun) -> dict[str, str]:
    """Return fingerprints of the recorded blocks, by their numbers as text."""
    return {str(block): digest[:_DIGITS] for block, digest in run.block_hashes().items()}


def _version(run: StoredRun, hashes: dict[str, str]) -> str:
    """Return a fingerprint of all that is recorded now."""
    text = json.dumps([run.input_hash(), hashes], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _parameters(stored: xr.Dataset) -> dict[str, Any]:
    return json.loads(stored.attrs.get("parameters", "{}"))


def _agree(stored: dict[str, Any], given: dict[str, Any]) -> bool:
    """Whether a result has all the parameters that are given."""
    return all(
        key in stored and bool(np.array_equal(stored[key], value)) for key, value in given.items()
    )


def _stored(run: StoredRun, analyzer: Analyzer) -> xr.Dataset | None:
    try:
        stored = run.analysis(analyzer.name)
    except CorruptRunError:  # it can be made again, so a damaged one is as good as none
        return None
    if stored is None or stored.attrs.get("input_hash") != run.input_hash():
        return None
    return stored if str(stored.attrs.get("version")) == str(analyzer.version) else None


def _partial(
    run: StoredRun, analyzer: Analyzer, stored: xr.Dataset, hashes: dict[str, str]
) -> tuple[xr.Dataset, NDArray[np.bool_]] | None:
    """Return a stored result that lacks some blocks but not all, and which tokens it has."""
    known = json.loads(stored.attrs.get("blocks", "{}"))
    same = [int(block) for block, digest in hashes.items() if digest and known.get(block) == digest]
    if analyzer.measure is None or not same or len(same) == len(hashes):
        return None
    covered = np.zeros(run.n_tokens, dtype=bool)
    for block in same:
        covered[block * run.block_tokens : (block + 1) * run.block_tokens] = True
    return stored, covered


def _take_over(
    arrays: dict[str, np.ndarray], old: xr.Dataset, covered: NDArray[np.bool_], axis: int
) -> None:
    """Fill in the tokens that a stored result has.

    Without any new array, as where all that it lacks cannot be read, they are all made from it.
    """
    if not arrays:
        for name, variable in old.data_vars.items():
            if variable.dims[axis : axis + 1] == ("token",):
                arrays[str(name)] = unknown(variable.shape, variable.dtype)
    place: Any = (*[slice(None)] * axis, covered)
    for name, values in arrays.items():
        values[place] = old[name].values[place]


def _described(coverage: Coverage, hashes: dict[str, str], run: StoredRun) -> dict[str, Any]:
    """Attributes that say which blocks a result is of, and how many tokens it lacks."""
    known = coverage.known
    size = run.block_tokens
    covered = {
        block: digest
        for block, digest in hashes.items()
        if known[int(block) * size : (int(block) + 1) * size].all()
    }
    problems = {str(block): text for block, text in coverage.problems.items()}
    attributes: dict[str, Any] = {"blocks": json.dumps(covered), **coverage.attributes()}
    return attributes | ({"unreadable_blocks": json.dumps(problems)} if problems else {})
