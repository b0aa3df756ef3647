"""A report on two runs of the same prompts.

Sentences, tables and figures are made from a :class:`looplens.analysis.Comparison`; differences are
always those of b less a.
"""

from __future__ import annotations

import datetime
import math
import os
from pathlib import Path
from typing import Any

import looplens
from looplens import plots
from looplens.analysis import Comparison
from looplens.errors import InputError, near_matches
from looplens.plots._compare import largest
from looplens.plots._labels import number, percent
from looplens.reports._build import FORMATS, check_target, format_of, write_text
from looplens.reports._recorded import described, plural
from looplens.reports._report import Fact, Picture, Report, Section, Statement, Table

_CURVES = ("predictions.correct", "predictions.same_best_token", "convergence.relative_step")
_IN_GROUPS = (
    "convergence.settling_iteration",
    "classify.regime.fixed_point",
    "path_independence.token_aa",
    "predictions.correct.last",
    "readout.prediction_settling",
)
_COLUMNS = ("a", "b", "difference", "interval", "tokens")


def build_comparison(comparison: Comparison) -> Report:
    """Build a report on two runs.

    Parameters
    ----------
    comparison : looplens.analysis.Comparison
        Result of `looplens.analysis.compare`.

    Returns
    -------
    Report
        Its `summary` holds ``comparison.numbers()``.
    """
    a, b = comparison.labels
    made = (_answers(comparison), _words(comparison), _groups(comparison), _curves(comparison))
    sections = [_compared(comparison), _differences(comparison), *(one for one in made if one)]
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    return Report(
        title=f"{a} and {b} compared",
        metadata={
            "described": f"a: {a} · b: {b} · {plural(comparison.n_prompts, 'prompt')} · "
            f"{plural(comparison.n_tokens, 'token')} in both",
            "report_created": now.isoformat(),
            "report_looplens_version": looplens.__version__,
            "a": _side(comparison.a),
            "b": _side(comparison.b),
            "n_boot": comparison.n_boot,
            "level": comparison.level,
            "seed": comparison.seed,
            "by": comparison.by,
        },
        verdict=_verdict(comparison),
        sections=tuple(sections),
        not_concluded=_open(comparison),
        summary=comparison.numbers(),
        verdict_note=f"Differences are b − a, intervals {percent(comparison.level)}, from "
        f"{comparison.n_boot} draws of whole prompts, the same ones in both runs.",
        appendix=(_all_statistics(comparison), _all_summaries(comparison)),
    )


def write_comparison(
    comparison: Comparison, out: str | os.PathLike[str], format: str | None = None
) -> Path:
    """Write the report on two runs to a file.

    Parameters
    ----------
    comparison : looplens.analysis.Comparison
        Result of `looplens.analysis.compare`.
    out : str or path
        The file; an existing one is replaced.
    format : {"html", "json", "md"}, optional
        By default from the ending of ``out``.

    Raises
    ------
    InputError
        If there is no such format, or the file cannot be written or lies inside a run.
    """
    path = check_target(comparison.a, out)
    check_target(comparison.b, out)
    format = format_of(out) if format is None else format
    if format not in FORMATS:
        raise InputError(
            f"format must be one of {', '.join(map(repr, FORMATS))}, got {format!r}."
            f"{near_matches(format, FORMATS)}"
        )
    write_text(path, FORMATS[format](build_comparison(comparison)))
    return path


def _side(run: Any) -> dict[str, Any]:
    return {"name": run.name, "model": run.model_name, "described": described(run)}


def _interval(row: Any, write: Any = number) -> str:
    if not math.isfinite(row.low):
        return "–"
    return f"{write(row.low)} to {write(row.high)}"


