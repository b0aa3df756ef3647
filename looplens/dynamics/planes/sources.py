"""What a plane is laid through: the trajectories of a token from all restarts, and their ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from looplens.analysis import classify
from looplens.dynamics.maps.recorded import Recorded
from looplens.dynamics.planes.plane import Floats, standstill
from looplens.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What was recorded of one token.

    Attributes
    ----------
    paths : Float[ndarray, "restart iteration d_model"]
        Its states; NaN where a restart left the finite numbers.
    tails : Float[ndarray, "restart tail d_model"]
        The last quarter of them.
    limit : Float[ndarray, "d_model"]
        Where the chosen restart ends: its last state where it stands still, else the mean of its
        tail.
    moves : bool
        Whether the tail of the chosen restart spreads, by more than 0.1 % of its norm.
    """

    paths: Float[np.ndarray, "restart iteration d_model"]
    tails: Float[np.ndarray, "restart tail d_model"]
    limit: Float[np.ndarray, " d_model"]
    moves: bool

    @classmethod
    def of(cls, paths: Floats, restart: int) -> Seen:
        """Read the ends off trajectories."""
        last = max(1, paths.shape[1] // 4)
        tails = paths[:, -last:]
        mean = tails[restart].mean(0)
        spread = np.linalg.norm(tails[restart] - mean, axis=1).max()
        moves = bool(spread > standstill(mean, paths))
        limit = mean if moves else tails[restart, -1]
        return cls(paths=paths, tails=tails, limit=limit, moves=moves)

    @property
    def after_start(self) -> Floats:
        """The trajectories without the initial state, where there is more."""
        return self.paths[:, 1:] if self.paths.shape[1] > 1 else self.paths

    @property
    def limits(self) -> Floats:
        """Finite means of the tails and last states of all restarts: fixed points may lie there."""
        ends = np.concatenate([self.tails.mean(1), self.tails[:, -1]])
        return ends[np.isfinite(ends).all(1)]


def seen_of(rec: Recorded, positions: Sequence[int], restart: int) -> list[Seen]:
    """Return what was recorded of some tokens, from every restart of the run."""
    if rec.run is None:
        found = rec.states[:, list(positions)].cpu().numpy()[None]
    else:
        states = rec.run.state(tokens=np.array(rec.numbers(positions)))
        found = states.transpose("restart", "iteration", "token", "d_model").values
    return [Seen.of(found[:, :, row].astype(np.float64), restart) for row in range(len(positions))]


def starts_of(
    rec: Recorded, seen: Seen, iteration: int = 0
) -> Float[np.ndarray, "restart d_model"]:
    """Return the states of all restarts at an early iteration; NaN where it was not kept."""
    if iteration not in rec.iterations:
        return np.full_like(seen.paths[:, 0], np.nan)
    return seen.paths[:, rec.iterations.index(iteration)]


def regimes_of(rec: Recorded, position: int, paths: Floats) -> np.ndarray:
    """Return the regime of every restart: as stored in the run, else judged here.

    It is empty where there is no run of the detector and iterations are missing.
    """
    stored = None if rec.run is None else rec.run.analysis("classify")
    if stored is not None:
        found = stored["regime"].transpose("restart", "token").values
        return found[:, rec.numbers([position])[0]].astype(object)
    numbers = rec.iterations
    if len(numbers) < 2 or numbers[-1] - numbers[0] != len(numbers) - 1:
        return np.full(len(paths), "", dtype=object)
    dtype = "float32" if rec.run is None else rec.run.source_dtype
    return classify(paths, source_dtype=dtype).regime.astype(object)


def check_size(size: int) -> None:
    """Check the cells of a side of a grid.

    Raises
    ------
    InputError
        If there are too few to show anything, or so many that no figure would.
    """
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or not 3 <= size <= 257:
        raise InputError(f"size must be a whole number of cells from 3 to 257, got {size!r}")


def check_half(half: float | None) -> None:
    """Check half the width of a window.

    Raises
    ------
    InputError
        If it is no positive number.
    """
    if half is None:
        return
    if isinstance(half, bool) or not isinstance(half, int | float | np.number):
        raise InputError(f"half must be a number, got {half!r}")
    if not (np.isfinite(half) and half > 0):
        raise InputError(f"half must be positive, got {half}")


def context_of(rec: Recorded, iteration: int | None, context: Any) -> Float[Tensor, "pos d_model"]:
    """Return where the others are held.

    Raises
    ------
    InputError
        If a given context has another shape than the states, or is not finite.
    """
    if context is None:
        return rec.at(iteration)
    if iteration is not None:
        raise InputError("pass iteration= or context=, not both: each says where the others are")
    try:
        given = context if isinstance(context, Tensor) else torch.as_tensor(np.asarray(context))
        held = given.to(rec.states)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"context must be an array of states [pos, d_model]: {error}") from None
    if held.shape != rec.states.shape[1:] or not bool(held.isfinite().all()):
        raise InputError(
            f"context must hold finite states [pos, d_model] = {tuple(rec.states.shape[1:])}; got "
            f"shape {tuple(held.shape)}"
            + (" with numbers that are not finite" if held.shape == rec.states.shape[1:] else "")
        )
    return held
