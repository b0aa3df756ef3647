"""What a report is made of: sections with sentences, numbers, tables and figures.

These classes hold finished words and pictures. They do not know how a page looks (see ``_html`` and
``_markdown``) nor where the numbers come from (see ``_build``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from looplens.plots import Figure


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """One number with its name, and a note on how to read it."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A small table of finished text."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A figure with a name that is unique in the report, and what to look for in it."""

    name: str
    figure: Figure
    caption: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Statement:
    """A sentence with a stable key, so that a program can find it again."""

    key: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One section of a report."""

    key: str
    title: str
    text: tuple[str, ...] = ()
    facts: tuple[Fact, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """A report on one run.

    Attributes
    ----------
    title : str
        Name of the model and of the run.
    metadata : mapping
        What was recorded, as plain values.
    verdict : tuple of Statement
        The answer in words, computed from the numbers.
    sections : tuple of Section
        Numbers and figures.
    not_concluded : tuple of Statement
        What the run does not allow to say, and why.
    summary : mapping
        ``{analysis: {name: value}}``, the numbers that conditions are checked against.
    verdict_note : str
        How the words of the verdict are chosen.
    appendix : tuple of Section
        What comes after everything else.
    """

    title: str
    metadata: Mapping[str, Any]
    verdict: tuple[Statement, ...]
    sections: tuple[Section, ...]
    not_concluded: tuple[Statement, ...]
    summary: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    verdict_note: str = ""
    appendix: tuple[Section, ...] = ()

    def section(self, key: str) -> Section | None:
        """Return a section by key, or None when the report has none such."""
        return next((section for section in self.sections if section.key == key), None)

    def to_html(self) -> str:
        """Return one self-contained HTML page; it loads nothing from anywhere."""
        from looplens.reports._html import to_html

        return to_html(self)

    def to_markdown(self) -> str:
        """Return the report as Markdown, without the figures."""
        from looplens.reports._markdown import to_markdown

        return to_markdown(self)

    def to_json(self) -> str:
        """Return the numbers as JSON with stable keys; what is missing is ``null``."""
        from looplens.reports._json import to_json

        return to_json(self)
