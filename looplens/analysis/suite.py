"""Running the analyses over a run: compute and store, fetch, sum up.

Which analyses there are is in `looplens.analysis.registry`; what they compute is in their own
files.
"""

from __future__ import annotations

import contextlib
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from looplens.analysis.analyzers._analyzer import Analyzer, Summary
from looplens.analysis.dynamics import DYNAMICS, dynamics_summary
from looplens.analysis.registry import ANALYZERS
from looplens.analysis.running.coverage import unreadable_blocks
from looplens.analysis.running.engine import Tell
from looplens.analysis.running.incremental import computed, current
from looplens.errors import AnalysisError, InputError, near_matches

if TYPE_CHECKING:
    from looplens.store import StoredRun

Progress = Callable[[int, int], None]

MOST_AT_ONCE = 2**28
"""Bytes of states from which a viewer lets an analysis be computed while someone waits."""

# Results that are not stored in their run, for as long as that run is open in this process.
_MEMORY: weakref.WeakKeyDictionary[Any, dict[str, xr.Dataset]] = weakref.WeakKeyDictionary()


class Results(dict[str, xr.Dataset]):
    """Datasets by name of analysis; `skipped` says why others were left out.

    Attributes
    ----------
    skipped : dict of str to str
        Reason by name.
    failed : dict of str to str
        Reason by name, of those of the skipped ones of which nothing could be read.
    unreadable : dict of int to str
        What is wrong with blocks that could not be read, by their numbers.
    not_recorded : int
        Tokens that are not recorded yet.
    """

    def __init__(self) -> None:
        super().__init__()
        self.skipped: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self.unreadable: dict[int, str] = {}
        self.not_recorded = 0


def analyze(
    run: StoredRun,
    names: str | Iterable[str] | None = None,
    *,
    progress: bool | Progress | None = None,
    missing_only: bool = False,
    client: Any = None,
    **parameters: Any,
) -> Results:
    """Compute analyses and store them in the run.

    Parameters
    ----------
    run : StoredRun
        The run.
    names : str or iterable of str, optional
        Which analyses; by default all standard ones that the run holds the data for, and those that
        are stored in it already. ``"all"`` takes the costly ones too.
    progress : bool or callable, optional
        True shows a progress bar; a callable gets ``(done, total)``: parts of the run that were
        read, all analyses together.
    missing_only : bool
        Leave analyses alone whose stored results are current and have the parameters that are
        given, and complete the others with the parameters that they have. Blocks that could not be
        read are tried again.
    client : distributed.Client, optional
        Spread the blocks over the workers of this cluster, which must see the path of the run.
    **parameters
        Given to each analysis that takes a parameter of that name, such as ``tolerance=1e-3``.

    Returns
    -------
    Results
        Datasets by name; its `skipped` says why others were left out. Tokens that are not recorded
        yet, or whose block cannot be read, are NaN (``unresolved``) and counted there.

    Raises
    ------
    InputError
        For an unknown analysis, or a parameter that none of the analyses takes.
    AnalysisError
        If an analysis was asked for by name that the run does not hold the data for, or of which
        no token can be read; or if that holds for all of them.

    Notes
    -----
    All analyses look at a block together, which is read once. Where the stored result of an
    analysis lacks only some blocks, because the run has grown since, those alone are computed; the
    components of `pca` are kept if they were fitted to a full sample, and fitted again otherwise.
    A damaged file takes its tokens from those analyses only that read it.
    """
    everything = names == "all"
    names = None if everything else names
    chosen = _chosen(names)
    if names is None and not everything:
        chosen = [analyzer for analyzer in chosen if analyzer.expected(run)]
    _check_parameters(chosen, parameters)
    results = Results()
    possible = []
    for analyzer in chosen:
        reason = analyzer.needs(run)
        if reason is None:
            possible.append(analyzer)
        elif names is not None:
            raise AnalysisError(f"The analysis {analyzer.name!r} is not possible. {reason}")
        else:
            results.skipped[analyzer.name] = reason
    found: dict[str, xr.Dataset] = {}
    errors: dict[str, AnalysisError] = {}
    tried: dict[str, str] = {}  # of results that lack unreadable blocks: the blocks that they have
    for analyzer in possible if missing_only else ():
        stored = current(run, analyzer, parameters)
        if stored is not None and unreadable_blocks(stored):
            tried[analyzer.name] = stored.attrs["blocks"]
        elif stored is not None:
            found[analyzer.name] = stored
    todo = [analyzer for analyzer in possible if analyzer.name not in found]
    with _telling(progress) as tell:
        for outcome in computed(
            run, todo, parameters, complete=missing_only, client=client, tell=tell
        ):
            analyzer, dataset = outcome.analyzer, outcome.result
            if isinstance(dataset, AnalysisError):
                errors[analyzer.name] = dataset
                continue
            found[analyzer.name] = dataset
            _MEMORY.get(run, {}).pop(analyzer.name, None)
            # A second try without success leaves the run as it is: it may be read-only.
            if tried.get(analyzer.name) != dataset.attrs["blocks"]:
                run.write_analysis(
                    analyzer.name, dataset, version=analyzer.version, parameters=outcome.parameters
                )
    if errors and (names is not None or not found):
        raise next(iter(errors.values()))
    results.failed = {name: str(error) for name, error in errors.items()}
    results.skipped |= results.failed
    if results.failed:
        warnings.warn(
            f"These analyses could not be made: {', '.join(results.failed)}. "
            f"{next(iter(results.failed.values()))}",
            stacklevel=2,
        )
    for analyzer in possible:
        if analyzer.name in found:
            dataset = results[analyzer.name] = found[analyzer.name]
            results.unreadable = unreadable_blocks(dataset) | results.unreadable
            results.not_recorded = int(dataset.attrs.get("tokens_not_recorded", 0))
    _warn(run, results.unreadable)
    return results


