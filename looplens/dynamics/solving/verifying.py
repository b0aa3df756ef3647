"""When a state may be called a fixed point: at the floor of rounding, with the root close by.

A small residual alone proves little: a slow drift has one everywhere. So the Newton correction
(I - J)^-1 (f(s) - s), the distance to the root of the linearised map, has to be small too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from looplens.dynamics.maps.state_map import StateMap
from looplens.dynamics.solving.methods import Best, floor_of, newton_step

LARGEST_CORRECTION = 1e-3  # of the norm of the state


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Whether rows are fixed points.

    Attributes
    ----------
    verified : Bool[Tensor, "row"]
        Residual and correction are both small enough.
    tolerance : Float[Tensor, "row"]
        What the residual had to fall to.
    correction : Float[Tensor, "row"]
        Norm of the Newton correction: an estimate of the error of the state. NaN where the residual
        is too large for it to mean anything.
    """

    verified: Bool[Tensor, " row"]
    tolerance: Float[Tensor, " row"]
    correction: Float[Tensor, " row"]


def verify(map_: StateMap, best: Best, krylov: int) -> Verdict:
    """Judge the states that a method came to."""
    tolerance = floor_of(best.state)
    low = best.residual <= tolerance
    correction = torch.full_like(best.residual, torch.nan)
    rows = low.nonzero()[:, 0]
    if len(rows):
        part = map_.rows(rows)
        x = best.state[rows]
        r, size = part.residual(x)
        step, left = newton_step(part, x, r, size, krylov)
        found = step.norm(dim=-1)
        # What the Krylov space leaves of the residual is unexplained: not a root for sure.
        correction[rows] = torch.where((left < 0.5) | (size == 0), found, torch.inf)
    small = correction <= LARGEST_CORRECTION * best.state.norm(dim=-1)
    return Verdict(verified=low & small, tolerance=tolerance, correction=correction)
