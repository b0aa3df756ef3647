"""Reports: one run as an HTML page, as JSON or as Markdown, and conditions that can fail a job.

A report says what was recorded, what the numbers say in words, shows the figures, and names what
could not be concluded and why.
"""

from __future__ import annotations

from looplens.analysis.measures.power import (
    chance_of_seeing,
    largest_rate_unseen,
    tokens_needed,
)
from looplens.reports import conditions
from looplens.reports._build import (
    FORMATS,
    build,
    check_target,
    format_of,
    write_report,
    write_text,
)
from looplens.reports._html import plotlyjs, template_environment
from looplens.reports._report import Fact, Picture, Report, Section, Statement, Table
from looplens.reports.comparing import build_comparison, write_comparison
from looplens.reports.conditions import Condition, Failure, check, parse_condition

__all__ = [
    "FORMATS",
    "Condition",
    "Fact",
    "Failure",
    "Picture",
    "Report",
    "Section",
    "Statement",
    "Table",
    "build",
    "build_comparison",
    "chance_of_seeing",
    "check",
    "check_target",
    "conditions",
    "format_of",
    "largest_rate_unseen",
    "parse_condition",
    "plotlyjs",
    "template_environment",
    "tokens_needed",
    "write_comparison",
    "write_report",
    "write_text",
]
