"""The gallery: listing the claims of papers, and running them."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from looplens.gallery.running import Result
    from looplens.gallery.scripts import Script

PAGES = Path("runs/gallery/pages")

app = typer.Typer(
    help="Claims of papers about looped models, each put to the test by one command.",
    invoke_without_command=True,
    rich_markup_mode="markdown",
)


@app.callback()
def gallery(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Where verdicts are looked up.")] = PAGES,
) -> None:
    """List the claims, with the verdicts of the pages in `--out`.

    Example: `looplens gallery`
    """
    if context.invoked_subcommand is not None:
        return
    from looplens.gallery.scripts import scripts

    table = Table(box=None)
    for header in ("", "claim", "verdict"):
        table.add_column(header)
    verdicts = {page["number"]: page for page in _pages(out)}
    for script in scripts().values():
        page = verdicts.get(script.number)
        verdict = f"{page['verdict']}, {page['date']}" if page else "not run here"
        claim = Text.assemble(script.title, "\n", (script.paper, "dim"))
        table.add_row(str(script.number), claim, verdict)
    console = Console()
    console.print(table)
    console.print("\nRun one: looplens gallery run NUMBER --quick", highlight=False)


@app.command()
def run(
    numbers: Annotated[
        list[int] | None, typer.Argument(help="Numbers of claims, as listed.", show_default=False)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Run every claim.")] = False,
    smoke: Annotated[bool, typer.Option("--smoke", help="Seconds; gives no verdict.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Minutes each, the default.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Up to an hour each.")] = False,
    out: Annotated[Path, typer.Option(help="Where the pages go.")] = PAGES,
    cache: Annotated[
        Path, typer.Option(help="Where trained models are kept and found again.")
    ] = Path("runs/gallery"),
    workers: Annotated[int, typer.Option(min=1, help="Processes side by side.")] = 2,
    device: Annotated[str, typer.Option(help="Where models are trained: cpu, cuda, ...")] = "cpu",
) -> None:
    """Run claims and write their pages: what was claimed, what came out, figures, the verdict.

    A claim that is not reproduced is a result, not an error. The exit code is 1 when a claim
    could not be run.

    Example: `looplens gallery run 3 --quick`
    """
    from looplens.errors import InputError
    from looplens.gallery.pages import write_page
    from looplens.gallery.running import report, run_claim
    from looplens.gallery.scale import Scale
    from looplens.gallery.scripts import chosen, load, scripts

    sizes = [name for name, on in (("smoke", smoke), ("quick", quick), ("full", full)) if on]
    if len(sizes) > 1:
        raise InputError("Choose one of --smoke, --quick and --full.")
    if bool(numbers) == every:
        raise InputError(
            "Say which claims: their numbers, or --all. `looplens gallery` lists them."
        )
    scale = Scale(
        name=sizes[0] if sizes else "quick",  # type: ignore[arg-type]
        folder=cache,
        workers=workers,
        device=device,
    )
    todo = list(scripts().values()) if every else chosen(numbers or [])
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
        print(f"page: {write_page(result, out)}\n", flush=True)
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


def _pages(out: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in out.glob("[0-9][0-9]-*.json")]
