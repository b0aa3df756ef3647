"""Evenly spaced pieces of a run, for what is fitted to a sample of its states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from looplens.analysis.analyzers._analyzer import Source
from looplens.analysis.running.engine import first_iteration

if TYPE_CHECKING:
    from looplens.store import StoredRun

STATE = -1  # where layers are numbered, the loop state
_PIECE = 2**24  # bytes of a piece: opening many small ones takes longer


def sampled(source: Source, numbers: Sequence[int], states: int) -> Iterator[dict[int, np.ndarray]]:
    """Yield the states of a sample by place; what cannot be read is counted, block by block."""

    def read(tokens: slice) -> dict[int, np.ndarray]:
        return {number: _read(source.run, tokens, number) for number in numbers}

    for _, found in source.coverage.readable(_sample(source, states), read):
        yield found


def _read(run: StoredRun, tokens: slice, number: int) -> np.ndarray:
    """States of iterations 1..T at one place."""
    if number == STATE:
        return run.state(tokens=tokens).values[:, :, first_iteration(run) :]
    return run.site("resid_post", tokens=tokens, layer=number).values


def _sample(source: Source, states: int) -> list[slice]:
    """Choose evenly spaced pieces of a few chunks with at least this many states together."""
    run = source.run
    chunks = [piece for part in run.blocks(_PIECE) for piece in source.coverage.pieces(part)]
    if not chunks:
        return []
    per_chunk = (chunks[0].stop - chunks[0].start) * run.restarts * len(run.kept_iterations)
    wanted = min(len(chunks), -(-states // per_chunk))
    chosen = np.unique(np.linspace(0, len(chunks) - 1, wanted).round().astype(int))
    return [chunks[index] for index in chosen]
