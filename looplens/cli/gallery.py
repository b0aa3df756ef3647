"""The gallery: listing the claims of papers, reading what came out, and running them."""

from __future__ import annotations

import textwrap
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from looplens.gallery import options

if TYPE_CHECKING:
    from looplens.gallery.running import Result
    from looplens.gallery.scripts import Script

app = typer.Typer(invoke_without_command=True, rich_markup_mode="markdown")
Pages = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help=f"Where pages are looked up: {options.PAGES} unless given, then the checkout's.",
        show_default=False,
    ),
]


@app.callback()
def gallery(context: typer.Context, out: Pages = None) -> None:
    """Claims of papers about looped models, each put to the test by one command.

    By itself it lists them, with what came out where they were run.

    Example: `looplens gallery`
    """
    if context.invoked_subcommand is not None:
        return
    from looplens.gallery.scripts import scripts
    from looplens.gallery.values import counts

    table = Table(box=None)
    for header in ("", "claim", "verdict"):
        table.add_column(header)
    pages = _pages(out)
    for script in scripts().values():
        claim = Text.assemble(script.title, "\n", (script.paper, "dim"))
        came_out = Text("not run here")
        if script.number in pages:
            page, _ = pages[script.number]
            checks = f"\n{counts(page['checks'])}; {page['date']}"
            came_out = Text.assemble(page["verdict"], (checks, "dim"))
        table.add_row(str(script.number), claim, came_out)
    console = Console()
    console.print(table)
    console.print(
        "\nRead one: looplens gallery show NUMBER\nRun one:  looplens gallery run NUMBER --quick",
        highlight=False,
    )


@app.command()
def show(
    number: Annotated[int, typer.Argument(help="Number of a claim, as listed.")], out: Pages = None
) -> None:
    """Print what a paper claims and what came out here; without a page, what a run would do.

    Example: `looplens gallery show 3`
    """
    from looplens.gallery.scripts import chosen, load

    (script,) = chosen([number])
    page, path = _pages(out).get(number, ({}, None))
    if not {"says", "does"} <= set(page):
        claim = load(script)
        page = {"says": claim.says, "does": claim.does, **page}
    print("\n\n".join(_shown(script, page, path)))


@app.command()
def run(
    numbers: Annotated[
        list[int] | None, typer.Argument(help="Numbers of claims, as listed.", show_default=False)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Run every claim.")] = False,
    smoke: options.Smoke = False,
    quick: options.Quick = False,
    full: options.Full = False,
    out: options.Out = None,
    cache: options.Cache = options.FOLDER,
    workers: options.Workers = options.WORKERS,
    device: options.Device = options.DEVICE,
) -> None:
    """Run claims and write their pages: what was claimed, what came out, figures, the verdict.

    A claim that is not reproduced is a result, not an error. The exit code is 1 when a claim
    could not be run.

    Example: `looplens gallery run 3 --quick`
    """
    from looplens.errors import InputError
    from looplens.gallery.pages import check_place, write_page
    from looplens.gallery.running import report, run_claim
    from looplens.gallery.scripts import chosen, load, scripts

    if bool(numbers) == every:
        raise InputError(
            "Say which claims: their numbers, or --all. `looplens gallery` lists them."
        )
    todo = list(scripts().values()) if every else chosen(numbers or [])
    scale = options.scale_of(
        smoke=smoke, quick=quick, full=full, cache=cache, workers=workers, device=device
    )
    pages = options.where(out, scale)
    check_place([script.number for script in todo], scale, pages)
    console = Console()
    results: list[Result] = []
    failed: list[Script] = []
    for script in todo:
        try:
            result = run_claim(load(script), scale)
        except Exception:
            if len(todo) == 1:
                raise
            traceback.print_exc()  # the others may take an hour and do not depend on this one
            failed.append(script)
            continue
        print(report(result))
        print(f"page: {write_page(result, pages)}\n", flush=True)
        results.append(result)
    if len(todo) > 1:
        console.print(_verdicts(results))
    if failed:
        names = ", ".join(str(script.number) for script in failed)
        console.print(f"Could not be run, for the reasons above: claims {names}.")
        raise typer.Exit(1)


def _verdicts(results: list[Result]) -> Table:
    table = Table("", "claim", "verdict", "seconds", box=None)
    for result in results:
        claim = result.claim
        table.add_row(str(claim.number), claim.title, result.verdict, f"{result.seconds:.0f}")
    return table


def _pages(out: Path | None) -> dict[int, tuple[dict[str, Any], Path]]:
    """Return pages by number, with their files: one's own before those of the checkout."""
    from looplens.gallery.scripts import folder
    from looplens.gallery.values import pages_of

    places = [out] if out else [folder().parent.parent / "docs" / "gallery", options.PAGES]
    return {
        page["number"]: (page, place / f"{page['stem']}.md")
        for place in places
        for page in pages_of(place)
    }


def _shown(script: Script, page: dict[str, Any], path: Path | None) -> Iterator[str]:
    from looplens.gallery.claim import HELD

    yield f"{script.number}. {script.title}"
    yield _wrapped(f"The paper claims: {page['says']}")
    yield _wrapped(script.paper)
    yield _wrapped(f"What is run: {page['does']}")
    if path is None:
        yield f"Not run here. Run it: looplens gallery run {script.number} --quick"
        return
    yield _wrapped(f"Verdict: {page['verdict']}. {page['summary']}")
    lines = [f"  {HELD[held]:7}  {name}" for name, held in page["checks"].items()]
    lines += [
        f"  {'sanity' if holds else 'BROKEN':7}  {name}"
        for name, holds in page.get("sanity", {}).items()
    ]
    yield "\n".join(lines)
    if page["limits"]:
        yield "Limits:\n" + "\n".join(_wrapped(limit, "  - ") for limit in page["limits"])
    here = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    yield f"{page['command']}, {page['date']}, {page['seconds']:.0f} s; page: {here}"


def _wrapped(text: str, first: str = "") -> str:
    return textwrap.fill(
        " ".join(text.split()), 100, initial_indent=first, subsequent_indent=" " * len(first)
    )
