"""The fixed points of a model's tokens: with the others held still, or of the whole sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from looplens.dynamics.eigen.resting import resting
from looplens.dynamics.maps.labelled import Progress
from looplens.dynamics.maps.loop_maps import Scope, SequenceMap, TokenMap, check_scope
from looplens.dynamics.maps.recorded import Recorded, recorded
from looplens.dynamics.maps.state_map import StateMap
from looplens.dynamics.solving.fixed_point import Method
from looplens.dynamics.solving.results import dataset_of
from looplens.dynamics.solving.searching import Points, search
from looplens.dynamics.solving.starting import REACH, Starts, starts_of
from looplens.models.inputs import whole_number

_Search: TypeAlias = Callable[[StateMap, Starts, list[int]], list[Points]]
_NUMBERS = 2**24  # of all states of all rows of a call together, which bounds its memory


def fixed_points(
    model: Any,
    source: Any,
    *,
    prompt: int = 0,
    restart: int = 0,
    tokens: int | Sequence[int] | None = None,
    scope: Scope = "token",
    iteration: int | None = None,
    starts: int = 8,
    method: Method = "auto",
    walk: int = 256,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    progress: Progress = None,
) -> xr.Dataset:
    r"""Find the fixed points under recorded states, unstable ones too.

    Each token is searched from its recorded state, from the mean of the last half of its
    trajectory (what an orbit turns about) and from random starts; iteration is followed from the
    recorded state and from the random starts, and where it does not come to rest, Newton's method
    begins at the mean of the motion too. What is found is verified and merged.

    Parameters
    ----------
    model : LoopedTransformer or LoopedModel
        The model that was recorded, or that is to be run.
    source : Run, str, sequence of int or tensor
        A run, or one prompt.
    prompt, restart : int
        Of a run.
    tokens : int or sequence of int, optional
        Positions of the prompt; negative ones count back. All by default.
    scope : {"token", "sequence"}
        ``token``: each token with the others held at their recorded states. ``sequence``: all
        together. In a causal model no token sees later ones, so it is solved from left to right,
        each with the earlier ones held at their fixed points.
    iteration : int, optional
        Of the recorded state; the last by default.
    starts : int
        Random starts of each token.
    method : str
        Of the searches from the recorded state and the mean: see :func:`fixed_point`.
    walk : int
        Iterations that a start may take to arrive somewhere.
    seed : int
        Of the random starts.
    dtype : torch.dtype, optional
        Of the computation: the model's, and at least float32, by default.
    progress : callable, optional
        Called with tokens done and in all; in ``sequence``, tokens are gone through twice.

    Returns
    -------
    Dataset
        Over ``token`` and ``point``, the nearest to the mean of the trajectory first (in
        ``sequence``, the one at which later tokens see it). ``fixed_point`` holds verified points
        only. ``status`` is that of the first: ``stable``, ``unstable``; without any ``degenerate``
        (the residual is at the floor, but a root near by does not follow), ``outside`` (it is
        there only beyond four times the largest norm of the trajectory), ``none``, or ``no
        context`` (in ``sequence``: an earlier token has none).

    Raises
    ------
    InputError
        If the model is not the one of the recording, its loop has no step, or a choice is out of
        range.
    AnalysisError
        If the run does not hold what is needed, or states are not finite.

    References
    ----------
    Sussillo and Barak, Neural Computation 25 (2013), for fixed points, unstable ones too, as the
    explanation of a recurrent network's motion (from memory, text not read).
    """
    check_scope(scope)
    count = whole_number(starts, "starts", least=0)
    walk = whole_number(walk, "walk", least=1)
    seed = whole_number(seed, "seed", least=0)
    found = recorded(model, source, prompt=prompt, restart=restart, dtype=dtype)
    chosen = found.positions(tokens)
    begin = starts_of(found, iteration, count, seed)

    def look(map_: StateMap, where: Starts, rows: list[int]) -> list[Points]:
        return search(
            map_,
            where.given[rows],
            where.drawn[rows],
            centre=where.centre[rows],
            reach=where.reach[rows],
            method=method,
            walk=walk,
        )

    known: dict[int, Points] = {}
    if scope == "sequence" and not found.causal:
        map_: StateMap = SequenceMap(found.step)
        together = look(map_, begin.together(), [0])[0]
        known = {p: together.of_token(p, found.n_pos) for p in chosen}
        tell = _Told(progress, 1)
    else:
        context, seen = begin.here, [True] * found.n_pos
        tell = _Told(progress, len(chosen))
        if scope == "sequence":
            tell = _Told(progress, max(chosen) + 1 + len(chosen))
            context, seen, begin = _in_order(found, begin, max(chosen), look, tell)
        map_ = TokenMap(found.step, context, range(found.n_pos))
        for part in _parts(found, [p for p in chosen if seen[p]], count):
            rows = map_.rows(torch.tensor(part, device=context.device))
            known.update(zip(part, look(rows, begin, part), strict=True))
            tell.more(len(part))
    tell.all()
    return dataset_of(
        found,
        begin,
        chosen,
        [known.get(p) for p in chosen],
        map_,
        scope=scope,
        iteration=found.iteration(iteration),
        starts=count,
        walk=walk,
        seed=seed,
        search=method,
        reach=REACH,
    )


def _in_order(
    found: Recorded, begin: Starts, last: int, look: _Search, tell: _Told
) -> tuple[Tensor, list[bool], Starts]:
    """Put tokens of a causal model at their fixed points, from left to right.

    Where that leads to none at a token, all of its starts are searched from before the later ones
    are given up.

    Returns
    -------
    states : Float[Tensor, "pos d_model"]
        The tokens at their fixed points, as far as there are any.
    seen : list of bool
        Whether all that a token sees are at one.
    starts : Starts
        With these points as centres: they are to be found again, and to come first.
    """
    states, solved = begin.here, 0
    while True:
        rest = resting(
            found.step,
            states,
            causal=True,
            solved=solved,
            upto=last,
            stop=True,
            progress=tell.at,
        )
        states = rest.states
        lacking = np.flatnonzero(~rest.verified[: last + 1])
        if not len(lacking):
            break
        stuck = int(lacking[0])
        points = look(TokenMap(found.step, states, [stuck]), begin, [stuck])[0]
        if not len(points.states):
            break
        states, solved = states.clone(), stuck + 1
        states[stuck] = points.states[0]
    verified = torch.as_tensor(rest.verified, device=states.device)[:, None]
    seen = [bool(rest.verified[:position].all()) for position in range(found.n_pos)]
    return states, seen, replace(begin, centre=torch.where(verified, states, begin.centre))


class _Told:
    """What is told of the progress, which does not go back."""

    def __init__(self, progress: Progress, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def at(self, done: int, total: int) -> None:
        """Tell that so many are done."""
        self.done = max(self.done, done)
        if self.progress:
            self.progress(self.done, self.total)

    def more(self, count: int) -> None:
        """Tell that so many more are done."""
        self.at(self.done + count, self.total)

    def all(self) -> None:
        """Tell that it is finished."""
        self.at(self.total, self.total)


def _parts(found: Recorded, positions: list[int], starts: int) -> list[list[int]]:
    """Split tokens so that the states of a call stay few."""
    of_token = (starts + 2) * found.n_pos * found.step.looped.d_model
    most = max(1, _NUMBERS // of_token)
    return [positions[i : i + most] for i in range(0, len(positions), most)]
