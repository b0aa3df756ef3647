"""The appendix with all numbers of the summary, under the names that conditions use."""

from __future__ import annotations

from looplens.analysis import ANALYZERS
from looplens.analysis.dynamics import TITLE
from looplens.plots._labels import number
from looplens.reports._material import Material
from looplens.reports._report import Section, Table
from looplens.reports.conditions import flatten


def numbers(material: Material) -> Section:
    """Return tables of all numbers, one an analysis, under the names that conditions use."""
    tables = []
    for name, values in material.summary.items():
        rows = tuple(
            (key, value if isinstance(value, str) else number(value, digits=5))
            for key, value in flatten({name: values}).items()
        )
        title = ANALYZERS[name].title if name in ANALYZERS else TITLE
        tables.append(Table(caption=title, columns=("name", "value"), rows=rows))
    return Section(
        key="numbers",
        title="All numbers",
        text=(
            "The names are those that a condition can use, such as --fail-if "
            "'classify.orbit_share > 0.1'.",
        ),
        tables=tuple(tables),
    )
