"""What several commands share: paths that may be URLs, a Dask scheduler, lists typed as text."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from looplens.errors import InputError

RunPath = Annotated[str, typer.Argument(help="Directory or URL of a run.", show_default=False)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a run that is there.")]
Scheduler = Annotated[
    str | None,
    typer.Option(help="Address of a Dask scheduler, such as tcp://host:8786, that does the work."),
]

CONNECT_SECONDS = 10


@contextlib.contextmanager
def dask_client(address: str | None) -> Iterator[Any]:
    """Connect to a Dask scheduler for a ``with`` block; None stands for this process alone.

    Raises
    ------
    InputError
        If Dask is not installed, or nothing answers at that address.
    """
    if address is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError:
        raise InputError(
            "--scheduler needs the package distributed: pip install 'dask[distributed]'"
        ) from None
    _check_answers(address)
    with Client(address, timeout=CONNECT_SECONDS) as client:
        yield client


def _check_answers(address: str) -> None:
    """Refuse an address at which nobody listens; a client would take half a minute to give up."""
    try:
        parts = urlsplit(address)
        with socket.create_connection((parts.hostname or "", parts.port or 0), CONNECT_SECONDS):
            return
    except (OSError, ValueError) as error:
        raise InputError(
            f"no Dask scheduler answers at {address!r} ({error}): expected an address such as "
            "tcp://host:8786, as `dask scheduler` prints it"
        ) from None


def numbers(text: str, option: str) -> list[int]:
    """Return whole numbers that were typed with commas between them.

    Raises
    ------
    InputError
        If one of them is not a whole number.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option} expects numbers such as 0,3,-1; got {text!r}") from None


def layers(text: str | None) -> list[int] | slice | None:
    """Return ``0,3`` as numbers, ``1:4`` as a slice, nothing as None.

    Raises
    ------
    InputError
        If it is neither.
    """
    if text is None or ":" not in text:
        return None if text is None else numbers(text, "--layers")
    try:
        return slice(*(int(part) if part else None for part in text.split(":")))
    except (ValueError, TypeError):
        raise InputError(
            f"--layers expects numbers such as 0,3 or a range such as 1:4; got {text!r}"
        ) from None


def span(text: str | None) -> tuple[int, int] | None:
    """Return ``4:10`` as two numbers, nothing as None.

    Raises
    ------
    InputError
        If it is anything else.
    """
    if text is None:
        return None
    start, colon, stop = text.partition(":")
    if not (colon and start.isdigit() and stop.isdigit()):
        raise InputError(f"expected --loop START:STOP, such as 4:10, got {text!r}")
    return int(start), int(stop)


def words_or_numbers(text: str, option: str) -> str | list[int]:
    """Return ``all``, ``last``, ``every:4`` and the like as they are, and ``0,3`` as numbers."""
    return text if text.strip()[:1].isalpha() else numbers(text, option)


def beside(run: str, ending: str) -> Path:
    """Return a file beside a run, or in this directory where the run is at a URL."""
    stem = run.rstrip("/")
    return Path(stem.rpartition("/")[2] if "://" in stem else stem).with_suffix(ending)
