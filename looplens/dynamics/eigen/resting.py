"""The fixed points of all tokens of a prompt, those that the loop runs away from too.

A causal model is solved from left to right. Tokens before some place are held at their fixed
points and the others run: the first that does not come to rest does so by itself, since nothing
that it sees moves. Its fixed point is solved for, it is held there, and the others run again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from looplens.dynamics.eigen.running import amplitude, at_rest, run_on, still_moves
from looplens.dynamics.maps.labelled import Progress
from looplens.dynamics.maps.loop_maps import SequenceMap, TokenMap
from looplens.dynamics.maps.loop_step import LoopStep
from looplens.dynamics.maps.state_map import StateMap
from looplens.dynamics.solving.fixed_point import Method, solve

_RELAX = 128  # iterations that the others run
_ALONE = 512  # iterations of a token that does not come to rest
_WINDOW = 128  # of these, the last that are looked at


@dataclass(frozen=True, kw_only=True, slots=True)
class Rest:
    """Where tokens rest, by position of the prompt.

    Attributes
    ----------
    states : Float[Tensor, "pos d_model"]
        Fixed points where `verified`; else the mean of the motion.
    verified : Bool[ndarray, "pos"]
        Whether the token has a fixed point there, with the others held at theirs.
    context : Bool[ndarray, "pos"]
        Whether all that the token sees are at verified fixed points.
    residual : Float[ndarray, "pos"]
        |f(s) - s| / |s| at the state.
    alone : Float[ndarray, "pos"]
        Amplitude of the motion of a token while those before it (all others, in a model that is not
        causal) are held: 0 where it comes to rest.
    method : list of str
        What found the point.
    """

    states: Float[Tensor, "pos d_model"]
    verified: Bool[np.ndarray, " pos"]
    context: Bool[np.ndarray, " pos"]
    residual: Float[np.ndarray, " pos"]
    alone: Float[np.ndarray, " pos"]
    method: list[str]

    @property
    def of_sequence(self) -> Bool[np.ndarray, " pos"]:
        """Which tokens are at a fixed point of the whole sequence, as far as they see it."""
        return self.verified & self.context


def resting(
    step: LoopStep,
    start: Float[Tensor, "pos d_model"],
    *,
    causal: bool,
    solved: int = 0,
    upto: int | None = None,
    starts: int = 64,
    seed: int = 0,
    stop: bool = False,
    progress: Progress = None,
) -> Rest:
    """Find the fixed point of every token.

    Parameters
    ----------
    step : LoopStep
        The loop.
    start : Float[Tensor, "pos d_model"]
        Where it has come to.
    causal : bool
        Whether a token sees itself and earlier ones only.
    solved : int
        In a causal model, positions before this one are at their fixed points already.
    upto : int, optional
        Last position that is wanted; later ones stay unverified.
    starts : int
        Random starts of a token for which the state and the mean of its motion lead nowhere.
    seed : int
        Of these.
    stop : bool
        End at the first token of a causal model that has no fixed point; later ones stay
        unverified.
    progress : callable, optional
        Called with tokens done and in all.
    """
    n_pos = len(start)
    last = n_pos - 1 if upto is None else upto
    work = _Work(step, start.clone(), starts, seed)
    if not causal:
        work.whole_sequence()
        return work.result()
    work.settle(solved)
    place = solved
    while place <= last:
        held = torch.arange(n_pos, device=start.device) < place
        states, _ = run_on(step, work.states[None], _RELAX, keep=2, held=held[None])
        moving = (~at_rest(states[-2, 0], states[-1, 0])).cpu().numpy()
        ahead = np.flatnonzero(moving[place : last + 1])
        mover = place + int(ahead[0]) if len(ahead) else last + 1
        work.states[place:] = states[-1, 0, place:]
        work.take(list(range(place, mover)))
        if mover <= last:
            work.alone_at(mover)
        place = mover + 1
        if progress:
            progress(min(place, last + 1), last + 1)
        if stop and not work.verified[: min(place, last + 1)].all():
            break
    return work.result()


class _Work:
    """States and what is known of them, while tokens are gone through."""

    def __init__(self, step: LoopStep, states: Tensor, starts: int, seed: int) -> None:
        self.step, self.states, self.starts = step, states, starts
        self.draw = torch.Generator().manual_seed(seed)
        n_pos = len(states)
        self.verified = np.zeros(n_pos, dtype=bool)
        self.context = np.zeros(n_pos, dtype=bool)
        self.residual = np.full(n_pos, np.nan)
        self.alone = np.full(n_pos, np.nan)
        self.method = [""] * n_pos

    def result(self) -> Rest:
        return Rest(
            states=self.states,
            verified=self.verified,
            context=self.context,
            residual=self.residual,
            alone=self.alone,
            method=self.method,
        )

    def settle(self, upto: int) -> None:
        """Take it that positions before one are at verified fixed points."""
        self.verified[:upto] = self.context[:upto] = True
        self.residual[:upto] = self.alone[:upto] = 0.0

    def take(self, positions: list[int]) -> None:
        """Verify tokens that came to rest."""
        if not positions:
            return
        map_ = TokenMap(self.step, self.states, positions)
        found = solve(map_, self.states[positions])
        self.states[positions] = found.best.state
        self.verified[positions] = found.verdict.verified.cpu().numpy()
        self._note(positions, found.best.residual, found.method)
        self.alone[positions] = 0.0
        for position in positions:
            self.context[position] = self.verified[:position].all()

    def alone_at(self, position: int) -> None:
        """Follow a token that does not come to rest while those before it do, and solve for it."""
        map_ = TokenMap(self.step, self.states, [position])
        path = _followed(map_, self.states[[position]])[:, 0]
        moves = bool(still_moves(path))
        self.alone[position] = float(amplitude(path)) if moves else 0.0
        self.context[position] = self.verified[:position].all()
        mean = path.mean(0)
        given = torch.stack([mean, path[-1]]) if moves else path[[-1]]
        if not self._solved(position, given, mean, "auto"):
            size = path[-1].norm() / path.shape[-1] ** 0.5
            noise = torch.randn(self.starts, path.shape[-1], generator=self.draw).to(path) * size
            times = torch.linspace(0, len(path) - 1, self.starts // 2).long()
            noise[: len(times)] = path[times]  # half of them from the motion itself
            if not self.starts or not self._solved(position, noise, mean, "newton"):
                self.states[position] = mean if moves else path[-1]

    def _solved(self, position: int, given: Tensor, near: Tensor, method: Method) -> bool:
        """Solve from several starts and keep the verified point nearest to a state."""
        map_ = TokenMap(self.step, self.states, [position] * len(given))
        found = solve(map_, given, method=method, max_iterations=60)
        apart = (found.best.state - near).norm(dim=-1)
        verified = found.verdict.verified
        best = int(torch.where(verified, apart, torch.inf).argmin())
        if not bool(verified.any()):
            best = int(found.best.residual.argmin())
        if not bool(verified[best]):
            self._note([position], found.best.residual[[best]], [""])
            return False
        self.states[position] = found.best.state[best]
        self.verified[position] = True
        self._note([position], found.best.residual[[best]], [found.method[best]])
        return True

    def _note(self, positions: list[int], residual: Tensor, method: Sequence[str]) -> None:
        size = self.states[positions].norm(dim=-1).clamp(min=torch.finfo(residual.dtype).tiny)
        self.residual[positions] = (residual / size).cpu().numpy()
        for position, name in zip(positions, method, strict=True):
            self.method[position] = name

    def whole_sequence(self) -> None:
        """Solve for all tokens at once, and see which of them move when the others do not."""
        n_pos = len(self.states)
        path = run_on(self.step, self.states[None], _ALONE, keep=_WINDOW)[0][:, 0]
        map_ = SequenceMap(self.step)
        rests = bool(at_rest(path[-2], path[-1]).all())
        given = path[-1:] if rests else torch.stack([path.mean(0), path[-1]])
        found = solve(map_, map_.flat(given), max_iterations=60)
        verified = found.verdict.verified
        best = int(torch.where(verified, found.best.residual, torch.inf).argmin())
        self.verified[:] = self.context[:] = bool(verified[best])
        self.states = map_.shaped(found.best.state)[best].clone()
        own = self.step(self.states[None]).detach()[0] - self.states
        self._note(list(range(n_pos)), own.norm(dim=-1), [found.method[best]] * n_pos)
        if not self.verified.any():
            self.states = path.mean(0)
        alone = _followed(TokenMap(self.step, self.states, list(range(n_pos))), path[-1])
        self.alone = np.where(still_moves(alone), amplitude(alone), 0.0)


def _followed(map_: StateMap, x: Tensor) -> Float[Tensor, "time row d_model"]:
    kept = []
    for iteration in range(_ALONE):
        x = map_(x)
        if iteration >= _ALONE - _WINDOW:
            kept.append(x)
    return torch.stack(kept)