def _verdict(comparison: Comparison) -> tuple[Statement, ...]:
    found = []
    judged = [row for row in comparison.statistics if math.isfinite(row.low)]
    clear = [row for row in judged if row.clear]
    if all(row.difference == 0 for row in comparison.statistics):
        text = "No statistic of any token differs between the runs."
    else:
        text = (
            f"{len(clear)} of {len(judged)} differences have an interval that leaves out 0; about "
            f"{percent(1 - comparison.level)} would by chance if nothing differed."
        )
    found.append(Statement(key="differences", text=text))
    if "predictions.correct.last" in comparison:
        row: Any = comparison["predictions.correct.last"]
        found.append(
            Statement(
                key="accuracy",
                text=f"At the last shared iteration {percent(row.a)} of the predictions of a and "
                f"{percent(row.b)} of b are right (difference {number(row.difference)}, "
                f"{_interval(row)}).",
            )
        )
    words: Any
    for key, of in (
        ("classify.regime", "trajectories are in the same regime"),
        ("predictions.best_token", "predictions at the last shared iteration are the same"),
    ):
        if key in comparison:
            words = next(one for one in comparison.agreements if one.key == key)
            found.append(
                Statement(
                    key=key.replace(".", "_"),
                    text=f"{percent(words.share)} of the {of} in both runs "
                    f"({_interval(words, percent)}).",
                )
            )
    return tuple(found)


def _compared(comparison: Comparison) -> Section:
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
        _interval(row),
        counted,
    )


def _differences(comparison: Comparison) -> Section:
    return Section(
        key="differences",
        title="The largest differences",
        text=(
            "Chosen by their size in standard deviations over tokens, so the largest of many are "
            "partly large by chance: trust one that you asked about before looking.",
        ),
        tables=(
            Table(
                caption="Means over tokens",
                columns=("statistic", *_COLUMNS),
                rows=tuple(_row(row) for row in largest(comparison, 12)),
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


def _answers(comparison: Comparison) -> Section | None:
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


def _words(comparison: Comparison) -> Section | None:
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
                    (one.key, percent(one.share), _interval(one, percent))
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


def _groups(comparison: Comparison) -> Section | None:
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


def _curves(comparison: Comparison) -> Section | None:
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


def _open(comparison: Comparison) -> tuple[Statement, ...]:
    found = [
        Statement(key=f"note_{place}", text=text) for place, text in enumerate(comparison.notes)
    ]
    whole = {key: why for key, why in comparison.skipped.items() if "." not in key}
    found += [
        Statement(key=f"skipped_{key}", text=f"{key} is not compared: {why}")
        for key, why in whole.items()
    ]
    parts = [key for key in comparison.skipped if "." in key]
    if parts:
        found.append(
            Statement(
                key="skipped_variables",
                text=f"{plural(len(parts), 'variable')} cannot be matched token by token: "
                f"{', '.join(parts)}.",
            )
        )
    return tuple(found)


def _all_statistics(comparison: Comparison) -> Section:
    return Section(
        key="statistics",
        title="All means over tokens",
        tables=tuple(
            Table(
                caption=analysis,
                columns=("statistic", *_COLUMNS),
                rows=tuple(
                    (row.name, *_row(row)[1:])
                    for row in comparison.statistics
                    if row.analysis == analysis
                ),
            )
            for analysis in dict.fromkeys(row.analysis for row in comparison.statistics)
        ),
    )


def _all_summaries(comparison: Comparison) -> Section:
    return Section(
        key="summaries",
        title="All summaries",
        text=(
            "The numbers of the reports of either run, over the shared tokens. A condition names "
            "them, such as --fail-if 'classify.orbit_share.difference > 0.1'; means over tokens "
            "are tokens.<analysis>.<statistic>.difference.",
        ),
        tables=tuple(
            Table(
                caption=analysis,
                columns=("name", *_COLUMNS[:-1]),
                rows=tuple(
                    (row.name, *_row(row)[1:-1])
                    for row in comparison.summaries
                    if row.analysis == analysis
                ),
            )
            for analysis in dict.fromkeys(row.analysis for row in comparison.summaries)
        ),
    )
