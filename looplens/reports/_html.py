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
from looplens.reports._report import Report

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
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            subtitle=metadata["described"],
            footer=f"Made by looplens {metadata['report_looplens_version']} "
            f"on {metadata['report_created'][:16].replace('T', ' ')} UTC. Every number comes from "
            "the recorded run.",
            style=Markup(_style()),
            plotlyjs=Markup(_plotlyjs()),
            figures={
                picture.name: Markup(_figure(picture.name, picture.figure))
                for section in (*report.sections, *report.appendix)
                for picture in section.pictures
            },
        )
    )


def _figure(name: str, figure: Figure) -> str:
    return figure.to_html(full_html=False, include_plotlyjs=False, div_id=f"figure-{name}")


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("looplens.reports", "templates"),
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
def _plotlyjs() -> str:
    # The button that would use this address is switched off; without it nothing in the page knows
    # it either.
    return get_plotlyjs().replace(_UPLOAD_ADDRESS, "")
