"""The command that asks the live model why the tokens of a run settle, orbit or drift."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from looplens.cli.options import RunPath, numbers, span
from looplens.errors import InputError

if TYPE_CHECKING:
    from looplens.run import Run


def dynamics(
    run: RunPath,
    model: Annotated[
        str | None,
        typer.Option(
            help="A bundled model, a checkpoint directory or a name on the hub; by default the "
            "bundled model that the run names."
        ),
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(
            help="Token numbers in the run, such as 3,17 or 40:50 (40 to 49); or moving, settled, "
            "all. By default all that move and a sample of those that settle."
        ),
    ] = None,
    prompt: Annotated[
        list[int] | None, typer.Option(help="Only tokens of this prompt; may be repeated.")
    ] = None,
    restart: Annotated[int, typer.Option(help="Whose trajectories.", min=0)] = 0,
    parts: Annotated[
        str | None,
        typer.Option(
            help="Some of fixed_points, spectra, causes, lyapunov (by default these four), "
            "cycle_points, landscape, basin_map, continuation, recovery, basin_radius, "
            "damage_cone, swap_states, causal_effect; or all."
        ),
    ] = None,
    max_tokens: Annotated[
        int, typer.Option(help="Most tokens that are chosen, unless they are numbered.", min=1)
    ] = 64,
    again: Annotated[
        bool,
        typer.Option(
            "--again", help="Also tokens that have a result already, or one of another restart."
        ),
    ] = False,
    loop: Annotated[
        str | None, typer.Option(help="START:STOP, as it was recorded with.", show_default=False)
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    progress: Annotated[bool, typer.Option(help="Show a progress bar.")] = True,
) -> None:
    """Find fixed points, spectra, causes and exponents of tokens, and store them in the run.

    What is stored is kept when tokens are added, and an interrupted command goes on where it was.

    Example: `looplens dynamics runs/demo --tokens moving --max-tokens 32`
    """
    import looplens
    from looplens.analysis.dynamics import dynamics_results

    opened = looplens.open_run(run)
    wanted = _tokens(tokens)
    named = None if parts is None else [part.strip() for part in parts.split(",")]
    from looplens.dynamics import investigate

    loaded = _model(opened, model, device, loop)
    console = Console(stderr=True)

    def say(sentence: str) -> None:
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn("experiments"), BarColumn(), MofNCompleteColumn(), Remaining())
    try:
        with Progress(*columns, console=console, transient=True, disable=not progress) as bar:
            task = bar.add_task("experiments", total=None)
            found = investigate(
                loaded,
                opened,
                named if named != ["all"] else "all",
                tokens=wanted,
                prompts=prompt,
                restart=restart,
                max_tokens=max_tokens,
                again=again,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
                say=say,
            )
    except KeyboardInterrupt:
        say("What is done is stored in the run; the same command goes on from there.")
        raise
    print_findings(opened, Console())
    names = ", ".join(f"dynamics/{name}" for name in dynamics_results(opened))
    print(f"stored: {names}\nnext: looplens app {opened.path}")
    if set(found.failed) - set(found.results):
        raise typer.Exit(2)  # of a part there is nothing at all


def _model(run: Run, name: str | None, device: str, loop: str | None) -> Any:
    """Load the model of a run, in the dtype that it ran in."""
    import torch

    import looplens
    from looplens.models import bundled_models

    if name is None and run.model_name not in bundled_models():
        raise InputError(
            f"{run.path} was recorded of {run.model_name!r}, which is not a bundled model. Name "
            "its checkpoint directory with --model; for a wrapped model, call "
            "looplens.dynamics.investigate(model, run) in Python."
        )
    dtype = getattr(torch, str(run.source_dtype), None)
    return looplens.load_model(name or run.model_name, device=device, dtype=dtype, loop=span(loop))


def _tokens(text: str | None) -> str | list[int] | None:
    """Return a word as it is, and ``3,17`` and ``40:50`` as numbers."""
    if text is None or text.strip()[:1].isalpha():
        return text
    found: list[int] = []
    for part in text.split(","):
        start, colon, stop = part.partition(":")
        if colon:
            first, last = numbers(f"{start},{stop}", "--tokens")
            found += range(first, last)
        else:
            found += numbers(part, "--tokens")
    if not found:
        raise InputError(f"--tokens {text!r} names no token: expected 3,17 or 40:50 or a word")
    return found


def print_findings(run: Run, console: Console) -> None:
    """Print what the lab found in a run, of this and of earlier commands."""
    from looplens.analysis.dynamics import dynamics_results
    from looplens.reports._sections.dynamics import regime_table
    from looplens.reports._sections.dynamics_facts import facts

    results = dynamics_results(run)
    for fact in facts(results):
        text = f"{fact.label}: {fact.value} ({fact.note})"
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    found = regime_table(results)
    if found is not None:
        console.print(f"{found.caption}:", highlight=False, soft_wrap=True)
        table = Table(box=None, pad_edge=False, collapse_padding=True)
        for place, title in enumerate(found.columns):
            table.add_column(title, no_wrap=not place)
        for row in found.rows:
            table.add_row(*row)
        console.print(table)
