"""Commands that look at runs, without torch: info, verify, analyze, report, app."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from looplens.cli.options import RunPath, Scheduler, beside, dask_client
from looplens.errors import InputError, near_matches

if TYPE_CHECKING:
    from looplens.run import Run


def info(
    run: RunPath,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a run holds.

    Example: `looplens info runs/demo`
    """
    import looplens

    opened = looplens.open_run(run)
    facts = {
        "model": opened.model_name,
        "created": opened.attrs.get("created"),
        "complete": opened.complete,
        "blocks recorded": f"{len(opened.committed)} of {opened.n_blocks}",
        "prompts": opened.n_prompts,
        "tokens": opened.n_tokens,
        "iterations": opened.iterations,
        "core layers": opened.n_layers,
        "d_model": opened.d_model,
        **_selection(opened),
        "restarts": opened.restarts,
        "restart seeds": list(opened.restart_seeds),
        "initial state": opened.initial_state,
        "sites": list(opened.site_names),
        "attention of prompts": list(opened.attention_prompts),
        "readout": opened.has_readout,
        "computed in": opened.source_dtype,
        "stored in": opened.attrs.get("store_dtype"),
        "non-finite values": dict(opened.non_finite),
        "analyses": list(opened.analyses),
    }
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    table = Table(show_header=False, box=None)
    for name, value in facts.items():
        shown = ", ".join(map(str, value)) or "none" if isinstance(value, list | dict) else value
        table.add_row(f"[bold]{name}[/]", str(shown))
    Console().print(table)


def _selection(run: Run) -> dict[str, object]:
    """Return what was kept of the layers, iterations, tokens and dimensions, where not all was."""
    facts: dict[str, object] = {}
    if len(run.recorded_layers) < run.n_layers:
        facts["layers kept"] = list(run.recorded_layers)
    if not run.all_iterations:
        facts["iterations kept"] = list(run.kept_iterations)
    lengths = run.prompts["length"].values
    if int(lengths.sum()) > run.n_tokens:
        facts["tokens kept"] = f"{run.n_tokens} of {int(lengths.sum())}"
    if run.is_reduced and run.reduction is not None:
        about = run.reduction
        facts["stored dimensions"] = f"{run.width} of {run.d_model}, {about.kind}: {about.source}"
    return facts


