"""The branches of a prompt's tokens: all together, or each with the others held still."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from looplens.dynamics.branches.crossings import Crossing, crossings
from looplens.dynamics.branches.families import AtGain, OfSequence, OfTokens, WithGain
from looplens.dynamics.branches.following import branches_of
from looplens.dynamics.branches.gains import Knob
from looplens.dynamics.branches.results import (
    DEGENERATE,
    FOLLOWED,
    NO_CONTEXT,
    NO_POINT,
    Followed,
)
from looplens.dynamics.branches.tracing import Settings, Traced, go_on, states_of
from looplens.dynamics.eigen.resting import resting
from looplens.dynamics.maps.labelled import Progress
from looplens.dynamics.maps.recorded import Recorded
from looplens.dynamics.solving.fixed_point import solve

OWN = 1.0  # the gain at which the model is as it was recorded


def of_sequence(
    found: Recorded,
    knob: Knob,
    here: Float[Tensor, "pos d_model"],
    chosen: list[int],
    settings: Settings,
    progress: Progress,
) -> tuple[list[Followed], str]:
    """Follow the tokens of a prompt together, up to the first without a fixed point."""
    rest = resting(found.step, here, causal=found.causal, upto=max(chosen))
    known = rest.of_sequence
    first = stop = found.n_pos if known.all() else int(np.argmin(known))
    if found.causal:
        stop = min(stop, max(chosen) + 1)
    inside = [p for p in chosen if p < stop] if found.causal or stop == found.n_pos else []
    known_of: dict[int, Followed] = {}
    attention, begun = "", None
    while inside:
        part = knob.before(stop, must_act=begun is None)
        family = OfSequence(part, causal=found.causal)
        if begun is None:
            start = rest.states[None, :stop]
            map_, (branch,), marks = branches_of(family, start, _gains(1, here), settings)
        else:
            map_ = WithGain(family, map_.scale)
            branch = go_on(map_, [begun], settings)[0]
            marks = crossings(map_, [branch], settings)
        attention = map_.attention
        if branch is None:
            break  # degenerate: a branch point, or a line of fixed points
        # A token sees none after it, so a fold of a later one is no fold of its own branch.
        folds = [c.block for c in marks if c.kind == "fold"] if found.causal else []
        latest = max(folds, default=-1)
        states = states_of(map_, branch, 0)
        numbers = dict(enumerate(found.numbers(range(stop)))) if found.causal else {}
        for position in inside:
            mine = [c for c in marks if c.block <= position] if found.causal else marks
            if position >= latest:
                known_of[position] = Followed(
                    status=FOLLOWED,
                    branch=branch,
                    states=states[:, position],
                    block=position if found.causal else 0,
                    crossings=mine,
                    crossing_states=np.array([c.state[position] for c in mine]),
                    numbers=numbers,
                )
        inside, stop = [p for p in inside if p < latest], latest
        if inside:
            begun = _of_first(branch, marks, stop, here.shape[1])
        if progress is not None:
            progress(len(known_of), len(chosen))
    missing = [
        NO_CONTEXT if found.causal and p > first else DEGENERATE if known[p] else NO_POINT
        for p in chosen
    ]
    return [
        known_of.get(p, Followed(status=word)) for p, word in zip(chosen, missing, strict=True)
    ], attention


def _of_first(branch: Traced, marks: list[Crossing], stop: int, width: int) -> Traced:
    """Return the branch of the first tokens of a prompt, as far as no later one turns it."""
    later = [c.point for c in marks if c.kind == "fold" and c.block >= stop]
    below = max((point for point in later if point < branch.start), default=None)
    above = min((point for point in later if point > branch.start), default=None)
    first = 0 if below is None else math.ceil(below)
    end = len(branch.z) if above is None else math.floor(above) + 1
    closed = any(why.startswith("closed") for why in branch.ended)
    low, high = branch.ended
    ended = (
        "" if closed or below is not None else low,
        "" if closed or above is not None else high,
    )
    found = branch.part(first, end, ended)
    size = stop * width

    def kept(z: Tensor) -> Tensor:
        return torch.cat([z[:size], z[-1:]])

    found.z = [kept(z) for z in found.z]
    # The tangent of the first tokens is a part of that of all, since they do not see the others.
    found.tangent = [kept(way) / kept(way).norm() for way in found.tangent]
    found.eigenvalues = [values[:stop] for values in found.eigenvalues]
    return found


def of_tokens(
    found: Recorded,
    knob: Knob,
    here: Float[Tensor, "pos d_model"],
    chosen: list[int],
    settings: Settings,
) -> tuple[list[Followed], str]:
    """Follow every token by itself, the others held still."""
    family = alone(knob, here, chosen)
    points, verified = _solved(family, found, here, chosen)
    rows = verified.nonzero()[:, 0]
    each = [Followed(status=NO_POINT) for _ in chosen]
    if not len(rows):
        return each, ""
    map_, branches, marks = branches_of(
        family.rows(rows), points[rows], _gains(len(rows), here), settings
    )
    for place, (row, branch) in enumerate(zip(rows.tolist(), branches, strict=True)):
        if branch is None:
            each[row] = Followed(status=DEGENERATE)
            continue
        mine = [c for c in marks if c.row == place]
        each[row] = Followed(
            status=FOLLOWED,
            branch=branch,
            states=states_of(map_, branch, place),
            crossings=mine,
            crossing_states=np.array([c.state for c in mine]),
            numbers={0: found.numbers(chosen)[row]},
        )
    return each, map_.attention


def _solved(
    family: OfTokens, found: Recorded, here: Tensor, chosen: list[int]
) -> tuple[Tensor, Bool[Tensor, " token"]]:
    """Solve for tokens from their recorded states, and then from the mean of their motion."""
    map_ = AtGain(family, _gains(len(chosen), here))
    first = solve(map_, here[chosen])
    points, verified = first.best.state, first.verdict.verified
    missing = (~verified).nonzero()[:, 0]
    if len(missing):
        mean = found.states[len(found.states) // 2 :].mean(0)[chosen][missing]
        second = solve(map_.rows(missing), mean, method="newton", max_iterations=60)
        points[missing], verified[missing] = second.best.state, second.verdict.verified
    return points, verified


def alone(knob: Knob, here: Float[Tensor, "pos d_model"], chosen: list[int]) -> OfTokens:
    """Return the family of some tokens, each with the others held at their states."""
    positions = torch.as_tensor(chosen, device=here.device)
    return OfTokens(knob, here.expand(len(chosen), -1, -1), positions)


def _gains(count: int, like: Tensor) -> Tensor:
    return torch.full((count,), OWN, dtype=like.dtype, device=like.device)
