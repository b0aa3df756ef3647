"""Entry point of the command line: the list of commands, and errors without tracebacks.

A mistake of the user's ends in one line on standard error and exit code 2. Nothing heavy is
imported here, so that ``--help`` is instant.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import typer
from rich.console import Console

import looplens
from looplens.cli import comparing, exploring, gallery, making, recording, tasks, viewing
from looplens.errors import LoopLensError

app = typer.Typer(
    name="looplens",
    help="See what a looped language model does while it thinks.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
for command in (
    making.demo,
    making.models,
    making.train,
    recording.record,
    viewing.info,
    viewing.verify,
    viewing.analyze,
    viewing.report,
    comparing.compare,
    exploring.dynamics,
    viewing.app,
):
    app.command()(command)
app.add_typer(gallery.app, name="gallery")
app.add_typer(tasks.app, name="tasks")


def _version(show: bool) -> None:
    if show:
        print(f"looplens {looplens.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version."
    ),
) -> None:
    pass


def main() -> None:
    """Run the command line."""
    error_console = Console(stderr=True)

    def say(message: Warning | str, *_where: Any, **_named: Any) -> None:
        error_console.print("[bold yellow]warning:[/]", end=" ")
        error_console.print(str(message), markup=False, highlight=False)

    try:
        with warnings.catch_warnings():
            warnings.showwarning = say  # one line, like an error
            app()
    except LoopLensError as error:
        error_console.print("[bold red]error:[/]", end=" ")
        error_console.print(str(error), markup=False, highlight=False)
        sys.exit(2)
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("torch", "transformer_lens", "safetensors"):
            raise
        error_console.print(
            f"[bold red]error:[/] this command runs a model and needs {error.name}. Install it "
            "with: pip install 'looplens-interp\\[record]'",
            highlight=False,
        )
        sys.exit(2)
    except Exception:
        # Not code 1, which says that a condition of `report --fail-if` holds.
        error_console.print_exception(width=100)
        error_console.print("This is a bug in looplens, not a mistake of yours.", highlight=False)
        sys.exit(70)
    except KeyboardInterrupt:
        error_console.print("interrupted")
        sys.exit(130)
