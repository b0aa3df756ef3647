"""When a state may be called a fixed point: at the floor of rounding, and a root must be near.

A small residual alone proves little. A drift below the rounding of the state has one everywhere,
and so has a line of fixed points. What rounding may hide of f(s) - s is at least its floor, so the
root can be as far away as

    error = floor / sigma_min(I - J),

the smallest singular value being what the worst direction is worth. That has to be small against
the state, and J has to change so little over that distance, by at most half of sigma_min, that the
linear picture holds there: the condition of Newton and Kantorovich, taken along the worst
direction.

Without the matrix, sigma_min is known from above only: as the least |(I - J) v| over a Krylov
space. That space has to hold what the worst direction contributes. A random unit vector b has a
share of about 1/sqrt(n) in the left singular vector of sigma_min; if the space solves (I - J) x = b
to far less than that, x has the direction in it. Where it does not come so far, the error counts as
infinite.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from looplens.dynamics.maps.state_map import Rows, StateMap, length
from looplens.dynamics.solving.krylov import begin, extend, smallest_stretch, solve_shifted
from looplens.dynamics.solving.methods import Best, newton_step

LARGEST_ERROR = 1e-2  # of the norm of the state
LARGEST_TURN = 0.5  # change of J over the error, as a share of sigma_min
# Times 1/sqrt(n): what a random right side may leave. With this, estimates were 1 to 3.3 times
# sigma_min for normal, random, low-rank and triangular J of size 64 to 1024.
_EXPLAINED = 0.1
_PATIENCE = 4  # times the products of a Newton step that the search for sigma_min may take
_CHUNK = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Whether rows are fixed points.

    Attributes
    ----------
    verified : Bool[Tensor, "row"]
        The residual is at the floor of rounding, and the root must be near.
    degenerate : Bool[Tensor, "row"]
        The residual is at the floor, but that says nothing of a root: there may be a line of them,
        or a drift below rounding.
    tolerance : Float[Tensor, "row"]
        What the residual had to fall to.
    correction : Float[Tensor, "row"]
        Norm of the Newton correction (I - J)^-1 (f(s) - s); infinite where the Krylov space does
        not explain the residual.
    error : Float[Tensor, "row"]
        How far away the root can be; infinite where I - J cannot be solved with.
    stretch : Float[Tensor, "row"]
        Smallest singular value of I - J, as far as the Krylov space shows it (from above).

    The last three are NaN where the residual is too large for them to mean anything.
    """

    verified: Bool[Tensor, " row"]
    degenerate: Bool[Tensor, " row"]
    tolerance: Float[Tensor, " row"]
    correction: Float[Tensor, " row"]
    error: Float[Tensor, " row"]
    stretch: Float[Tensor, " row"]


def verify(map_: StateMap, best: Best, krylov: int = 60) -> Verdict:
    """Judge the states that a method came to."""
    tolerance = best.floor()
    low = best.residual <= tolerance
    correction, error, stretch, turn = torch.full_like(best.residual, torch.nan).repeat(4, 1)
    rows = low.nonzero()[:, 0]
    if len(rows):
        part, x = map_.rows(rows), best.state[rows]
        r, size = part.residual(x)
        step, left = newton_step(part, x, r, size, krylov)
        # What the Krylov space leaves of the residual is unexplained: not a root for sure.
        correction[rows] = torch.where((left < 0.5) | (size == 0), length(step), torch.inf)
        least, worst, is_known = least_stretch(part, x, krylov)
        far = tolerance[rows] / least.clamp(min=torch.finfo(x.dtype).tiny)
        stretch[rows], error[rows] = least, torch.where(is_known, far, torch.inf)
        turn[rows] = _turn(part, x, far, worst) / least.clamp(min=torch.finfo(x.dtype).tiny)
    near = (correction.isfinite()) & (error <= LARGEST_ERROR * best.size())
    verified = low & near & (turn <= LARGEST_TURN)
    return Verdict(
        verified=verified,
        degenerate=low & ~verified,
        tolerance=tolerance,
        correction=correction,
        error=error,
        stretch=stretch,
    )


def least_stretch(
    map_: StateMap, x: Rows, krylov: int = 60
) -> tuple[Float[Tensor, " row"], Rows, Bool[Tensor, " row"]]:
    """Estimate the smallest singular value of I - J from above.

    Returns
    -------
    least : Float[Tensor, "row"]
        The estimate; exact where the space is the whole one.
    direction : Float[Tensor, "row n"]
        Unit vector that it belongs to.
    is_known : Bool[Tensor, "row"]
        Whether the space holds enough for the estimate to be near.
    """
    draw = torch.randn(map_.size, generator=torch.Generator().manual_seed(0))
    space = begin(draw.to(x).expand_as(x).contiguous())
    most, wanted = min(_PATIENCE * krylov, map_.size), _EXPLAINED / map_.size**0.5
    while True:
        extend(space, lambda v: map_.jvp(x, v), min(_CHUNK, most - space.steps))
        left = solve_shifted(space, torch.ones_like(x[:, 0]))[1]
        is_known = (left <= wanted) | (space.steps == map_.size)
        if space.steps >= most or bool(is_known.all()):
            least, direction = smallest_stretch(space)
            return least.to(x), direction, is_known


def _turn(map_: StateMap, x: Rows, far: Float[Tensor, " row"], v: Rows) -> Float[Tensor, " row"]:
    """Return |(J(x +- far v) - J(x)) v|, the larger of both; NaN where that is not finite."""
    far = far.clamp(max=torch.finfo(x.dtype).max ** 0.5)[:, None]
    here, ahead, behind = (map_.jvp(at, v).to(x) for at in (x, x + far * v, x - far * v))
    return torch.maximum(length(ahead - here), length(behind - here))
