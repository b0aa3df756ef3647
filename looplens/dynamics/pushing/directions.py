"""Directions to push a token in: random, given, or towards where another restart ended."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from looplens.dynamics.maps.recorded import Recorded
from looplens.errors import AnalysisError, InputError

RESTARTS = "restarts"
DirectionsLike = int | str | Tensor


def directions_of(
    wanted: DirectionsLike,
    found: Recorded,
    iteration: int,
    positions: Sequence[int],
    floor: float,
    seed: int,
) -> tuple[Float[Tensor, "token direction d_model"], list[str], Float[Tensor, "token direction"]]:
    """Return what sizes multiply, names, and how far that which is pointed at is.

    Parameters
    ----------
    wanted : int, "restarts" or Float[Tensor, "*token direction d_model"]
        So many random ones, the same for every token; towards the states of the other restarts of
        the run; or the directions themselves, for every token alike or for each its own.
    found : Recorded
        The trajectory.
    iteration : int
        Where the other restarts are taken.
    positions : sequence of int
        The tokens.
    floor : float
        Restarts that are nearer than this share of the norm are at the same place.
    seed : int
        Of random directions.

    Returns
    -------
    directions : Float[Tensor, "token direction d_model"]
        As long as the state is; towards a restart, the whole way there. NaN where another restart
        is at the same place, and where the state is 0.
    names : list of str
        One a direction.
    away : Float[Tensor, "token direction"]
        Distance of the other restart over the norm of the state; NaN of other directions.

    Raises
    ------
    InputError
        If the directions do not fit, one of them has no length, or there are none.
    AnalysisError
        If there is no other restart.
    """
    state = found.at(iteration)[list(positions)]
    count, width = state.shape
    norm = state.norm(dim=-1)[:, None, None]  # token 1 1
    norm = norm.masked_fill(norm == 0, torch.nan)  # sizes in norms of nothing are none
    nothing = torch.full((count, 1), torch.nan, dtype=state.dtype, device=state.device)
    if isinstance(wanted, str) and wanted == RESTARTS:
        others, names = _others(found, iteration, positions)
        gap = others.to(state) - state[:, None]
        away = gap.norm(dim=-1) / norm[..., 0]
        same = away <= floor
        away = away.masked_fill(same, torch.nan)
        return gap.masked_fill(same[..., None], torch.nan), names, away
    if isinstance(wanted, Tensor):
        if wanted.ndim not in (2, 3) or wanted.shape[-1] != width or not wanted.numel():
            raise InputError(
                f"directions must have the shape [direction, {width}], or [{count}, direction, "
                f"{width}] for every token its own; got {tuple(wanted.shape)}"
            )
        if wanted.ndim == 3 and len(wanted) != count:
            raise InputError(f"directions for {len(wanted)} tokens, but {count} are pushed")
        given = wanted.to(state).expand(count, *wanted.shape[-2:])
        length = given.norm(dim=-1, keepdim=True)
        if not bool((length.isfinite() & (length > 0)).all()):
            raise InputError("a direction has no length, or numbers that are not finite")
        names = [f"given {number}" for number in range(given.shape[1])]
        return norm * given / length, names, nothing.expand(-1, given.shape[1])
    if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1:
        raise InputError(
            "directions must be a number of random ones, 'restarts', or a tensor [direction, "
            f"d_model]; got {wanted!r}"
        )
    draw = torch.Generator().manual_seed(seed)
    random = torch.randn(wanted, width, generator=draw, dtype=torch.float64)
    unit = (random / random.norm(dim=-1, keepdim=True)).to(state).expand(count, -1, -1)
    return norm * unit, [f"random {number}" for number in range(wanted)], nothing.expand(-1, wanted)


def _others(
    found: Recorded, iteration: int, positions: Sequence[int]
) -> tuple[Float[Tensor, "token restart d_model"], list[str]]:
    run = found.run
    if run is None or run.restarts < 2:
        raise AnalysisError(
            "directions='restarts' points to where other restarts are: it needs a run of at least "
            "two. Record with restarts=2 or more, or give directions."
        )
    rest = [number for number in range(run.restarts) if number != found.restart]
    states = [
        run.state(restart=number, tokens=found.tokens).sel(iteration=iteration).values
        for number in rest
    ]
    chosen = torch.stack([torch.as_tensor(values)[list(positions)] for values in states], dim=1)
    return chosen, [f"restart {number}" for number in rest]
