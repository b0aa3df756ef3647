"""Three ways down the residual |f(s) - s|: damped iteration, Anderson mixing, Newton-Krylov.

Each takes rows of states and improves every row as far as it gets. Whether a row may be called a
fixed point is decided in :mod:`looplens.dynamics.solving.verifying`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from looplens.dynamics.maps.state_map import Rows, StateMap, length
from looplens.dynamics.solving.krylov import begin, extend, solve_shifted

FLOOR_STEPS = 32  # machine epsilons of its size that the residual of a state at rest may have
LEAST_SIZE = 1e-3  # of the start, below which a state counts as that large: a root may be at zero
_HISTORY = 6  # differences that Anderson mixing looks back on
_HALVINGS = 10  # of a Newton step
_STALLED = 3  # Newton steps without progress
_CHUNK = 4  # products between two looks at GMRES
_EXACT, _ROUGH = 1e-3, 0.1  # what GMRES may leave of the residual: at least, and at first
_POLISHED = 0.5  # a step of a solved row has to leave less than this, or it was the last one


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
    least : Float[Tensor, "row"]
        Norm below which a state is not taken for smaller: a root at zero has no size of its own.
    """

    state: Rows
    residual: Float[Tensor, " row"]
    iterations: Int[Tensor, " row"]
    least: Float[Tensor, " row"]

    @classmethod
    def at(cls, map_: StateMap, x: Rows) -> Best:
        """Begin with given states."""
        size = map_.residual(x)[1]
        found = torch.where(size.isfinite(), size, torch.inf)
        none = torch.zeros(len(x), dtype=torch.long, device=x.device)
        return cls(x.clone(), found, none, LEAST_SIZE * length(x))

    def put(self, rows: Int[Tensor, " some"], x: Rows, size: Float[Tensor, " some"]) -> Tensor:
        """Keep what is better for some of the rows; returns which of them are."""
        better = size.isfinite() & (size < self.residual[rows])
        self.state[rows] = torch.where(better[:, None], x, self.state[rows])
        self.residual[rows] = torch.where(better, size, self.residual[rows])
        return better

    def rows(self, chosen: Int[Tensor, " some"]) -> Best:
        """Return some of the rows."""
        found = (getattr(self, name)[chosen] for name in Best.__slots__)
        return Best(*found)

    def size(self) -> Float[Tensor, " row"]:
        """Return what residuals and errors are relative to: the norm of the state."""
        return torch.maximum(length(self.state), self.least)

    def floor(self) -> Float[Tensor, " row"]:
        """Return the residual that rounding may leave."""
        return FLOOR_STEPS * torch.finfo(self.state.dtype).eps * self.size()

    def solved(self) -> Tensor:
        """Return which rows are at the floor of rounding."""
        return self.residual <= self.floor()


def iterate(map_: StateMap, start: Rows, limit: int, damping: float = 1.0) -> Best:
    """Go on with s + damping (f(s) - s) until every row is at rest or has left."""
    best = Best.at(map_, start)
    rows, part, x = torch.arange(len(start), device=start.device), map_, start
    for _ in range(limit):
        r, size = part.residual(x)
        best.put(rows, x, size)
        going = ~best.solved()[rows] & x.isfinite().all(-1)
        best.iterations[rows] += going
        x = x + damping * r
        if not bool(going.all()):
            rows, x = rows[going], x[going]
            if not len(rows):
                return best
            part = map_.rows(rows)
    best.put(rows, x, part.residual(x)[1])
    return best


