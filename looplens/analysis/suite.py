"""Running the analyses over a run: compute and store, fetch, sum up.

Which analyses there are is in `looplens.analysis.registry`; what they compute is in their own
files.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import xarray as xr

from looplens.analysis.analyzers._analyzer import Analyzer, Summary
from looplens.analysis.registry import ANALYZERS
from looplens.errors import AnalysisError, InputError, near_matches

if TYPE_CHECKING:
    from looplens.store import StoredRun

Progress = Callable[[str, int, int], None]

# Results that are not stored in their run, for as long as that run is open in this process.
_MEMORY: weakref.WeakKeyDictionary[Any, dict[str, xr.Dataset]] = weakref.WeakKeyDictionary()


class Results(dict[str, xr.Dataset]):
    """Datasets by name of analysis; `skipped` says why others were left out.

    Attributes
    ----------
    skipped : dict of str to str
        Reason by name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.skipped: dict[str, str] = {}


def analyze(
    run: StoredRun,
    names: str | Iterable[str] | None = None,
    *,
    progress: bool | Progress | None = None,
    missing_only: bool = False,
    **parameters: Any,
) -> Results:
    """Compute analyses and store them in the run.

    Parameters
    ----------
    run : StoredRun
        The run.
    names : str or iterable of str, optional
        Which analyses; by default all that the run holds the data for.
    progress : bool or callable, optional
        True shows a progress bar; a callable gets ``(name, done, total)`` before each analysis.
    missing_only : bool
        Leave analyses alone whose stored results are current.
    **parameters
        Given to each analysis that takes a parameter of that name, such as ``tolerance=1e-3``.

    Returns
    -------
    Results
        Datasets by name; its `skipped` says why others were left out.

    Raises
    ------
    InputError
        For an unknown analysis, or a parameter that none of the analyses takes.
    AnalysisError
        If an analysis was asked for by name that the run does not hold the data for.
    """
    chosen = _chosen(names)
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
    for analyzer, tell in _with_progress(possible, progress):
        tell()
        stored = _stored(run, analyzer) if missing_only else None
        if stored is None:
            taken = {key: value for key, value in parameters.items() if key in analyzer.parameters}
            computed = analyzer.compute(run, **taken)
            run.write_analysis(analyzer.name, computed, version=analyzer.version, parameters=taken)
            _MEMORY.get(run, {}).pop(analyzer.name, None)
            stored = computed
        results[analyzer.name] = stored
    return results


def get(run: StoredRun, name: str) -> xr.Dataset:
    """Return one analysis: the stored one while it is current, else computed now and not stored.

    Raises
    ------
    InputError
        For an unknown analysis.
    AnalysisError
        If the run does not hold the data for it.
    """
    (analyzer,) = _chosen(name)
    stored = _stored(run, analyzer)
    if stored is not None:
        return stored
    memory = _MEMORY.setdefault(run, {})
    if name not in memory:
        reason = analyzer.needs(run)
        if reason is not None:
            raise AnalysisError(f"The analysis {name!r} is not possible. {reason}")
        memory[name] = analyzer.compute(run)
    return memory[name]


def summary(run: StoredRun) -> dict[str, Summary]:
    """Return a few numbers of each analysis that the run holds the data for.

    Returns
    -------
    dict
        ``{analysis: {name: value}}``. Each value comes from the variable that the docstring of the
        analysis' `summarize` names; ``settling_by_<column>`` is a small table of its own.
    """
    return {
        name: analyzer.summarize(get(run, name), run)
        for name, analyzer in ANALYZERS.items()
        if analyzer.needs(run) is None
    }


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


def _stored(run: StoredRun, analyzer: Analyzer) -> xr.Dataset | None:
    """Read the stored result, if it was computed from this recording by this version."""
    stored = run.analysis(analyzer.name)
    if stored is None:
        return None
    current = stored.attrs.get("input_hash") == run.input_hash() and str(
        stored.attrs.get("version")
    ) == str(analyzer.version)
    return stored if current else None


def _with_progress(
    analyzers: list[Analyzer], progress: bool | Progress | None
) -> Iterable[tuple[Analyzer, Callable[[], None]]]:
    if progress is True:
        from rich.console import Console
        from rich.progress import track

        # On standard error: what a command prints may be piped into something.
        console = Console(stderr=True)
        for analyzer in track(analyzers, "analysing", transient=True, console=console):
            yield analyzer, lambda: None
        return
    total = len(analyzers)
    for index, analyzer in enumerate(analyzers):
        if callable(progress):
            yield analyzer, _told(progress, analyzer.name, index, total)
        else:
            yield analyzer, lambda: None


def _told(progress: Progress, name: str, done: int, total: int) -> Callable[[], None]:
    return lambda: progress(name, done, total)
