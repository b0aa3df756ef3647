"""Every number and word that a run knows of its single tokens, by one name each.

They come from analyses, from the last readout, from the dynamics lab, and from the columns that
came with the prompts. Listing them reads no values of tokens; those are read in
:mod:`looplens.analysis.per_token.values`.
"""

from __future__ import annotations

import dataclasses
import threading
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import xarray as xr

from looplens.analysis.dynamics import TITLE, WORDS, dynamics_results
from looplens.analysis.measures.exits import EXIT_RULES
from looplens.analysis.per_token.known import (
    LAB,
    OF_ANALYSES,
    OF_READOUT,
    PROMPTS,
    TOKENS,
    TokenStatistic,
)
from looplens.analysis.registry import ANALYZERS
from looplens.errors import CorruptRunError

if TYPE_CHECKING:
    from looplens.store import StoredRun

# The gate's default is to stay to the end, which says nothing of a token.
_THRESHOLDS = {"gate": 0.5}
_LEFT_OUT = {"target", "first_token", "n_tokens", "token_ids"}

_LISTS: weakref.WeakKeyDictionary[Any, tuple[Any, dict[str, TokenStatistic]]] = (
    weakref.WeakKeyDictionary()
)
_LOCK = threading.Lock()


def token_statistics(run: StoredRun) -> dict[str, TokenStatistic]:
    """List what is known of the single tokens of a run, by name; the most asked for come first.

    Parameters
    ----------
    run : StoredRun
        The run.

    Returns
    -------
    dict of str to TokenStatistic
        Whatever the recording allows, and every other number or word of a token in a stored
        analysis under ``<analysis>.<variable>``. A column that came with the prompts has its own
        name, or ``tokens.<name>`` and ``prompts.<name>`` where that is taken.
    """
    names = run.analyses
    stored = {name: found for name in names if (found := _result(run, name)) is not None}
    stamp = (*names, *(str(result.attrs.get("created")) for result in stored.values()))
    with _LOCK:
        before = _LISTS.get(run)
    if before is not None and before[0] == stamp:
        return before[1]
    listed: dict[str, TokenStatistic] = {}
    for statistic in (
        *_known(run, stored),
        *_read_out(run),
        *_exits(run, stored),
        *_columns(run),
        *_others(stored),
        *_of_lab(run),
    ):
        # A column may have any name; everything else has one of its own.
        name = statistic.name
        if name in listed:
            name = f"{statistic.source}.{name}"
            statistic = _renamed(statistic, name)
        listed[name] = statistic
    with _LOCK:
        _LISTS[run] = stamp, listed
    return listed


def _renamed(statistic: TokenStatistic, name: str) -> TokenStatistic:
    return dataclasses.replace(
        statistic, name=name, title=f"{statistic.title} ({statistic.source})"
    )


def _result(run: StoredRun, name: str) -> xr.Dataset | None:
    """Return a stored analysis of the present version; others are as good as none."""
    if name not in ANALYZERS:
        return None
    try:
        result = run.analysis(name)
    except CorruptRunError:
        return None
    if result is None or str(result.attrs.get("version")) != str(ANALYZERS[name].version):
        return None
    return result


def _known(run: StoredRun, stored: dict[str, xr.Dataset]) -> Iterator[TokenStatistic]:
    """Those of analyses that are stored or possible, where the analysis has them in this run."""
    layers = "resid_post" in run.site_names
    for statistic in OF_ANALYSES:
        result = stored.get(statistic.source)
        if result is None:
            alone = run.restarts < 2 and statistic.variable in ("regime_agreement", "basin_count")
            possible = ANALYZERS[statistic.source].needs(run) is None and not alone
        else:
            possible = statistic.variable in result
        if possible:
            yield dataclasses.replace(
                statistic,
                layer_variable=statistic.layer_variable if layers else "",
                stored=result is not None,
            )


def _read_out(run: StoredRun) -> tuple[TokenStatistic, ...]:
    if not run.has_readout:
        return ()
    targets = bool((run.tokens["target"].values >= 0).any())
    return OF_READOUT if targets else OF_READOUT[:2]


def _exits(run: StoredRun, stored: dict[str, xr.Dataset]) -> Iterator[TokenStatistic]:
    result = stored.get("exits")
    if result is None:
        if ANALYZERS["exits"].needs(run) is not None:
            return
        possible = {"readout"} | ({"gate"} if run.has_exit_gate else set())
        possible |= set() if run.is_reduced else {"state"}
        policies = {
            (rule.name, _THRESHOLDS.get(rule.name, rule.threshold))
            for rule in EXIT_RULES.values()
            if rule.reads in possible
        }
    else:
        rules = map(str, result["rule"].values)
        policies = set(zip(rules, map(float, result["threshold"].values), strict=True))
    for rule in EXIT_RULES.values():
        threshold = float(_THRESHOLDS.get(rule.name, rule.threshold))
        if rule.name != "depth" and (rule.name, threshold) in policies:
            yield TokenStatistic(
                name=f"exit_{rule.name.replace('-', '_')}",
                title=f"Exit by {rule.title} ({threshold:g})",
                kind="number",
                meaning=f"iteration after which the rule {rule.name} leaves at {threshold:g}",
                units="iteration",
                source="exits",
                variable="exit_iteration",
                policy=(rule.name, threshold),
                stored=result is not None,
            )


def _columns(run: StoredRun) -> Iterator[TokenStatistic]:
    """Columns of the tokens, then of the prompts; a prompt's value holds for all of its tokens."""
    for source, table in ((TOKENS, run.tokens), (PROMPTS, run.prompts)):
        for column in table.data_vars:
            name = str(column)
            if name in _LEFT_OUT or (name, source) == ("text", PROMPTS):
                continue
            yield TokenStatistic(
                name=name,
                title=name.replace("_", " ").capitalize(),
                kind="number" if table[column].dtype.kind in "fiu" else "word",
                meaning=f"column {name} of the {source}",
                source=source,
                variable=name,
                by_restart=False,
            )


def _others(stored: dict[str, xr.Dataset]) -> Iterator[TokenStatistic]:
    """Whatever else an analysis says of a token in one number or word, at all or after a layer."""
    known = {(statistic.source, statistic.variable) for statistic in OF_ANALYSES}
    for source, result in stored.items():
        for variable, values in result.data_vars.items():
            name = str(variable)
            if "token" in values.dims and (source, name) not in known:
                rest = set(values.dims) - {"token", "restart"}
                if not rest:
                    yield _of_variable(f"{source}.{name}", source, values, ANALYZERS[source].title)


def _of_lab(run: StoredRun) -> Iterator[TokenStatistic]:
    for inner, result in dynamics_results(run).items():
        title = f"{TITLE}, {inner.replace('_', ' ')}"
        for variable, values in result.data_vars.items():
            if values.dims == ("token",) and values.dtype.kind in "fiubOUT":
                words = WORDS.get((inner, str(variable)), ())
                yield _of_variable(
                    f"{inner}.{variable}", f"{LAB}/{inner}", values, title, words=words
                )


def _of_variable(
    name: str, source: str, values: xr.DataArray, title: str, *, words: tuple[str, ...] = ()
) -> TokenStatistic:
    variable = str(values.name)
    return TokenStatistic(
        name=name,
        title=f"{variable.replace('_', ' ').capitalize()} ({title})",
        kind="number" if values.dtype.kind in "fiu" else "word",
        meaning=str(values.attrs.get("long_name", variable.replace("_", " "))),
        units=str(values.attrs.get("units", "")),
        source=source,
        variable=variable,
        words=words,
        by_restart="restart" in values.dims or source.startswith(LAB),
    )