def verify(
    run: RunPath,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check every file of a run against the checksums that were written with it.

    Exit code 1 says that something is damaged.

    Example: `looplens verify runs/demo`
    """
    import dataclasses

    from rich.progress import Progress

    from looplens.store.reading.verifying import verify as check_files

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("verifying", total=None)
        found = check_files(
            run, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
    if as_json:
        print(json.dumps({**dataclasses.asdict(found), "ok": found.ok}, indent=2))
    else:
        console = Console()
        for line in str(found).splitlines():
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    if not found.ok:
        raise typer.Exit(1)


def analyze(
    run: RunPath,
    only: Annotated[
        list[str] | None, typer.Option(help="Name of an analysis; may be repeated.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(help="Column of the tokens or prompts to sum the results up in groups of."),
    ] = None,
    scheduler: Scheduler = None,
) -> None:
    """Run the analyses and write their results into the run.

    Example: `looplens analyze runs/demo --only classify --by difficulty`
    """
    import looplens
    from looplens.analysis.grouping import group_tokens

    opened = looplens.open_run(run)
    if by is not None:
        group_tokens(opened, by)  # a misspelt column is said before the work
    with dask_client(scheduler) as client:
        found = opened.analyze(only, progress=True, client=client)
    if found.not_recorded:
        Console(stderr=True).print(
            f"{found.not_recorded} of {opened.n_tokens} tokens are not recorded yet",
            highlight=False,
        )
    table = Table("analysis", "result", "value")
    for name, values in opened.summary().items():
        if only and name not in only:
            continue
        for place, (key, value) in enumerate(values.items()):
            table.add_row("" if place else f"[bold]{name}[/]", key, _short(value))
        table.add_section()
    Console().print(table)
    if by is not None:
        _print_groups(opened, list(found), by)
    if found.failed:  # which, and why, has been said in a warning
        raise typer.Exit(2)


def _print_groups(run: Run, names: Iterable[str], by: str) -> None:
    """Print the numbers and words of which every token has one, in each group of tokens."""
    from rich.table import Column

    from looplens.analysis.grouped import group_by, single_values
    from looplens.analysis.grouping import group_tokens
    from looplens.errors import AnalysisError

    labels = group_tokens(run, by).labels
    table = Table(Column(f"median or share by {by}", overflow="fold"), *labels)
    counts: list[str] = []
    for name in names:
        try:
            found = group_by(run, name, by)
        except AnalysisError:  # nothing in it is of single tokens
            continue
        counts = [str(count) for count in found["count"].values]
        for key, values in single_values(found).items():
            table.add_row(f"{name}.{key}", *(_short(float(value)) for value in values))
        table.add_section()
    if counts:
        table.add_row("tokens", *counts)
    Console().print(table)


def report(
    run: RunPath,
    out: Annotated[
        Path | None, typer.Option(help="File to write; standard output for json and md.")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            help="html, json or md, or several such as json,md; by default the ending of --out."
        ),
    ] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-if",
            help="Exit with code 1 if this holds, e.g. 'path_independence.aa_score < 0.95'.",
        ),
    ] = None,
) -> None:
    """Write a convergence report of a run.

    Example: `looplens report runs/demo --out report.html --fail-if 'classify.slider_share > 0.1'`
    """
    import looplens
    from looplens.reports import (
        FORMATS,
        build,
        check,
        check_target,
        format_of,
        parse_condition,
        write_text,
    )

    formats = _formats(format, FORMATS) or [format_of(out) if out else "html"]
    conditions = [parse_condition(text) for text in fail_if or []]
    opened = looplens.open_run(run)
    to_screen = out is None and len(formats) == 1 and formats != ["html"]
    targets = {}
    for name in [] if to_screen else formats:
        ending = f".{name}"
        path = out if out and len(formats) == 1 else beside(str(out or run), ending)
        targets[name] = check_target(opened, path)
    skipped = dict(opened.analyze(missing_only=True, progress=True).skipped)
    built = build(opened)
    if "dynamics" not in built.summary and any(c.key.startswith("dynamics.") for c in conditions):
        skipped["dynamics"] = f"Its numbers are stored by: looplens dynamics {run}"
    failures = check(conditions, built.summary, skipped)  # a misspelt condition writes nothing
    if to_screen:
        print(FORMATS[formats[0]](built))
    for name, path in targets.items():
        write_text(path, FORMATS[name](built))
        Console(stderr=True).print(f"wrote {path}", highlight=False)
    for failure in failures:
        Console(stderr=True).print(f"[bold red]failed:[/] {failure}", highlight=False)
    if failures:
        raise typer.Exit(1)


def app(
    paths: Annotated[
        list[str], typer.Argument(help="Runs, and folders of runs.", show_default=False)
    ],
    host: Annotated[str, typer.Option(help="Address to bind to.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8050,
    open_browser: Annotated[
        bool, typer.Option("--open", help="Open the page in a browser.")
    ] = False,
    access: Annotated[
        str | None,
        typer.Option(
            envvar="LOOPLENS_ACCESS",
            show_envvar=True,
            help="Token that a reader has to know; made when the host is not this machine's own.",
        ),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(help="Checkpoint directory to record from, or a folder of them; repeatable."),
    ] = None,
) -> None:
    """Open the dashboard on runs.

    Example: `looplens app runs --port 8051`
    """
    from looplens_dashboard import serve

    serve(
        paths, host=host, port=port, access=access, open_browser=open_browser, models=models or ()
    )


def _formats(asked: str | None, known: Iterable[str]) -> list[str]:
    names = [name.strip() for name in (asked or "").split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise InputError(
                f"unknown report format {name!r}: expected {', '.join(known)}, or several such as "
                f"json,md.{near_matches(name, known)}"
            )
    return names


def _short(value: object) -> str:
    if value is None or value != value:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_short(item)}" for key, item in value.items())
    return str(value)
