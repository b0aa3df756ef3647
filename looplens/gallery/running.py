"""Running a claim: the clock, what it ran with, and its command line.

How the page of a result looks is known by ``pages``.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import looplens
from looplens.errors import InputError, LoopLensError
from looplens.gallery import options, sources
from looplens.gallery.claim import HELD, Claim, Outcome
from looplens.gallery.scale import Scale, Tally

VERSIONS = ("torch", "numpy", "plotly")
NO_VERDICT = "no verdict (smoke size)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """A claim, what came out, and with what it ran.

    Attributes
    ----------
    claim, outcome : Claim, Outcome
        What was run and what came out.
    scale : str
        "smoke", "quick" or "full".
    seconds, cpu_seconds : float
        By the clock, and of all processes together.
    computed, reused : int
        Trainings and other jobs that ran, and those whose results were there before; a page
        with reused ones says so, as its seconds leave them out.
    kept_seconds : float
        What the reused models took to train when they were made, one process each.
    date : str
        The day, as 2026-01-31.
    versions : dict of str
        Of looplens, Python and the libraries that decide numbers.
    workers : int
        Processes that worked side by side.
    device : str
        Where models were trained.
    commit : str
        Of looplens; empty outside of a checkout.
    """

    claim: Claim
    outcome: Outcome
    scale: str
    seconds: float
    cpu_seconds: float
    computed: int
    reused: int
    kept_seconds: float
    date: str
    versions: dict[str, str]
    workers: int
    device: str
    commit: str

    @property
    def verdict(self) -> str:
        """Return the verdict; at smoke size there is none."""
        return NO_VERDICT if self.scale == "smoke" else self.outcome.verdict

    @property
    def command(self) -> str:
        """Return the command that gives this result."""
        words = [f"looplens gallery run {self.claim.number} --{self.scale}"]
        if self.workers != options.WORKERS:
            words.append(f"--workers {self.workers}")
        if self.device != options.DEVICE:
            words.append(f"--device {self.device}")
        return " ".join(words)


def run_claim(claim: Claim, scale: Scale) -> Result:
    """Run a claim at a scale.

    Raises
    ------
    InputError
        When the claim names a robust check that its outcome does not have.
    """
    scale.say(f"{claim.number}. {claim.title} ({scale.name})")
    commit = sources.commit()
    # Of its own: what an earlier claim has trained was there before this one.
    tally = Tally()
    scale = replace(scale, tally=tally)
    began, cpu = time.perf_counter(), time.process_time()
    outcome = claim.run(scale)
    missing = [name for name in claim.robust if name not in outcome.checks]
    if missing:
        raise InputError(
            f"Claim {claim.number} calls {missing} robust, but its checks are "
            f"{list(outcome.checks)}."
        )
    return Result(
        claim=claim,
        outcome=outcome,
        scale=scale.name,
        seconds=time.perf_counter() - began,
        cpu_seconds=time.process_time() - cpu + tally.worker_seconds,
        computed=tally.computed,
        reused=tally.reused - tally.own,
        kept_seconds=tally.kept_seconds,
        date=datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        versions=_versions(),
        workers=scale.workers,
        device=scale.device,
        commit=commit,
    )


def report(result: Result) -> str:
    """Return a result as text for the terminal."""
    outcome = result.outcome
    lines = [f"{result.claim.number}. {result.claim.title}", "", outcome.summary, ""]
    lines += [f"  {HELD[held]:7}  {name}" for name, held in outcome.checks.items()]
    lines += [
        f"  {'sanity' if held else 'BROKEN':7}  {name}" for name, held in outcome.sanity.items()
    ]
    for table in outcome.tables:
        rows = [list(table.columns), *table.texts()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(table.columns))]
        lines += ["", table.title]
        lines += [
            "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            for row in rows
        ]
    lines += ["", f"{result.verdict}; {result.seconds:.0f} s ({result.cpu_seconds:.0f} s of CPU)"]
    return "\n".join(line.rstrip() for line in lines)


def main(claim: Claim, arguments: Sequence[str] | None = None) -> None:
    """Run one claim from the command line of its script, and write its page.

    Parameters
    ----------
    claim : Claim
        What is run.
    arguments : sequence of str, optional
        The words of the command line; those of the process when not given.

    Raises
    ------
    SystemExit
        After a message, when the options cannot be used.
    """
    import typer

    from looplens.gallery.pages import check_place, write_page

    command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

    @command.command(help=claim.title)
    def one(
        smoke: options.Smoke = False,
        quick: options.Quick = False,
        full: options.Full = False,
        out: options.Out = None,
        cache: options.Cache = options.FOLDER,
        workers: options.Workers = options.WORKERS,
        device: options.Device = options.DEVICE,
    ) -> None:
        scale = options.scale_of(
            smoke=smoke, quick=quick, full=full, cache=cache, workers=workers, device=device
        )
        pages = options.where(out, scale)
        check_place([claim.number], scale, pages)
        result = run_claim(claim, scale)
        print(report(result))
        print(f"page: {write_page(result, pages)}")

    try:
        command(arguments)
    except LoopLensError as error:
        sys.exit(f"error: {error}")
    except SystemExit as stop:
        if stop.code:
            raise


def _versions() -> dict[str, str]:
    libraries = {name: importlib.metadata.version(name) for name in VERSIONS}
    return {"looplens": looplens.__version__, "python": platform.python_version(), **libraries}
