"""The pages of the gallery: one a claim in Markdown, its pictures and numbers, and the index.

Everything on a page comes from a result; nothing is measured here. The index is made from the
numbers of the pages that lie beside it, so claims can be run one at a time.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from looplens.gallery.claim import HELD, Picture, Table
from looplens.gallery.intervals import Interval
from looplens.gallery.running import Result

INDEX = "index.md"
PICTURE_SCALE = 1.5


def write_page(result: Result, out: Path) -> Path:
    """Write the page of a result, its pictures and its numbers, and the index anew.

    Parameters
    ----------
    result : Result
        What came out.
    out : Path
        The folder of the gallery; made where it does not exist.

    Returns
    -------
    Path
        The page. Pictures are PNG where kaleido finds a browser, else pages of HTML.
    """
    out.mkdir(parents=True, exist_ok=True)
    stem = result.claim.stem
    _remove(claim_number=result.claim.number, out=out)
    files = _draw(result.outcome.pictures, stem, out)
    page = out / f"{stem}.md"
    page.write_text(page_text(result, files), encoding="utf-8")
    numbers = json.dumps(as_values(result), indent=1, default=_plain)
    (out / f"{stem}.json").write_text(numbers + "\n", encoding="utf-8")
    (out / INDEX).write_text(index_text(_pages_of(out)), encoding="utf-8")
    return page


def page_text(result: Result, files: Sequence[str]) -> str:
    """Return the page of a result; ``files`` are its pictures, in order."""
    claim, outcome = result.claim, result.outcome
    parts = [
        f"# {claim.number}. {claim.title}",
        f"**Verdict: {result.verdict}.** {outcome.summary}",
        "## What the paper claims",
        claim.says,
        f"*{claim.paper}*",
        "## What was run",
        claim.does,
        "## What came out",
        markdown_table(["check", ""], [[name, HELD[ok]] for name, ok in outcome.checks.items()]),
    ]
    if outcome.sanity:
        rows = [[name, "holds" if ok else "FAILS"] for name, ok in outcome.sanity.items()]
        parts.append(markdown_table(["must hold by theorem or definition", ""], rows))
    for picture, file in zip(outcome.pictures, files, strict=True):
        shown = f"![{_line(picture.caption)}]({file})"
        parts.append(shown if file.endswith(".png") else f"[Figure: {picture.name}]({file})")
        parts.append(f"*{_line(picture.caption)}*")
    for table in outcome.tables:
        parts += [f"**{table.title}**", markdown_table(table.columns, table.texts())]
    if any(_has_interval(table) for table in outcome.tables):
        parts.append("Square brackets: 95 % intervals of the mean over seeds (Student's t).")
    if outcome.limits:
        parts += ["## Limits", "\n".join(f"- {_line(limit)}" for limit in outcome.limits)]
    parts += ["## How to get this page", f"```console\n{result.command}\n```", _made(result)]
    return "\n\n".join(parts) + "\n"


def index_text(pages: Sequence[dict[str, Any]]) -> str:
    """Return the index: the verdicts of all claims, with their commands and dates.

    Parameters
    ----------
    pages : sequence of dict
        The numbers of the pages, as :func:`as_values` gives them.
    """
    rows = [
        [
            str(page["number"]),
            f"[{page['title']}]({page['stem']}.md)",
            page["verdict"],
            _counts(page["checks"]),
            f"`{page['command']}`",
            f"{page['seconds']:.0f} s",
            page["date"],
        ]
        for page in sorted(pages, key=lambda page: page["number"])
    ]
    return "\n\n".join(
        [
            "# Gallery",
            "Claims of papers about looped language models, each put to the test by one command "
            "with small models that a CPU trains in minutes. A verdict is *reproduced* when all "
            "checks of its page held, *not reproduced* when none did, and *partly reproduced* "
            "otherwise. The checks were written before the results were seen, but where the limits "
            "of a page say otherwise, as they do of sizes found in trials. These are models of "
            "a hundred thousand parameters on synthetic tasks: what a claim does here says "
            "little about its truth at the size of the paper.",
            markdown_table(
                ["", "claim", "verdict", "checks", "command", "time", "date"], rows
            ),
            "`make gallery` runs all of them and writes these pages. `looplens gallery` lists "
            "them.",
        ]
    ) + "\n"  # fmt: skip


def as_values(result: Result) -> dict[str, Any]:
    """Return the numbers of a page as plain values, ready for JSON."""
    claim, outcome = result.claim, result.outcome
    return {
        "number": claim.number,
        "stem": claim.stem,
        "title": claim.title,
        "paper": claim.paper,
        "verdict": result.verdict,
        "summary": outcome.summary,
        "checks": dict(outcome.checks),
        "sanity": dict(outcome.sanity),
        "tables": [
            {"title": t.title, "columns": list(t.columns), "rows": [list(row) for row in t.rows]}
            for t in outcome.tables
        ],
        "limits": list(outcome.limits),
        "scale": result.scale,
        "command": result.command,
        "date": result.date,
        "seconds": round(result.seconds, 1),
        "cpu_seconds": round(result.cpu_seconds, 1),
        "computed": result.computed,
        "reused": result.reused,
        "workers": result.workers,
        "versions": result.versions,
    }


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(_cell(text) for text in line) + " |" for line in lines)


def _counts(checks: dict[str, bool | None]) -> str:
    """Return how many checks held, are open, and are spoken against."""
    held = list(checks.values())
    counts = {"held": held.count(True), "open": held.count(None), "against": held.count(False)}
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def _draw(pictures: Sequence[Picture], stem: str, out: Path) -> list[str]:
    """Write the pictures side by side; starting the browser costs more than one picture."""
    if not pictures:
        return []
    import plotly.io

    names = [f"{stem}-{picture.name}" for picture in pictures]
    try:
        plotly.io.write_images(
            [picture.figure for picture in pictures],
            [out / f"{name}.png" for name in names],
            scale=PICTURE_SCALE,
        )
    except (ImportError, ValueError, RuntimeError):  # no kaleido, or no browser for it
        for picture, name in zip(pictures, names, strict=True):
            picture.figure.write_html(out / f"{name}.html", include_plotlyjs=True)
        return [f"{name}.html" for name in names]
    return [f"{name}.png" for name in names]


def _remove(*, claim_number: int, out: Path) -> None:
    """Remove the earlier page of a claim, whose name and pictures may have been others."""
    for page in _pages_of(out):
        if page["number"] == claim_number:
            for old in [*out.glob(f"{page['stem']}-*"), *out.glob(f"{page['stem']}.*")]:
                old.unlink()


def _pages_of(out: Path) -> list[dict[str, Any]]:
    found = [json.loads(path.read_text(encoding="utf-8")) for path in out.glob("[0-9][0-9]-*.json")]
    return [page for page in found if (out / f"{page['stem']}.md").is_file()]


def _made(result: Result) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    reused = ""
    if result.reused:
        reused = (
            f" {result.reused} of {result.reused + result.computed} trainings and other jobs lay "
            "in the cache already; the time leaves them out."
        )
    return (
        f"Made on {result.date} in {result.seconds:.0f} s ({result.cpu_seconds:.0f} s of CPU, "
        f"{result.workers} processes) with {versions}.{reused}"
    )


def _has_interval(table: Table) -> bool:
    return any(isinstance(value, Interval) and value.n > 1 for row in table.rows for value in row)


def _line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _line(str(text)).replace("|", "\\|")


def _plain(value: Any) -> Any:
    """Return what JSON does not know as plain values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return value.item() if hasattr(value, "item") else str(value)