def _warn(run: StoredRun, unreadable: dict[int, str]) -> None:
    """Say that blocks are missing from analyses; the caller's caller is who has to know."""
    if unreadable:
        block, problem = next(iter(unreadable.items()))
        warnings.warn(
            f"{len(unreadable)} of {len(run.committed)} blocks of {run.path} could not be read and "
            f"are left out of the analyses that need them; block {block}: {problem}",
            stacklevel=3,
        )


def get(run: StoredRun, name: str) -> xr.Dataset:
    """Return one analysis: the stored one while it is current, else computed now and not stored.

    A stored one that lacks some blocks is completed with the parameters that it has. Blocks that
    could not be read are warned of.

    Raises
    ------
    InputError
        For an unknown analysis.
    AnalysisError
        If the run does not hold the data for it, or no token can be read; or if the run was opened
        with ``lazy=True`` and it would have to be computed from more than `MOST_AT_ONCE`.
    """
    (analyzer,) = _chosen(name)
    found = current(run, analyzer)
    if found is None:
        memory = _MEMORY.setdefault(run, {})
        if name not in memory:
            reason = analyzer.needs(run)
            if reason is not None:
                raise AnalysisError(f"The analysis {name!r} is not possible. {reason}")
            _check_quick(run, analyzer)
            (outcome,) = computed(run, [analyzer], {}, complete=True)
            if isinstance(outcome.result, AnalysisError):
                raise outcome.result
            memory[name] = outcome.result
        found = memory[name]
    _warn(run, unreadable_blocks(found))
    return found


def _check_quick(run: StoredRun, analyzer: Analyzer) -> None:
    """Raise AnalysisError where someone would wait at a viewer for all states to be read."""
    if not run.lazy or analyzer.measure is None:
        return
    sources = 1 + ("resid_post" in run.site_names) * len(run.recorded_layers)
    numbers = run.restarts * run.n_tokens * len(run.kept_iterations) * run.width * sources
    size = numbers * np.dtype(run.store_dtype).itemsize
    if size > MOST_AT_ONCE:
        raise AnalysisError(
            f"The analysis {analyzer.name!r} is not stored in this run, or not of all of it, and "
            f"it reads {size / 2**30:.1f} GiB of states: too much to wait for. Make it with "
            f"`looplens analyze {run.path} --only {analyzer.name}`."
        )


def summary(run: StoredRun) -> dict[str, Summary]:
    """Return a few numbers of each analysis that the run holds the data for.

    Returns
    -------
    dict
        ``{analysis: {name: value}}``. Each value comes from the variable that the docstring of the
        analysis' `summarize` names; ``settling_by_<column>`` is a small table of its own. Where the
        dynamics lab stored results, ``dynamics`` has a table of each.
    """
    found = {}
    for name, analyzer in ANALYZERS.items():
        if analyzer.expected(run) and analyzer.needs(run) is None:
            with contextlib.suppress(AnalysisError):  # no token of it can be read
                found[name] = analyzer.summary(get(run, name), run)
    if of_lab := dynamics_summary(run):
        found[DYNAMICS] = of_lab
    return found


def _chosen(names: str | Iterable[str] | None) -> list[Analyzer]:
    if names is None:
        return list(ANALYZERS.values())
    wanted = [names] if isinstance(names, str) else list(names)
    for name in wanted:
        if name not in ANALYZERS:
            raise InputError(
                f"Unknown analysis {name!r}; there are: {', '.join(ANALYZERS)}."
                f"{near_matches(name, ANALYZERS)}"
            )
    return [analyzer for name, analyzer in ANALYZERS.items() if name in wanted]


def _check_parameters(chosen: list[Analyzer], parameters: dict[str, Any]) -> None:
    known = {key for analyzer in chosen for key in analyzer.parameters}
    for key in parameters:
        if key not in known:
            raise InputError(
                f"No parameter {key!r} in {', '.join(analyzer.name for analyzer in chosen)}."
                f"{near_matches(key, known)}"
            )


@contextlib.contextmanager
def _telling(progress: bool | Progress | None) -> Iterator[Tell | None]:
    """Give a function to tell of progress to: a bar, the caller's own, or none."""
    if progress is True:
        from rich.console import Console
        from rich.progress import Progress as Bar

        # On standard error: what a command prints may be piped into something.
        with Bar(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("analysing", total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
    else:
        yield progress if callable(progress) else None
