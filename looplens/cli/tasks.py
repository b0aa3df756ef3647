"""The synthetic tasks: listing them, and showing one with examples."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(
    help="Synthetic tasks of the papers, with exact answers.",
    invoke_without_command=True,
    rich_markup_mode="markdown",
)


@app.callback()
def tasks(context: typer.Context) -> None:
    """List the tasks.

    Example: `looplens tasks`
    """
    if context.invoked_subcommand is not None:
        return
    from looplens.tasks import TASKS

    table = Table(box=None)
    for header in ("task", "what it is", "tokens", "difficulty"):
        table.add_column(header, no_wrap=header == "task")
    for name, task in sorted(TASKS.items()):
        low, high = task.difficulty_range
        difficulty = f"{low} to {high} {task.difficulty_unit.partition(' (')[0]}"
        table.add_row(name, task.title, str(len(task.vocabulary)), difficulty)
    console = Console()
    console.print(table)
    console.print("\nShow one with examples: looplens tasks show NAME", highlight=False)


@app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            help="A name as listed, and options: addition:digits=2,reverse=true",
            show_default=False,
        ),
    ],
    examples: Annotated[int, typer.Option(min=1, help="How many examples.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Seed of their draw.")] = 0,
) -> None:
    """Show a task: source, form, vocabulary, difficulty, and examples with their answers.

    Below each line of an example, under each token with a target, stands what is right there.

    Example: `looplens tasks show mano`
    """
    from looplens.tasks import describe, get_task

    print(describe(get_task(name), examples=examples, seed=seed), end="")
