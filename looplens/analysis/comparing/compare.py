"""Compare two runs of the same prompts: every number per token, every word, every summary."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

import xarray as xr

from looplens.analysis.comparing import describing
from looplens.analysis.comparing.aligning import Alignment, align
from looplens.analysis.comparing.bootstrap import PairedBootstrap
from looplens.analysis.comparing.comparison import Agreement, Comparison, Curve, Difference
from looplens.analysis.comparing.differences import (
    agreement_of,
    curve_of,
    differences_of,
    same_best_token,
)
from looplens.analysis.comparing.summaries import PREDICTIONS, compare_summaries
from looplens.analysis.comparing.variables import predictions, shared_variables
from looplens.analysis.grouping import group_tokens
from looplens.analysis.registry import ANALYZERS
from looplens.analysis.running.coverage import covered_tokens
from looplens.errors import InputError, LoopLensError, near_matches

if TYPE_CHECKING:
    from looplens.store import StoredRun


def compare(
    run_a: StoredRun,
    run_b: StoredRun,
    names: str | Iterable[str] | None = None,
    *,
    by: str | None = None,
    most_tokens: int | None = None,
    summaries: bool = True,
    n_boot: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    r"""Compare two runs of the same prompts.

    For every variable of every analysis the mean over tokens of
    :math:`d_i = \bar x^B_i - \bar x^A_i`, where the bar is the mean over the restarts of token i;
    tokens at which either run does not know the value are left out of both means, and the share of
    known values is compared as a number of its own. Intervals are percentile bootstraps over
    prompts (`PairedBootstrap`).

    Parameters
    ----------
    run_a, run_b : StoredRun
        The runs: two models, two checkpoints, or two settings. Differences are b - a.
    names : str or iterable of str, optional
        Which analyses, ``"predictions"`` (the readout token by token) among them; by default all
        that both runs are expected to have.
    by : str or None
        Column of `run_a` to repeat the comparison in groups of tokens; see `group_tokens`.
    most_tokens : int or None
        Compare only so many of the shared prompts, evenly chosen, that they have about that many
        tokens, and read no others; all by default. The notes say so.
    summaries : bool
        Compare the numbers of the summaries as well, which takes most of the time.
    n_boot, level, seed : int, float, int
        Draws of prompts, share of them inside an interval, and seed.

    Returns
    -------
    Comparison
        Differences, curves, agreements of words and summaries.

    Raises
    ------
    InputError
        If the runs share no token, with the first difference; if there is no such analysis or
        column.

    Notes
    -----
    The runs need not have the same iterations, layers or restarts: what both have is compared.
    Prompts that only one of them has are left out, with a warning that counts them. Components of
    `pca` are not compared: an axis of one run means nothing in the other.
    """
    wanted = _wanted(names)
    opened = run_a, run_b
    run_a, run_b = _Remembering.of(run_a), _Remembering.of(run_b)
    shared_pairs = align(run_a, run_b)
    pairs = shared_pairs if most_tokens is None else shared_pairs.thinned(most_tokens)
    notes = describing.notes(run_a, run_b, pairs, shared_pairs)
    bootstrap = PairedBootstrap(len(pairs.prompts_a), n_boot=n_boot, level=level, seed=seed)
    groups = None if by is None else group_tokens(run_a, by)
    statistics: list[Difference] = []
    curves: list[Curve] = []
    agreements: list[Agreement] = []
    grouped: dict[str, list[Difference]] = {}
    skipped: dict[str, str] = {}
    results = _results(opened, pairs, wanted, names is not None, skipped)
    restarts_paired = _restarts_paired(run_a, run_b)
    for name, (found_a, found_b) in results.items():
        known = pairs.only(covered_tokens(found_a, run_a), covered_tokens(found_b, run_b))
        if not len(known.prompt):
            skipped[name] = "no token of it is known in both runs"
            continue
        rows = known.by_row() if name == PREDICTIONS else known  # it is of these tokens alone
        for shared in shared_variables(found_a, found_b, rows, skipped, name):
            if name == PREDICTIONS and shared.name == "best_token":
                same = same_best_token(name, shared, bootstrap, restarts_paired)
                curves.append(same[0])
                agreements.append(same[1])
                continue
            if shared.a.dtype.kind in "OU":
                agreement = agreement_of(name, shared, bootstrap, restarts_paired)
                if agreement is None:
                    skipped[f"{name}.{shared.name}"] = "it has too many different words"
                    continue
                agreements.append(agreement)
            elif shared.iteration is not None:
                curve = curve_of(name, shared, bootstrap)
                if curve is None:
                    continue
                curves.append(curve)
            statistics += differences_of(name, shared, bootstrap)
            if groups is not None and shared.tokens is not None:
                of_token = groups.number[known.tokens_a]
                for group, label in enumerate(groups.labels):
                    inside = of_token == group
                    if inside.any():
                        found = differences_of(name, shared, bootstrap, inside)
                        grouped.setdefault(label, []).extend(found)
    return Comparison(
        a=opened[0],
        b=opened[1],
        labels=describing.labels(run_a, run_b),
        n_prompts=len(pairs.prompts_a),
        n_tokens=len(pairs.tokens_a),
        n_boot=n_boot,
        level=level,
        seed=seed,
        settings=describing.settings(run_a, run_b),
        statistics=tuple(statistics),
        curves=tuple(curves),
        agreements=tuple(agreements),
        summaries=compare_summaries(run_a, run_b, results, pairs, bootstrap) if summaries else (),
        by=by,
        groups={label: tuple(rows) for label, rows in grouped.items()},
        notes=notes,
        skipped=skipped,
    )


class _Remembering:
    """A run that looks at its files once: every draw sums up some analyses again.

    It equals the run that it stands for, so that results in memory belong to both.
    """

    def __init__(self, run: StoredRun) -> None:
        self._run = run
        self._found: dict[str, xr.Dataset | None] = {}
        self.block_hash = functools.cache(run.block_hash)
        self.input_hash = functools.cache(run.input_hash)

    @classmethod
    def of(cls, run: StoredRun) -> StoredRun:
        return cast("StoredRun", cls(run))

    def __eq__(self, other: object) -> bool:
        return other is self or other is self._run

    def __hash__(self) -> int:
        return hash(self._run)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)

    def analysis(self, name: str) -> xr.Dataset | None:
        if name not in self._found:
            self._found[name] = self._run.analysis(name)
        return self._found[name]


def _wanted(names: str | Iterable[str] | None) -> list[str]:
    known = [*ANALYZERS, PREDICTIONS]
    if names is None:
        return known
    wanted = [names] if isinstance(names, str) else list(names)
    for name in wanted:
        if name not in known:
            raise InputError(
                f"Unknown analysis {name!r}; there are: {', '.join(known)}."
                f"{near_matches(name, known)}"
            )
    if "readout" in wanted:  # its numbers over the shared tokens are made from these
        wanted.append(PREDICTIONS)
    return [name for name in known if name in wanted]


def _results(
    runs: tuple[StoredRun, StoredRun],
    pairs: Alignment,
    wanted: list[str],
    asked: bool,
    skipped: dict[str, str],
) -> dict[str, tuple[xr.Dataset, xr.Dataset]]:
    """Return the analyses of both runs; why others are left out goes into `skipped`."""
    from looplens.analysis.suite import get

    run_a, run_b = runs
    results = {}
    for name in wanted:
        if name == PREDICTIONS:
            one, other = predictions(run_a, pairs.tokens_a), predictions(run_b, pairs.tokens_b)
            if one is not None and other is not None:
                results[name] = one, other
            continue
        analyzer = ANALYZERS[name]
        if not asked and not (analyzer.expected(run_a) and analyzer.expected(run_b)):
            continue
        try:
            results[name] = get(run_a, name), get(run_b, name)
        except LoopLensError as error:
            skipped[name] = str(error)
    if asked and not results:
        raise InputError("; ".join(skipped.values()) or "Both runs need a readout to compare it.")
    return results


def _restarts_paired(run_a: StoredRun, run_b: StoredRun) -> bool:
    """Whether restart 0 of one run started from the state of restart 0 of the other."""
    same = run_a.restart_seeds == run_b.restart_seeds and run_a.d_model == run_b.d_model
    return same and run_a.initial_state == run_b.initial_state
