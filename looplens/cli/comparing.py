"""The command that compares two runs, without torch."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from looplens.cli.options import RunPath


def compare(
    run_a: RunPath,
    run_b: RunPath,
    out: Annotated[Path | None, typer.Option(help="Report to write: .html, .json or .md.")] = None,
    by: Annotated[
        str | None, typer.Option(help="Column of the tokens or prompts to repeat it in groups of.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Name of an analysis; may be repeated.")
    ] = None,
    most_tokens: Annotated[
        int | None, typer.Option(help="Compare evenly chosen prompts with about so many tokens.")
    ] = None,
    n_boot: Annotated[int, typer.Option(help="Draws of prompts for the intervals.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-if",
            help="Exit with code 1 if this holds, e.g. "
            "'readout.final_accuracy.difference < -0.01'.",
        ),
    ] = None,
) -> None:
    """Compare two runs of the same prompts: differences b - a, with intervals over prompts.

    Example: `looplens compare runs/a runs/b --out compare.html --by difficulty`
    """
    import looplens
    from looplens.analysis import compare as compare_runs
    from looplens.plots._labels import number, percent
    from looplens.reports import (
        FORMATS,
        build_comparison,
        check,
        check_target,
        format_of,
        parse_condition,
        write_text,
    )

    conditions = [parse_condition(text) for text in fail_if or []]
    format = None if out is None else format_of(out)
    opened = looplens.open_run(run_a), looplens.open_run(run_b)
    if out is not None:
        for run in opened:
            check_target(run, out)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* are in both runs")  # it is among the notes
        found = compare_runs(
            *opened, only, by=by, most_tokens=most_tokens, n_boot=n_boot, seed=seed
        )
    failures = check(conditions, found.numbers(), found.skipped)
    console = Console()
    a, b = found.labels
    console.print(
        f"a: {a}, b: {b}: {found.n_prompts} prompts, {found.n_tokens} tokens in both",
        highlight=False,
        markup=False,
    )
    for one in found.agreements:
        if one.name in ("regime", "best_token"):
            console.print(
                f"{one.key}: the same for {percent(one.share)} "
                f"({percent(one.low)} to {percent(one.high)})",
                highlight=False,
            )
    table = Table(
        Column("largest differences", overflow="fold"),
        *("a", "b", "b - a", Column(f"{percent(found.level)} interval", no_wrap=True)),
        box=None,
        pad_edge=False,
    )
    largest = found.largest(16)
    for row in largest:
        values = (row.a, row.b, row.difference, row.low, row.high)
        *shown, low, high = (number(value) for value in values)
        table.add_row(row.key, *shown, f"{low} to {high}", style=None if row.clear else "dim")
    console.print(table if largest else "no difference beyond rounding in any statistic")
    for note in found.notes:
        Console(stderr=True).print(note, highlight=False, markup=False)
    if out is not None and format is not None:
        write_text(out, FORMATS[format](build_comparison(found)))
        Console(stderr=True).print(f"wrote {out}", highlight=False)
    for failure in failures:
        Console(stderr=True).print(f"[bold red]failed:[/] {failure}", highlight=False)
    if failures:
        raise typer.Exit(1)
