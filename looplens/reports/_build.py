"""Build a report from a run, and write it to a file.

Every sentence, number and figure is made by code from the run; nothing is known here of a
particular model. A new section is one function in ``_sections`` and one entry in the list below.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from looplens.errors import InputError, near_matches
from looplens.reports import _limits, _recorded, _sections, _verdict
from looplens.reports._material import Material
from looplens.reports._report import Report, Section

SECTIONS: tuple[Callable[[Material], Section | None], ...] = (
    _sections.convergence,
    _sections.regimes,
    _sections.dynamics,
    _sections.geometry,
    _sections.path_independence,
    _sections.basins,
    _sections.input_dependence,
    _sections.readout,
    _sections.exits,
    _sections.lens,
    _sections.groups,
    _sections.cycle,
    _sections.attention,
    _sections.attention_bound,
    _sections.stages,
)
FORMATS: dict[str, Callable[[Report], str]] = {
    "html": Report.to_html,
    "json": Report.to_json,
    "md": Report.to_markdown,
}


def build(run: Any) -> Report:
    """Build a report on a run.

    Analyses that the run does not hold yet are computed in memory; the run is not written to.

    Parameters
    ----------
    run : looplens.Run
        The opened run.

    Returns
    -------
    Report
        Sections with numbers and figures.

    Notes
    -----
    An analysis that the recording does not allow, or that fails on a damaged part, is no error: the
    report names it among what could not be concluded.
    """
    material = Material(run)
    sections = [_recorded.section(run)]
    sections += [section for make in SECTIONS if (section := make(material)) is not None]
    return Report(
        title=f"{run.model_name}: {run.name}",
        metadata=_recorded.metadata(run),
        verdict=_verdict.verdict(material),
        sections=tuple(sections),
        not_concluded=_limits.limits(material),
        summary=material.summary,
        verdict_note=_verdict.thresholds(),
        appendix=(_sections.numbers(material),),
    )


def format_of(out: str | os.PathLike[str]) -> str:
    """Return the format that the ending of a file name asks for.

    Raises
    ------
    InputError
        If the ending is none of a report's.
    """
    ending = Path(out).suffix.lower().lstrip(".")
    ending = {"htm": "html", "markdown": "md"}.get(ending, ending)
    if ending not in FORMATS:
        raise InputError(
            f"a report is a file that ends in {', '.join('.' + f for f in FORMATS)}; got "
            f"{os.fspath(out)!r}. Change the name, or name the format."
        )
    return ending


def check_target(run: Any, out: str | os.PathLike[str]) -> Path:
    """Return the path of a report, if a file may be written there.

    Raises
    ------
    InputError
        If it is a directory, or lies inside the run, which holds its own files only.
    """
    path = Path(out)
    if path.is_dir():
        raise InputError(f"{path} is a directory; name the file to write, such as report.html.")
    if isinstance(run.path, Path) and run.path.resolve() in path.resolve().parents:
        raise InputError(
            f"{path} lies inside the run {run.path}, which could not be overwritten with a file of "
            "another kind in it. Write the report beside the run."
        )
    return path


def write_report(run: Any, out: str | os.PathLike[str], format: str | None = None) -> Path:
    """Build a report on a run and write it to a file.

    Parameters
    ----------
    run : looplens.Run
        The opened run.
    out : str or path
        The file; an existing one is replaced. Missing folders are made.
    format : {"html", "json", "md"}, optional
        One self-contained page, the numbers, or the words; by default from the ending of ``out``.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    InputError
        If there is no such format, or ``out`` is a directory, inside the run or not writable.
    """
    path = check_target(run, out)
    format = format_of(out) if format is None else format
    if format not in FORMATS:
        raise InputError(
            f"format must be one of {', '.join(map(repr, FORMATS))}, got {format!r}."
            f"{near_matches(format, FORMATS)}"
        )
    text = FORMATS[format](build(run))
    write_text(path, text)
    return path


def write_text(path: Path, text: str) -> None:
    """Write a file, making its folder.

    Raises
    ------
    InputError
        If the system does not allow it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from error
