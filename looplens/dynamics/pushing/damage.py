"""Replace one token's state by that of another sample, and see which tokens notice, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr

from looplens.dynamics.maps.labelled import Progress, labelled, variable
from looplens.dynamics.maps.recorded import Recorded, recorded
from looplens.dynamics.pushing.distance import relative
from looplens.dynamics.pushing.donating import DonatedBy, donated
from looplens.dynamics.pushing.frontier import frontier_speed
from looplens.dynamics.pushing.pushes import pass_of
from looplens.dynamics.pushing.variants import STATE, Loop, side_by_side
from looplens.errors import InputError
from looplens.models.inputs import whole_number


@torch.no_grad()
def damage_cone(
    model: Any,
    source: Any,
    *,
    prompt: int = 0,
    restart: int = 0,
    tokens: int | Sequence[int] | None = None,
    donor: DonatedBy = None,
    site: str = STATE,
    iteration: int | None = None,
    hold: bool = False,
    iterations: int = 32,
    threshold: float = 0.05,
    dtype: torch.dtype | None = None,
    progress: Progress = None,
) -> xr.Dataset:
    r"""Follow the damage that a foreign state does, over tokens and passes.

    At one pass the activation of one token is replaced by what it is at the same pass and position
    of another sample. With s' the damaged and s the undamaged states,

    .. math:: d_{t,i} = \frac{|s'_{t,i} - s_{t,i}|}{|s_{t,i}|}

    and a token counts as damaged while d exceeds ``threshold``. The frontier is the largest
    distance, in positions, of a token damaged so far; its speed is the slope of the frontier
    against the pass, from the damage on until it has stopped growing.

    Parameters
    ----------
    model : LoopedTransformer or LoopedModel
        The model.
    source : Run, str, sequence of int or tensor
        A run of it, or one prompt.
    prompt, restart : int
        Of a run.
    tokens : int or sequence of int, optional
        Positions that are replaced, each in a run of its own; by default all.
    donor : optional
        The other sample: the number of a prompt of the run (by default the next one that is long
        enough), a prompt that is run now, or a Trace, a LoopCache or another Run.
    site : str
        What is replaced; by default the state of the loop.
    iteration : int, optional
        At which pass, by default the first recorded one that can be: the cone is a matter of the
        transient.
    hold : bool
        Clamp the token to the donor in every later pass too; a stored donor must be long enough.
    iterations : int
        Passes to run after it.
    threshold : float
        Relative distance above which a token is damaged.
    dtype : torch.dtype, optional
        See :func:`recorded`.
    progress : callable, optional
        Called with the tokens done and all of them.

    Returns
    -------
    Dataset
        Over ``token`` (the replaced one): ``distance`` (token, affected, iteration), where
        ``affected`` is a position; ``arrival`` and ``healed`` (token, affected): first pass at
        which a token is damaged, and first one from which it is not any more, NaN without;
        ``frontier`` (token, iteration), in positions; ``speed`` (positions per pass) with
        ``speed_error`` and ``speed_r2``, NaN where it is not defined, for the reason in
        ``speed_note``; ``affected_share`` of the other tokens that could be.

    Raises
    ------
    InputError, SiteError, AnalysisError
        As :func:`recorded` and :func:`looplens.recording.hooks_for`; if no donor is known, or it is
        too short for a token.

    Notes
    -----
    Attention reaches every later token in one pass, so a cone is a matter of size: of when the
    damage exceeds the threshold. The measure is that of Zhang et al. [1]_ as summarised in notes;
    the text of the paper was not read, and an independent reproduction that the notes report found
    the slope compatible with the speed of the answers in 1 of 12 cases.

    References
    ----------
    .. [1] Zhang et al., arXiv:2607.20594 (damage cone, frontier speed).
    """
    passes = whole_number(iterations, "iterations", least=1)
    if not 0 < threshold < 1e6:
        raise InputError(f"threshold must be above 0, got {threshold!r}")
    found = recorded(model, source, prompt=prompt, restart=restart, dtype=dtype)
    positions = found.positions(tokens)
    loop = Loop(found.step)
    kept = [t for t in found.iterations[1:] if t >= loop.first]
    at = pass_of(found, kept[0] if kept and iteration is None else iteration)
    end = at + passes
    change, said = donated(model, found, donor, site, at, end if hold else at, positions)
    variants = [(replace(change, tokens=p, donor_tokens=p),) for p in positions]
    distance = np.zeros((len(positions), found.n_pos, passes + 1))
    start = loop.reached(found, at - 1)
    for rows, t, states, unchanged in side_by_side(loop, start, at - 1, end, variants):
        distance[rows, :, t - at] = relative(states - unchanged, unchanged).cpu().numpy()
        if progress is not None and t == end:
            progress(rows.stop, len(positions))
    return _dataset(found, positions, distance, at, threshold).assign_attrs(
        donor=said, site=site, hold=hold, iterations=passes
    )


def _dataset(
    found: Recorded, positions: list[int], distance: np.ndarray, at: int, threshold: float
) -> xr.Dataset:
    passes = np.arange(at, at + distance.shape[-1])
    damaged: np.ndarray = distance > threshold  # token affected iteration
    ever: np.ndarray = np.any(damaged, axis=-1)
    arrival = np.where(ever, passes[damaged.argmax(-1)], np.nan)
    last = damaged.shape[-1] - 1 - damaged[..., ::-1].argmax(-1)
    heals = ever & (last < damaged.shape[-1] - 1)
    healed = np.where(heals, passes[np.minimum(last + 1, len(passes) - 1)], np.nan)
    own = np.array(positions)[:, None]
    place = np.arange(found.n_pos)[None]
    reach = np.abs(place - own)
    possible = (place > own) if found.causal else (place != own)
    so_far = np.maximum.accumulate(damaged, axis=-1)
    frontier = np.where(so_far, reach[..., None], 0).max(1).astype(float)
    reached = (ever & possible).sum(1) / np.maximum(possible.sum(1), 1)
    speeds = [
        frontier_speed(frontier[i], bool(ever[i, p]), int(possible[i].sum()))
        for i, p in enumerate(positions)
    ]
    number = ("token",)
    data = {
        "distance": variable(
            ("token", "affected", "iteration"),
            distance,
            "distance from the undamaged over its norm",
        ),
        "arrival": variable(
            ("token", "affected"), arrival, "first pass at which the token is damaged", "iteration"
        ),
        "healed": variable(
            ("token", "affected"), healed, "pass from which it is not any more", "iteration"
        ),
        "frontier": variable(
            ("token", "iteration"), frontier, "distance of the farthest damaged so far", "positions"
        ),
        "speed": variable(
            number, [s.slope for s in speeds], "speed of the frontier", "positions per iteration"
        ),
        "speed_error": variable(
            number, [s.error for s in speeds], "standard error of speed", "positions per iteration"
        ),
        "speed_r2": variable(
            number, [s.r2 for s in speeds], "share of the frontier's variance on the line"
        ),
        "speed_note": variable(number, [s.note for s in speeds], "why there is no speed"),
        "affected_share": variable(
            number,
            np.where(possible.any(1), reached, np.nan),
            "share of the other tokens that could see it and were damaged",
        ),
    }
    return labelled(
        found,
        positions,
        data,
        coords={"affected": np.arange(found.n_pos), "iteration": passes},
        method="every token replaced alone, beside an undamaged row of the same batch",
        iteration=at,
        threshold=threshold,
    )
