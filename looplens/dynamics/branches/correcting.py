"""Points and tangents of a branch: Newton-Krylov in the state and the gain together.

A branch of f(x, g) = x is a curve in (x, g). A point of it is where it meets a plane across a known
direction; there the system is regular at a fold as well, where I - J alone is singular.

References
----------
H. B. Keller, Numerical solution of bifurcation and nonlinear eigenvalue problems, in Applications
of Bifurcation Theory (1977): pseudo-arclength continuation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from looplens.dynamics.branches.families import WithGain
from looplens.dynamics.maps.state_map import Rows
from looplens.dynamics.solving.krylov import begin, extend, solve_shifted
from looplens.dynamics.solving.methods import FLOOR_STEPS, LEAST_SIZE

MOST_STEPS = 8  # Newton steps to a point: more mean that the guess was too far off
_LARGEST_CORRECTION = 1e-3  # of the norm, of the last Newton step: the error before it
_CHUNK = 4  # products between two looks at GMRES
_EXACT, _ROUGH = 1e-3, 0.05  # what GMRES may leave in a step, and in one that only confirms a point
_UNEXPLAINED = 0.1  # share of a right side that GMRES may leave in a step that counts


@dataclass(frozen=True, slots=True)
class Corrected:
    """Where Newton's method came to from guesses.

    Attributes
    ----------
    z : Float[Tensor, "row n_and_one"]
        Points, verified or not.
    verified : Bool[Tensor, "row"]
        Residual at the floor of rounding, last correction small, and no direction left unexplained.
    steps : Int[Tensor, "row"]
        Newton steps.
    residual : Float[Tensor, "row"]
        |f(x, g) - x| over the scale of the state.
    """

    z: Rows
    verified: Bool[Tensor, " row"]
    steps: Int[Tensor, " row"]
    residual: Float[Tensor, " row"]


@torch.no_grad()
def correct(map_: WithGain, guess: Rows, across: Rows, krylov: int) -> Corrected:
    """Find the point of the branch in the plane through every guess, across a direction."""
    z = guess.clone()
    left_out = torch.zeros(len(z), dtype=torch.bool, device=z.device)
    verified = left_out.clone()
    steps = torch.zeros(len(z), dtype=torch.long, device=z.device)
    reached = torch.full((len(z),), torch.inf, dtype=z.dtype, device=z.device)
    for _ in range(MOST_STEPS + 1):
        rows = (~verified & ~left_out).nonzero()[:, 0]
        if not len(rows):
            break
        part, here, direction = map_.rows(rows), z[rows], across[rows]
        r, size = part.residual(here)
        # One step at least: a small residual alone proves no root.
        low = size <= _floor(here)
        hopeless = ~size.isfinite() | ((steps[rows] > 1) & ~low & (size > 0.5 * reached[rows]))
        reached[rows] = size
        right = torch.cat([r[:, :-1], _dot(direction, guess[rows] - here)[:, None]], dim=1)
        right = torch.where(hopeless[:, None], torch.zeros_like(right), right)
        aim = torch.where(low, _ROUGH, _EXACT)
        step, left = _bordered(part, here, direction, right, krylov, aim)
        small = step.norm(dim=-1) <= _LARGEST_CORRECTION * here.norm(dim=-1).clamp(min=LEAST_SIZE)
        explained = (left <= _UNEXPLAINED) | (right.norm(dim=-1) == 0)
        done = low & small & explained & ~hopeless
        go = ~done & ~hopeless
        verified[rows] = done
        left_out[rows] = hopeless
        z[rows] = torch.where(go[:, None], here + step, here)
        steps[rows] += go
    return Corrected(z, verified, steps, reached)


@torch.no_grad()
def tangents(map_: WithGain, z: Rows, before: Rows, krylov: int, *, aim: float = 1e-7) -> Rows:
    """Return the unit tangent of the branch at every point, on the side of a direction.

    `aim` is what GMRES may leave.
    """
    right = torch.zeros_like(z)
    right[:, -1] = 1
    found, _ = _bordered(map_, z, before, right, krylov, aim)
    return found / found.norm(dim=-1, keepdim=True)


def _bordered(
    map_: WithGain, z: Rows, border: Rows, right: Rows, krylov: int, aim: float | Tensor
) -> tuple[Rows, Float[Tensor, " row"]]:
    """Solve (I - J) dx - f_g dg = r and border . (dx, dg) = c for every row, by GMRES."""
    linear = map_.linearised(z)

    def product(v: Rows) -> Rows:  # I minus the matrix of the system
        moved = linear.jvp(v)
        return torch.cat([moved[:, :-1], (v[:, -1] - _dot(border, v))[:, None]], dim=1)

    size = right.norm(dim=-1)
    space = begin(right)
    most = min(krylov, map_.size)
    while True:
        extend(space, product, min(_CHUNK, most - space.steps))
        step, left = solve_shifted(space, size)
        if space.steps >= most or bool((left < aim).all()):
            return step, left


def _floor(z: Rows) -> Float[Tensor, " row"]:
    """Return the residual that rounding may leave: by the size of the state, 1 at the start."""
    size = z[:, :-1].norm(dim=-1).clamp(min=LEAST_SIZE)
    return FLOOR_STEPS * torch.finfo(z.dtype).eps * size


def _dot(a: Rows, b: Rows) -> Float[Tensor, " row"]:
    return (a * b).sum(-1)
