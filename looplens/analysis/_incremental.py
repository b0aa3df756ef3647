"""What of a stored result still holds, and computing only the rest.

A result says of which blocks it was made, by their fingerprints. A run that has grown since, or a
block that could not be read then, leaves the rest of the result as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from looplens.analysis._coverage import Coverage
from looplens.analysis._engine import Job, Tell, measure_run
from looplens.analysis.analyzers._analyzer import Analyzer, Source
from looplens.errors import CorruptRunError

if TYPE_CHECKING:
    from looplens.store import StoredRun

_DIGITS = 16  # of a fingerprint: enough for any number of blocks


def computed(
    run: StoredRun,
    analyzers: Sequence[Analyzer],
    parameters: dict[str, Any],
    *,
    client: Any = None,
    tell: Tell | None = None,
) -> Iterator[tuple[Analyzer, xr.Dataset, dict[str, Any], Coverage]]:
    """Compute analyses in one pass, over the blocks that their stored results lack.

    Yields
    ------
    analyzer : Analyzer
        Each of them, in order.
    dataset : Dataset
        Its result, with attributes that say of which blocks it is.
    parameters : dict
        What it was computed with.
    coverage : Coverage
        Which tokens it could look at.
    """
    coverage = Coverage(run)
    hashes = block_hashes(run)
    jobs, plans, kept = [], {}, {}
    for analyzer in analyzers:
        taken = _taken(analyzer, parameters)
        source = Source(run=run, coverage=coverage)
        old, covered = _partial(run, analyzer, taken, hashes)
        plan = None
        if old is not None and analyzer.keep is not None:
            plan = analyzer.keep(source, old, **taken)
            old = None if plan is None else old
        if plan is None:
            plan = analyzer.plan(source, **taken)
        plans[analyzer.name] = plan
        todo = coverage.known
        if old is not None:
            kept[analyzer.name] = (old, covered)
            todo &= ~covered
        if analyzer.measure is not None:
            jobs.append(Job(analyzer=analyzer, plan=plan, todo=todo))
    found = measure_run(run, jobs, coverage, client=client, tell=tell)
    for analyzer in analyzers:
        arrays = found.pop(analyzer.name, {})
        if analyzer.name in kept:
            _take_over(arrays, *kept.pop(analyzer.name), analyzer.token_axis)
        source = Source(run=run, coverage=coverage.copy())
        dataset = analyzer.build(source, plans[analyzer.name], arrays)
        dataset.attrs |= _described(source.coverage, hashes, run)
        yield analyzer, dataset, _taken(analyzer, parameters), source.coverage


def current(run: StoredRun, analyzer: Analyzer) -> xr.Dataset | None:
    """Read the stored result, if it is of this version and of all that is recorded now.

    Blocks that it says it could not read count as looked at.
    """
    stored = _stored(run, analyzer)
    if stored is None:
        return None
    known = json.loads(stored.attrs.get("blocks", "{}"))
    unreadable = set(json.loads(stored.attrs.get("unreadable_blocks", "{}")))
    hashes = block_hashes(run)
    missing = [block for block, digest in hashes.items() if known.get(block) != digest]
    return None if set(missing) - unreadable else stored


def block_hashes(run: StoredRun) -> dict[str, str]:
    """Return fingerprints of the recorded blocks, by their numbers as text."""
    hashes = {}
    for block in sorted(run.committed):
        try:
            hashes[str(block)] = run.block_hash(block)[:_DIGITS]
        except CorruptRunError:  # its record is damaged: it may still be readable
            hashes[str(block)] = ""
    return hashes


def _taken(analyzer: Analyzer, parameters: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in parameters.items() if key in analyzer.parameters}


def _stored(run: StoredRun, analyzer: Analyzer) -> xr.Dataset | None:
    stored = run.analysis(analyzer.name)
    if stored is None or stored.attrs.get("input_hash") != run.input_hash():
        return None
    return stored if str(stored.attrs.get("version")) == str(analyzer.version) else None


def _partial(
    run: StoredRun, analyzer: Analyzer, taken: dict[str, Any], hashes: dict[str, str]
) -> tuple[xr.Dataset | None, NDArray[np.bool_]]:
    """Read a stored result that lacks some blocks, and which tokens it has."""
    covered = np.zeros(run.n_tokens, dtype=bool)
    if analyzer.measure is None or not hashes:
        return None, covered
    stored = _stored(run, analyzer)
    if stored is None or json.loads(stored.attrs.get("parameters", "{}")) != taken:
        return None, covered
    known = json.loads(stored.attrs.get("blocks", "{}"))
    same = [int(block) for block, digest in hashes.items() if digest and known.get(block) == digest]
    if not same or len(same) == len(hashes):
        return None, covered
    for block in same:
        covered[block * run.block_tokens : (block + 1) * run.block_tokens] = True
    return stored, covered


def _take_over(
    arrays: dict[str, np.ndarray], old: xr.Dataset, covered: NDArray[np.bool_], axis: int
) -> None:
    """Fill in the tokens that a stored result has."""
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
