"""The sections of a report on two runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from looplens import plots
from looplens.analysis import Comparison
from looplens.plots._labels import number, percent
from looplens.reports._recorded import described
from looplens.reports._report import Fact, Picture, Section, Table

_CURVES = ("predictions.correct", "predictions.same_best_token", "convergence.relative_step")
_IN_GROUPS = (
    "convergence.settling_iteration",
    "classify.regime.fixed_point",
    "path_independence.token_aa",
    "predictions.correct.last",
    "readout.prediction_settling",
)
_COLUMNS = ("a", "b", "difference", "interval", "n")


def interval(row: Any, write: Any = number) -> str:
    """Write an interval; a dash where there is none."""
    if not math.isfinite(row.low):
        return "–"
    return f"{write(row.low)} to {write(row.high)}"


def compared(comparison: Comparison) -> Section:
    """Return the section on what is compared."""
    a, b = comparison.labels
    return Section(
        key="compared",
        title="What is compared",
        text=(
            "Tokens are the same when their ids, texts and positions in the same prompt are. A "
            "number of a token is its mean over restarts.",
        ),
        facts=(
            Fact(label="Prompts in both", value=str(comparison.n_prompts)),
            Fact(label="Tokens in both", value=str(comparison.n_tokens)),
            Fact(label="a", value=a, note=described(comparison.a)),
            Fact(label="b", value=b, note=described(comparison.b)),
        ),
        tables=(
            Table(
                caption="What the recordings differ in",
                columns=("", "a", "b"),
                rows=comparison.settings or (("nothing that a recording says of itself", "", ""),),
            ),
        ),
    )


def _row(row: Any) -> tuple[str, ...]:
    counted = str(row.tokens) if row.tokens else ""
    return (
        row.key,
        number(row.a),
        number(row.b),
        number(row.difference),
        interval(row),
        counted,
    )


def _by_analysis(rows: Sequence[Any], columns: tuple[str, ...]) -> tuple[Table, ...]:
    """Return a table an analysis, with the first cells of its rows that there are columns for."""
    return tuple(
        Table(
            caption=analysis,
            columns=columns,
            rows=tuple(
                (row.name, *_row(row)[1 : len(columns)]) for row in rows if row.analysis == analysis
            ),
        )
        for analysis in dict.fromkeys(row.analysis for row in rows)
    )


def differences(comparison: Comparison) -> Section:
    """Return the section on the largest differences."""
    return Section(
        key="differences",
        title="The largest differences",
        text=(
            "Chosen by their size in standard deviations of the tokens of both runs, so the "
            "largest of many are partly large by chance: trust one that you asked about before "
            "looking. What rounding hides is left out.",
        ),
        tables=(
            Table(
                caption="Means over n tokens, or prompts",
                columns=("statistic", *_COLUMNS),
                rows=tuple(_row(row) for row in comparison.largest(12)),
            ),
        ),
        pictures=(
            Picture(
                name="compare-forest",
                figure=plots.compare_forest(comparison),
                caption="A diamond right of 0 is larger in b. Point at it for the numbers.",
            ),
        ),
    )


def answers(comparison: Comparison) -> Section | None:
    """Return accuracy, log-probability and accuracy per cost at the last shared iteration."""
    rows: list[Any] = [
        comparison[key]
        for key in (
            "predictions.correct.last",
            "predictions.target_logprob.last",
            "predictions.correct_per_gflop.last",
            "predictions.entropy.last",
        )
        if key in comparison
    ]
    if not rows:
        return None
    return Section(
        key="answers",
        title="Answers and their cost",
        tables=(
            Table(
                caption="At the last shared iteration",
                columns=("", *_COLUMNS),
                rows=tuple(
                    (f"{row.title}{f' ({row.units})' if row.units else ''}", *_row(row)[1:])
                    for row in rows
                ),
            ),
        ),
    )


def words(comparison: Comparison) -> Section | None:
    """Return the section on regimes and other words; None without any."""
    tables = [one for one in comparison.agreements if one.levels]
    if not comparison.agreements:
        return None
    return Section(
        key="words",
        title="Regimes and other words",
        text=(
            "Restarts are compared one with one where both runs drew the same initial states, and "
            "each with each otherwise.",
        ),
        tables=(
            Table(
                caption="The same word in both runs",
                columns=("variable", "share", "interval"),
                rows=tuple(
                    (one.key, percent(one.share), interval(one, percent))
                    for one in comparison.agreements
                ),
            ),
        ),
        pictures=tuple(
            Picture(
                name="compare-regimes",
                figure=plots.compare_words(comparison, one.key),
                caption="Rows are a, columns b: what lies off the diagonal changed.",
            )
            for one in tables
            if one.key == "classify.regime"
        ),
    )


def groups(comparison: Comparison) -> Section | None:
    """Return the section on groups of tokens; None without any."""
    tables = []
    for key in _IN_GROUPS:
        rows = [
            (label, *_row(row)[1:])
            for label, of_group in comparison.groups.items()
            for row in of_group
            if row.key == key
        ]
        if rows:
            tables.append(
                Table(
                    caption=key,
                    columns=(str(comparison.by), *_COLUMNS),
                    rows=tuple(rows),
                )
            )
    if not tables:
        return None
    return Section(
        key="by_group",
        title=f"By {comparison.by}",
        text=("Every other statistic in these groups is in the JSON report.",),
        tables=tuple(tables),
    )


def curves(comparison: Comparison) -> Section | None:
    """Return the section on numbers by iteration; None without any."""
    there = [one.key for one in comparison.curves]
    pictures = tuple(
        Picture(
            name=f"compare-{key.replace('.', '-')}",
            figure=plots.compare_curve(comparison, key),
            caption="Mean over the shared tokens. The band is the interval of one iteration, not "
            "of the whole curve.",
        )
        for key in _CURVES
        if key in there
    )
    return Section(key="curves", title="By iteration", pictures=pictures) if pictures else None


def all_statistics(comparison: Comparison) -> Section:
    """Return the section on every mean over tokens."""
    return Section(
        key="statistics",
        title="All means over tokens",
        tables=_by_analysis(comparison.statistics, ("statistic", *_COLUMNS)),
    )


def all_summaries(comparison: Comparison) -> Section:
    """Return the section on every number of the summaries."""
    return Section(
        key="summaries",
        title="All summaries",
        text=(
            "The numbers of the reports of either run. One with an interval is over the shared "
            "tokens or prompts; one without is of the whole run, or no choice of prompts changes "
            "it. A condition names them, such as --fail-if 'classify.orbit_share.difference > "
            "0.1'; means over tokens are tokens.<analysis>.<statistic>.difference.",
        ),
        tables=_by_analysis(comparison.summaries, ("name", *_COLUMNS[:-1])),
    )
