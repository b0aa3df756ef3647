"""The exceptions that looplens raises on purpose.

Every one of them carries a message that says what was expected, what was seen and what to do. The
command line prints that message and exits with code 2; anything else that escapes is a bug and
keeps its traceback. This module knows nothing of models, stores or analyses.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


class LoopLensError(Exception):
    """Base class of every error that looplens raises on purpose."""


class InputError(LoopLensError, ValueError):
    """An argument, prompt or configuration value that cannot be used."""


class SiteError(InputError):
    """A site address that names no hook point, or no pass of the loop."""


class AnalysisError(LoopLensError):
    """An analysis was asked for that this run does not hold the data for."""


class StoreError(LoopLensError):
    """Something about a run on disk."""


class NotARunError(StoreError):
    """The path does not hold a looplens run."""


class RunExistsError(StoreError):
    """The output path is taken."""


class SchemaVersionError(StoreError):
    """The run was written by a newer looplens."""


class CorruptRunError(StoreError):
    """The run is damaged: a part of it is missing, truncated or has the wrong shape."""


def named(name: str, options: Mapping[str, T], kind: str) -> T:
    """Return the entry of a registry, or raise InputError that lists what there is.

    Parameters
    ----------
    name : str
        What was asked for.
    options : mapping of str
        The registry.
    kind : str
        What its entries are called, in the singular.
    """
    if name not in options:
        raise InputError(
            f"Unknown {kind} {name!r}.{near_matches(name, options)} "
            f"The {kind}s are: {', '.join(sorted(options))}."
        )
    return options[name]


def near_matches(name: str, options: Iterable[str], *, most: int = 4) -> str:
    """Return ``" Did you mean 'a' or 'b'?"``, or an empty string when nothing is close.

    Parameters
    ----------
    name : str
        What was asked for.
    options : iterable of str
        What exists.
    most : int
        How many suggestions at the most.
    """
    close = difflib.get_close_matches(name, list(options), n=most, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(match) for match in close)}?" if close else ""
