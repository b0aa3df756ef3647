"""The pages of the gallery: one a claim in Markdown, its pictures and numbers, and the index.

Everything on a page comes from a result; nothing is measured here. The index is made from the
numbers of the pages that lie beside it, so claims can be run one at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from looplens.errors import InputError
from looplens.gallery.claim import HELD, Picture, Table
from looplens.gallery.intervals import Interval
from looplens.gallery.running import Result
from looplens.gallery.scale import SEEDS, Scale
from looplens.gallery.values import as_json, counts, pages_of

INDEX = "index.md"
FULL = "full"  # a folder of this name in a gallery has its pages of full size
PICTURE_SCALE = 1.5
PICTURE_SIZE = (860, 440)  # of figures that do not say; kaleido asks no figure by itself


def write_page(result: Result, out: Path) -> Path:
    """Write the page of a result, its pictures and its numbers, and the index anew.

    Parameters
    ----------
    result : Result
        What came out.
    out : Path
        The folder of the gallery; made where it does not exist. When it is the folder ``full`` of
        another gallery, the index of that one is written anew too.

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
    (out / f"{stem}.json").write_text(as_json(result), encoding="utf-8")
    write_index(out)
    return page


def write_index(out: Path) -> None:
    """Write the index of a gallery anew, and that of the gallery whose folder ``full`` it is."""
    for gallery in (out, out.resolve().parent) if out.name == FULL else (out,):
        if pages := pages_of(gallery):
            text = index_text(pages, pages_of(gallery / FULL))
            (gallery / INDEX).write_text(text, encoding="utf-8")


def check_place(numbers: Sequence[int], scale: Scale, out: Path) -> None:
    """Refuse or announce that pages of a larger size are replaced; called before anything runs.

    Raises
    ------
    InputError
        When a smoke run would replace a page that has a verdict.
    """
    for page in pages_of(out):
        made = page.get("scale", "smoke")
        if page["number"] not in numbers or SEEDS[scale.name] >= SEEDS[made]:
            continue
        path = out / f"{page['stem']}.md"
        if scale.name == "smoke":
            raise InputError(
                f"{path} was made with --{made}, and a smoke run has no verdict to replace it "
                "with. Give another folder with --out, or none."
            )
        scale.say(
            f"{path} of {page['date']} was made with --{made}; this run replaces it by a page of "
            f"--{scale.name}."
        )


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
        markdown_table(
            ["check", "result"], [[name, HELD[ok]] for name, ok in outcome.checks.items()]
        ),
    ]
    if outcome.sanity:
        rows = [[name, "holds" if ok else "FAILS"] for name, ok in outcome.sanity.items()]
        parts.append(markdown_table(["must hold by theorem or definition", "result"], rows))
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


def index_text(pages: Sequence[dict[str, Any]], full: Sequence[dict[str, Any]] = ()) -> str:
    """Return the index: the verdicts of all claims, with their commands and dates.

    Parameters
    ----------
    pages : sequence of dict
        The numbers of the pages, as :func:`looplens.gallery.values.as_values` gives them.
    full : sequence of dict
        Those of the pages in the folder ``full`` beside them.
    """
    larger = [
        "## At full size",
        "The same claims with larger models, longer training and five seeds or more. A claim "
        "without a line here was not run at this size.",
        _verdicts(full, f"{FULL}/"),
    ]
    return "\n\n".join(
        [
            "# Gallery",
            "Claims of papers about looped language models, each put to the test by one command "
            "with small models that a CPU trains in minutes. A verdict is *reproduced* when all "
            "checks of its page held and *partly reproduced* when some did. When none did it is "
            "*not reproduced* if a measurement speaks against one, else *open*: a check is open "
            "when its interval contains the bound. The checks were written before the results "
            "were seen, but where the limits "
            "of a page say otherwise, as they do of sizes found in trials. These are models of "
            "a hundred thousand parameters on synthetic tasks: what a claim does here says "
            "little about its truth at the size of the paper.",
            _verdicts(pages),
            "`make gallery` runs all claims at quick size and writes the pages of `docs/gallery`. "
            "`looplens gallery` lists them.",
            *(larger if full else ()),
        ]
    ) + "\n"  # fmt: skip


def _verdicts(pages: Sequence[dict[str, Any]], folder: str = "") -> str:
    """Return the table of an index; ``folder`` is where the pages lie, seen from it."""
    rows = [
        [
            str(page["number"]),
            f"[{page['title']}]({folder}{page['stem']}.md)",
            page["verdict"],
            counts(page["checks"]),
            f"`{page['command']}`",
            _time(page),
            page["date"],
        ]
        for page in sorted(pages, key=lambda page: page["number"])
    ]
    return markdown_table(["", "claim", "verdict", "checks", "command", "time", "date"], rows)


def _time(page: dict[str, Any]) -> str:
    """Return the time of a page, and that of the models that were there before."""
    kept = page.get("kept_seconds", 0)
    return f"{page['seconds']:.0f} s" + (f", and {kept:.0f} s of trainings before" if kept else "")


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(_cell(text) for text in line) + " |" for line in lines)


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
            width=[picture.figure.layout.width or PICTURE_SIZE[0] for picture in pictures],
            height=[picture.figure.layout.height or PICTURE_SIZE[1] for picture in pictures],
        )
    except (ImportError, ValueError, RuntimeError):  # no kaleido, or no browser for it
        for picture, name in zip(pictures, names, strict=True):
            picture.figure.write_html(out / f"{name}.html", include_plotlyjs=True)
        return [f"{name}.html" for name in names]
    return [f"{name}.png" for name in names]


def _remove(*, claim_number: int, out: Path) -> None:
    """Remove the earlier page of a claim, whose name and pictures may have been others."""
    for page in pages_of(out):
        if page["number"] == claim_number:
            for old in [*out.glob(f"{page['stem']}-*"), *out.glob(f"{page['stem']}.*")]:
                old.unlink()


def _made(result: Result) -> str:
    versions = dict(result.versions)
    if result.commit:
        versions["looplens"] += f" (commit {result.commit})"
    made_with = ", ".join(f"{name} {version}" for name, version in versions.items())
    processes = "one process" if result.workers == 1 else f"{result.workers} processes"
    reused = ""
    if result.reused:
        reused = (
            f" {result.reused} of {result.reused + result.computed} trainings and other jobs lay "
            "in the cache already; the time leaves them out."
        )
        if result.kept_seconds:
            reused += f" Those trainings took {result.kept_seconds:.0f} s, one process each."
    return (
        f"Made on {result.date} in {result.seconds:.0f} s ({result.cpu_seconds:.0f} s of CPU, "
        f"{processes}) with {made_with}.{reused}"
    )


def _has_interval(table: Table) -> bool:
    return any(isinstance(value, Interval) and value.n > 1 for row in table.rows for value in row)


def _line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _line(str(text)).replace("|", "\\|")
