"""Three ways down the residual |f(s) - s|: damped iteration, Anderson mixing, Newton-Krylov.

Each takes rows of states and improves every row as far as it gets. Whether a row may be called a
fixed point is decided in :mod:`looplens.dynamics.solving.verifying`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from looplens.dynamics.maps.state_map import Rows, StateMap
from looplens.dynamics.solving.krylov import begin, extend, solve_shifted

FLOOR_STEPS = 32  # machine epsilons of its norm that the residual of a state at rest may have
_HISTORY = 6  # differences that Anderson mixing looks back on
_HALVINGS = 10  # of a Newton step
_STALLED = 3  # Newton steps without progress
_CHUNK = 8  # products between two looks at GMRES


@dataclass(slots=True)
class Best:
    """The state of least residual that every row has come to.

    Attributes
    ----------
    state : Float[Tensor, "row n"]
        The states.
    residual : Float[Tensor, "row"]
        Their |f(s) - s|; infinite where no finite one was met.
    iterations : Int[Tensor, "row"]
        Iterations that were spent.
    """

    state: Rows
    residual: Float[Tensor, " row"]
    iterations: Int[Tensor, " row"]

    @classmethod
    def at(cls, map_: StateMap, x: Rows) -> Best:
        """Begin with given states."""
        size = map_.residual(x)[1]
        found = torch.where(size.isfinite(), size, torch.inf)
        return cls(x.clone(), found, torch.zeros(len(x), dtype=torch.long, device=x.device))

    def take(self, x: Rows, size: Float[Tensor, " row"]) -> Tensor:
        """Keep what is better; returns which rows are."""
        better = size.isfinite() & (size < self.residual)
        self.state = torch.where(better[:, None], x, self.state)
        self.residual = torch.where(better, size, self.residual)
        return better

    def solved(self) -> Tensor:
        """Return which rows are at the floor of rounding."""
        return self.residual <= floor_of(self.state)


def floor_of(x: Rows) -> Float[Tensor, " row"]:
    """Return the residual that rounding may leave."""
    return FLOOR_STEPS * torch.finfo(x.dtype).eps * x.norm(dim=-1)


def iterate(map_: StateMap, start: Rows, limit: int, damping: float = 1.0) -> Best:
    """Go on with s + damping (f(s) - s) until every row is at rest or has left."""
    best, x = Best.at(map_, start), start
    for _ in range(limit):
        going = ~best.solved() & x.isfinite().all(-1)
        if not bool(going.any()):
            break
        r, size = map_.residual(x)
        best.take(x, size)
        best.iterations += going
        x = torch.where(going[:, None], x + damping * r, x)
    best.take(x, map_.residual(x)[1])
    return best


def anderson(map_: StateMap, start: Rows, limit: int, damping: float = 1.0) -> Best:
    """Mix the last steps so that the residual, taken for linear, is least.

    References
    ----------
    Walker and Ni, SIAM J. Numer. Anal. 49 (2011), algorithm AA in its unconstrained form.
    """
    best, x = Best.at(map_, start), start
    states: list[Tensor] = []
    residuals: list[Tensor] = []
    for _ in range(limit):
        going = ~best.solved() & x.isfinite().all(-1)
        if not bool(going.any()):
            break
        r, size = map_.residual(x)
        best.take(x, size)
        best.iterations += going
        states, residuals = [*states, x][-_HISTORY:], [*residuals, r][-_HISTORY:]
        step = damping * r
        if len(states) > 1:
            dx = torch.stack(states, -1).diff(dim=-1)
            dr = torch.stack(residuals, -1).diff(dim=-1)
            weights = torch.linalg.lstsq(
                dr.double().cpu(), r.double().cpu()[..., None], driver="gelsd"
            ).solution.to(x)
            step = step - ((dx + damping * dr) @ weights)[..., 0]
        x = torch.where((going & step.isfinite().all(-1))[:, None], x + step, x)
    best.take(x, map_.residual(x)[1])
    return best


def newton(map_: StateMap, start: Rows, limit: int, krylov: int) -> Best:
    """Newton's method with GMRES on I - J and halved steps; finds unstable points too.

    References
    ----------
    Knoll and Keyes, J. Comput. Phys. 193 (2004), section 2.
    """
    best = Best.at(map_, start)
    stalled = torch.zeros(len(start), dtype=torch.long, device=start.device)
    for _ in range(limit):
        # Below the floor a step may still halve the residual: a row goes on until none does.
        going = best.residual.isfinite() & (best.residual > 0) & (stalled < _STALLED)
        going &= ~(best.solved() & (stalled > 0))
        rows = going.nonzero()[:, 0]
        if not len(rows):
            break
        x = best.state[rows]
        r, size = map_.rows(rows).residual(x)
        step, _ = newton_step(map_.rows(rows), x, r, size, krylov)
        trial, reached = _line_search(map_.rows(rows), x, size, step)
        better = reached < size
        gained = better & (reached < 0.9 * size)
        best.state[rows] = torch.where(better[:, None], trial, x)
        best.residual[rows] = torch.where(better, reached, size)
        best.iterations[rows] += 1
        stalled[rows] = torch.where(gained, 0, stalled[rows] + 1)
    return best


def newton_step(
    map_: StateMap, x: Rows, r: Rows, size: Float[Tensor, " row"], krylov: int, aim: float = 1e-3
) -> tuple[Rows, Float[Tensor, " row"]]:
    """Return (I - J)^-1 r, and the share of r that it leaves unexplained."""
    space = begin(r)
    most = min(krylov, map_.size)
    while True:
        extend(space, lambda v: map_.jvp(x, v), min(_CHUNK, most - space.steps))
        step, left = solve_shifted(space, size)
        if space.steps >= most or bool((left < aim).all()):
            return step, left


def _line_search(
    map_: StateMap, x: Rows, size: Float[Tensor, " row"], step: Rows
) -> tuple[Rows, Float[Tensor, " row"]]:
    """Halve every row's step until its residual falls."""
    share = torch.ones_like(size)
    best, reached = x, torch.full_like(size, torch.inf)
    for _ in range(_HALVINGS):
        trial = x + share[:, None] * step
        found = map_.residual(trial)[1]
        found = torch.where(found.isfinite(), found, torch.inf)
        better = found < reached
        best = torch.where(better[:, None], trial, best)
        reached = torch.where(better, found, reached)
        waiting = reached >= (1 - 1e-4 * share) * size
        if not bool(waiting.any()):
            break
        share = torch.where(waiting, share / 2, share)
    return best, reached
