"""The appendix with all numbers of the summary, under the names that conditions use."""

from __future__ import annotations

from looplens.plots._labels import number
from looplens.reports._material import Material
from looplens.reports._report import Section, Table
from looplens.reports.conditions import flatten


def numbers(material: Material) -> Section:
    """Return the table of all numbers, under the names that conditions use."""
    rows = tuple(
        (name, value if isinstance(value, str) else number(value, digits=5))
        for name, value in flatten(material.summary).items()
    )
    return Section(
        key="numbers",
        title="All numbers",
        text=(
            "The names are those that a condition can use, such as --fail-if "
            "'classify.orbit_share > 0.1'.",
        ),
        tables=(Table(caption="Summary", columns=("name", "value"), rows=rows),),
    )
