"""Running many states at once: with a map that stays the same, or one that moves along."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from looplens.dynamics.maps.loop_maps import TokenMap
from looplens.dynamics.maps.recorded import Recorded
from looplens.dynamics.maps.state_map import Rows, StateMap
from looplens.dynamics.planes.slices import Slice
from looplens.errors import InputError

_REST = 8  # machine epsilons of the largest number of a state: a step below this is rest
_SAME_STEP = 1e-3  # relative difference of a first pass that is like the others

MapAt = Callable[[int, int], StateMap]
"""From (iteration, rows) to the map of that iteration."""


@torch.no_grad()
def run_rows(
    given: Slice, x: Rows, iterations: int, map_at: MapAt | None = None
) -> tuple[Float[Tensor, "row iteration n"], int]:
    """Run rows, and stop those that have come to rest where the map stays the same.

    Parameters
    ----------
    given : Slice
        The map.
    x : Float[Tensor, "row n"]
        Where the rows start.
    iterations : int
        How long they run.
    map_at : callable, optional
        The map of every iteration, where it changes.

    Returns
    -------
    paths : Float[Tensor, "row iteration n"]
        States of iterations 0 to `iterations`.
    steps : int
        Rows that were mapped.
    """
    paths = x[:, None].repeat(1, iterations + 1, 1)
    going = torch.arange(len(x), device=x.device)
    whole = part = given.map(len(x))
    floor = _REST * torch.finfo(x.dtype).eps
    steps = 0
    for iteration in range(iterations):
        part = part if map_at is None else map_at(iteration, len(going))
        before = paths[going, iteration]
        after = part(before)
        steps += len(going)
        paths[going, iteration + 1] = after
        if map_at is not None:
            continue
        # Largest numbers, not norms: squares of very large and very small states leave the range.
        size = after.abs().amax(-1)
        rest = (after - before).abs().amax(-1) <= floor * size
        rest |= ~size.isfinite()
        if int(rest.sum()) >= max(1, len(going) // 8):
            paths[going[rest], iteration + 1 :] = after[rest][:, None]
            going = going[~rest]
            if not len(going):
                break
            part = whole.rows(going)
    return paths, steps


def held_paths(
    given: Slice, starts: Float[np.ndarray, "row d_model"], iterations: Sequence[int]
) -> Float[np.ndarray, "row iteration d_model"]:
    """Follow states of the first of some iterations to the others; NaN once not finite."""
    numbers = [number - iterations[0] for number in iterations]
    paths, _ = run_rows(given, given.rows(torch.as_tensor(starts)), numbers[-1])
    states = torch.stack([given.states(paths[:, number]) for number in numbers], dim=1)
    found = states.double().cpu().numpy()
    return np.where(np.isfinite(found).all(-1, keepdims=True), found, np.nan)


@torch.no_grad()
def moving(rec: Recorded, iterations: int) -> tuple[int, list[Float[Tensor, "pos d_model"]]]:
    """Return the iteration that runs of the sequence start at, and the sequence from there on.

    Raises
    ------
    InputError
        If the initial state is not in the recording.
    """
    if rec.iterations[0] != 0:
        raise InputError(
            "scope='sequence' starts at the initial state, and iteration 0 was not kept: record "
            "it, or take scope='token'"
        )
    first, states = 0, [rec.states[0]]
    if len(rec.states) > 1 and rec.iterations[1] == 1:
        after = rec.states[1]
        if float((rec.step(states[0][None])[0] - after).norm()) > _SAME_STEP * float(after.norm()):
            # The first pass is another one than the rest: the slice lies after it.
            first, states = 1, [after]
    for _ in range(iterations):
        states.append(rec.step(states[-1][None])[0])
    return first, states


def driven(rec: Recorded, contexts: Sequence[Tensor], position: int) -> MapAt:
    """Return the map of a token whose others move as they do anyway."""

    def map_at(iteration: int, rows: int) -> StateMap:
        return TokenMap(rec.step, contexts[iteration], [position]).each(rows)

    return map_at
