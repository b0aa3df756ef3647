"""A report as one HTML page that loads nothing: styles, plotly.js and figures are all inside it.

The page is a Jinja template shipped with the package. Everything that comes from a run is escaped;
only figures and plotly.js, which plotly makes safe itself, go in as they are.
"""

from __future__ import annotations

import importlib.resources
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from looplens.plots import Figure
from looplens.reports._report import Report, Section

# Headings of the list of contents; sections that are in none come last.
_PARTS = {
    "How it settles": (
        "convergence",
        "regimes",
        "geometry",
        "path_independence",
        "basins",
        "input_dependence",
    ),
    "What it answers": ("readout", "exits", "lens", "groups"),
    "Inside the loop": ("cycle", "similarity", "attention", "attention_bound", "stages"),
}
_UPLOAD_ADDRESS = "https://cloud.plotly.com/newchart"


def to_html(report: Report) -> str:
    """Return a report as HTML.

    Parameters
    ----------
    report : Report
        A report.

    Returns
    -------
    str
        A whole page with plotly.js inside it once.
    """
    metadata = report.metadata
    return (
        template_environment("looplens.reports")
        .get_template("report.html.j2")
        .render(
            report=report,
            contents=contents(report),
            subtitle=metadata["described"],
            footer=f"Made by looplens {metadata['report_looplens_version']} "
            f"on {metadata['report_created'][:16].replace('T', ' ')} UTC. Every number comes from "
            "the recorded run.",
            style=Markup(_style()),
            plotlyjs=Markup(plotlyjs()),
            figures={
                picture.name: Markup(_figure(picture.name, picture.figure))
                for section in (*report.sections, *report.appendix)
                for picture in section.pictures
            },
        )
    )


def contents(report: Report) -> list[tuple[str, list[Section]]]:
    """Return the sections under headings, in the order of the page.

    A heading is only written before its first section, so the order of the list is that of the
    page, whatever it is.
    """
    heading_of = {key: heading for heading, keys in _PARTS.items() for key in keys}
    found: list[tuple[str, list[Section]]] = []
    for section in report.sections:
        heading = heading_of.get(section.key, "")
        if not found or found[-1][0] != heading:
            found.append((heading, []))
        found[-1][1].append(section)
    return found


def _figure(name: str, figure: Figure) -> str:
    return figure.to_html(full_html=False, include_plotlyjs=False, div_id=f"figure-{name}")


@cache
def template_environment(package: str) -> Environment:
    """Return what fills the templates of a package; a name that they lack is an error."""
    return Environment(
        loader=PackageLoader(package, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _style() -> str:
    templates = importlib.resources.files("looplens.reports") / "templates"
    return (templates / "report.css").read_text(encoding="utf-8")


@cache
def plotlyjs() -> str:
    """Return the script that draws figures, to be put into a page once."""
    # The button that would use this address is switched off; without it nothing in the page knows
    # it either.
    return get_plotlyjs().replace(_UPLOAD_ADDRESS, "")
