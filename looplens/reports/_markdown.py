"""A report as Markdown: the words, numbers and tables, without the figures.

Text from the run (token texts, names) is escaped, so that it cannot become markup.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from looplens.reports._report import Report, Section, Table

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~])")
_BREAKS = re.compile("[ \t\r\n\x0b\x0c\x85\u2028\u2029]+")


def escape(text: str) -> str:
    """Escape what Markdown would read as markup, and put the text on one line."""
    return _SPECIAL.sub(r"\\\1", _BREAKS.sub(" ", text).strip())


def to_markdown(report: Report) -> str:
    """Return the report as Markdown.

    Parameters
    ----------
    report : Report
        A report.
    """
    lines = [f"# {escape(report.title)}", "", "## Verdict", ""]
    lines += [f"- {escape(statement.text)}" for statement in report.verdict]
    lines += ["", escape(report.verdict_note)]
    for section in report.sections:
        lines += _section(section)
    lines += ["", "## What could not be concluded, and why", ""]
    lines += [f"- {escape(statement.text)}" for statement in report.not_concluded]
    if not report.not_concluded:
        lines.append("Nothing was left open by what was recorded.")
    for section in report.appendix:
        lines += _section(section)
    return "\n".join(lines) + "\n"


def _section(section: Section) -> list[str]:
    lines = ["", f"## {escape(section.title)}", ""]
    for paragraph in section.text:
        lines += [escape(paragraph), ""]
    if section.facts:
        rows = [(fact.label, fact.value, fact.note) for fact in section.facts]
        lines += _rows(("", "", ""), rows)
    for table in section.tables:
        lines += _table(table)
    return lines


def _table(table: Table) -> list[str]:
    return [f"**{escape(table.caption)}**", "", *_rows(table.columns, table.rows)]


def _rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [_row(columns), "|" + " --- |" * len(columns)]
    return [*lines, *(_row(row) for row in rows), ""]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(escape(cell) for cell in cells) + " |"
