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
from looplens.analysis import Comparison
from looplens.errors import InputError, near_matches
from looplens.plots._labels import number, percent
from looplens.reports import _compared
from looplens.reports._build import FORMATS, check_target, format_of, write_text
from looplens.reports._recorded import described, plural
from looplens.reports._report import Report, Statement


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
    made = (
        _compared.answers(comparison),
        _compared.words(comparison),
        _compared.groups(comparison),
        _compared.curves(comparison),
    )
    sections = [
        _compared.compared(comparison),
        _compared.differences(comparison),
        *(one for one in made if one),
    ]
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
        appendix=(_compared.all_statistics(comparison), _compared.all_summaries(comparison)),
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
                f"{_compared.interval(row)}).",
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
                    f"({_compared.interval(words, percent)}).",
                )
            )
    return tuple(found)


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
