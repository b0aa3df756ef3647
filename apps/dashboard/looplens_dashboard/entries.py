"""What the list of runs says of each of them."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from looplens.errors import LoopLensError
from looplens.run import Run

_MOST_REGIMES = 4_000_000  # trajectories whose stored regimes are counted for the list


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One line of the list of runs.

    Attributes
    ----------
    key : str
        What the run is asked for by: its name, with the folders between it and the opened one.
    name, path : str
        Last part of its path, and all of it.
    problem : str or None
        Why it cannot be opened; then nothing of the following is known.
    complete : bool
        False while its recording goes on, or when that was interrupted.
    model, created : str
        Name of the model; date and time of the recording (ISO 8601).
    prompts, tokens, iterations, layers, d_model, restarts : int
        Its sizes.
    size : int or None
        Bytes on disk; None where that is not known yet, and of a run at a URL.
    regimes : dict or None
        Trajectories of each regime, over all tokens and restarts; None where none are stored, and
        as long as they are not counted.
    """

    key: str
    name: str
    path: str
    problem: str | None = None
    complete: bool = False
    model: str = ""
    created: str = ""
    prompts: int = 0
    tokens: int = 0
    iterations: int = 0
    layers: int = 0
    d_model: int = 0
    restarts: int = 0
    size: int | None = None
    regimes: dict[str, int] | None = None


def describe(key: str, run: Run) -> Entry:
    """Return what the metadata of a run say."""
    return Entry(
        key=key,
        name=run.name,
        path=str(run.path),
        complete=run.complete,
        model=run.model_name,
        created=str(run.attrs.get("created") or ""),
        prompts=run.n_prompts,
        tokens=run.n_tokens,
        iterations=run.iterations,
        layers=run.n_layers,
        d_model=run.d_model,
        restarts=run.restarts,
    )


def unusable(key: str, path: str | os.PathLike[str], problem: str) -> Entry:
    """Return the line of a run that cannot be opened."""
    return Entry(key=key, name=Path(path).name, path=str(path), problem=problem)


def with_details(entry: Entry, run: Run, size: int | None) -> Entry:
    """Add the bytes on disk, and the regimes if they are stored."""
    return replace(entry, size=size, regimes=_regimes(run))


def _regimes(run: Run) -> dict[str, int] | None:
    """Count the stored regimes; a run of which they cannot be read is shown without."""
    if run.n_tokens * run.restarts > _MOST_REGIMES:
        return None
    try:
        stored = run.analysis("classify")
        if stored is None:
            return None
        found = stored["regime"].values.ravel().tolist()
    except (LoopLensError, KeyError):
        return None
    return dict(Counter(str(regime) for regime in found if regime))