def anderson(map_: StateMap, start: Rows, limit: int, damping: float = 1.0) -> Best:
    """Mix the last steps so that the residual, taken for linear, is least.

    References
    ----------
    Walker and Ni, SIAM J. Numer. Anal. 49 (2011), algorithm AA in its unconstrained form.
    """
    best, x = Best.at(map_, start), start
    every = torch.arange(len(start), device=start.device)
    states: list[Tensor] = []
    residuals: list[Tensor] = []
    inside = torch.ones_like(best.solved())  # has not met numbers that are not finite
    for _ in range(limit):
        going = ~best.solved() & inside
        if not bool(going.any()):
            break
        r, size = map_.residual(x)
        best.put(every, x, size)
        best.iterations += going
        kept = _HISTORY + 1  # states, between which the differences lie
        states, residuals = [*states, x][-kept:], [*residuals, r][-kept:]
        step = damping * r
        if len(states) > 1:
            dx = torch.stack(states, -1).diff(dim=-1)
            dr = torch.stack(residuals, -1).diff(dim=-1)
            weights = _least_squares(dr, r)
            step = step - ((dx + damping * dr) @ weights[..., None])[..., 0]
        inside &= step.isfinite().all(-1)
        x = torch.where((going & inside)[:, None], x + step, x)
    best.put(every, x, map_.residual(x)[1])
    return best


def newton(map_: StateMap, start: Rows, limit: int, krylov: int) -> Best:
    """Newton's method with GMRES on I - J and halved steps; finds unstable points too.

    GMRES is stopped early while the residual is large, as Eisenstat and Walker choose it: an exact
    step towards a far root is wasted.

    References
    ----------
    Knoll and Keyes, J. Comput. Phys. 193 (2004), section 2. Eisenstat and Walker, SIAM J. Sci.
    Comput. 17 (1996), choice 2.
    """
    best = Best.at(map_, start)
    stalled = torch.zeros(len(start), dtype=torch.long, device=start.device)
    aim = torch.full_like(best.residual, _ROUGH)
    going = best.residual.isfinite() & (best.residual > 0)
    for _ in range(limit):
        rows = going.nonzero()[:, 0]
        if not len(rows):
            break
        x, part = best.state[rows], map_.rows(rows)
        r, size = part.residual(x)
        step, _ = newton_step(part, x, r, size, krylov, aim[rows])
        trial, reached = _line_search(part, x, size, step)
        better = reached < size
        was_solved = best.solved()[rows]
        best.state[rows] = torch.where(better[:, None], trial, x)
        best.residual[rows] = torch.where(better, reached, size)
        best.iterations[rows] += 1
        left = reached / size.clamp(min=torch.finfo(x.dtype).tiny)
        stalled[rows] = torch.where(left < 0.9, 0, stalled[rows] + 1)
        aim[rows] = torch.where(left < 1, 0.9 * left.square(), aim[rows] / 10).clamp(_EXACT, _ROUGH)
        # Below the floor a step may still improve the state: a row goes on while it does.
        ended = was_solved & (left >= _POLISHED)
        going[rows] = ~ended & (stalled[rows] < _STALLED) & (best.residual[rows] > 0)
    return best


def newton_step(
    map_: StateMap,
    x: Rows,
    r: Rows,
    size: Float[Tensor, " row"],
    krylov: int,
    aim: float | Float[Tensor, " row"] = _EXACT,
) -> tuple[Rows, Float[Tensor, " row"]]:
    """Return (I - J)^-1 r, and the share of r that it leaves unexplained."""
    space, most = begin(r), min(krylov, map_.size)
    step, left = torch.zeros_like(x), torch.full_like(size, torch.inf)
    while True:
        extend(space, lambda v: map_.jvp(x, v), min(_CHUNK, most - space.steps))
        found, share = solve_shifted(space, size)
        # A row keeps the step that was good enough for it: it does not depend on the others.
        waiting = left >= aim
        step = torch.where(waiting[:, None], found, step)
        left = torch.where(waiting, share, left)
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


def _least_squares(matrix: Float[Tensor, "row n m"], right: Rows) -> Float[Tensor, "row m"]:
    """Solve for the weights, without directions in which the differences are rounding."""
    both = torch.cat([matrix, right[..., None]], dim=-1).double().cpu()
    both = torch.where(both.isfinite().all(-1).all(-1)[:, None, None], both, 0.0)
    found = torch.linalg.lstsq(
        both[..., :-1],
        both[..., -1:],
        rcond=10 * torch.finfo(matrix.dtype).eps,
        driver="gelsd",
    )
    return found.solution[..., 0].to(right)
