"""Arnoldi's process for many maps at once, and what is read off it: eigenvalues, Newton steps.

The Jacobian is seen only through its products with vectors. Each row is a system of its own with
its own Krylov space; products of all rows are one call.

References
----------
Saad, Numerical Methods for Large Eigenvalue Problems (2011), sections 6.1 and 6.2; GMRES is
section 6.5 of his Iterative Methods for Sparse Linear Systems (2003).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from looplens.dynamics.maps.state_map import Rows, length

Product = Callable[[Rows], Rows]


@dataclass(slots=True)
class Krylov:
    """An orthonormal basis V of a Krylov space, and the operator in it: A V_m = V_{m+1} H.

    Attributes
    ----------
    basis : list of Float[Tensor, "row n"]
        m + 1 vectors.
    hessenberg : Float[Tensor, "row m+1 m"]
        In float64.
    seed : int
        Of vectors that continue the basis where the space is exhausted.
    """

    basis: list[Rows]
    hessenberg: Float[Tensor, "row m_and_one m"]
    seed: int = 0

    @property
    def steps(self) -> int:
        """Vectors that the operator was applied to, m."""
        return self.hessenberg.shape[-1]


def begin(start: Rows, seed: int = 0) -> Krylov:
    """Begin a Krylov space with a vector for each row; zero rows get a random one."""
    rows = len(start)
    first = _unit(start, [], torch.zeros(rows, dtype=torch.bool), seed)
    empty = torch.zeros(rows, 1, 0, dtype=torch.float64, device=start.device)
    return Krylov([first], empty, seed)


def extend(space: Krylov, product: Product, steps: int) -> Krylov:
    """Apply the operator to so many more vectors, orthogonalised twice.

    Where a space is exhausted, it goes on with a random vector orthogonal to it, uncoupled: so an
    eigenvalue that belongs to several directions is found that often.
    """
    basis = space.basis
    rows, n = basis[0].shape
    steps = min(steps, n - space.steps)
    matrix = basis[0].new_empty(rows, space.steps + steps + 1, n)  # one copy, not one a step
    matrix[:, : len(basis)] = torch.stack(basis, dim=1)
    for _ in range(steps):
        m = space.steps
        # torch gives some derivatives of numbers without an axis in float64.
        w = product(basis[-1]).to(basis[-1])
        scale = length(w)
        column = torch.zeros(len(w), m + 2, dtype=torch.float64, device=w.device)
        known = matrix[:, : m + 1]
        for _ in range(2):
            overlap = torch.einsum("rmn,rn->rm", known, w)
            w = w - torch.einsum("rm,rmn->rn", overlap, known)
            column[:, : m + 1] += overlap.double()
        size = length(w)
        ended = size <= 10 * torch.finfo(w.dtype).eps * scale
        column[:, m + 1] = torch.where(ended, 0.0, size.double())
        grown = torch.zeros(len(w), m + 2, m + 1, dtype=torch.float64, device=w.device)
        grown[:, : m + 1, :m] = space.hessenberg
        grown[:, :, m] = column
        space.hessenberg = grown
        matrix[:, m + 1] = _unit(w, basis, ended, space.seed + m + 1)
        basis.append(matrix[:, m + 1])
    return space


def ritz(
    space: Krylov,
) -> tuple[Complex[Tensor, "row m"], Complex[Tensor, "row m m"], Float[Tensor, "row m"]]:
    """Return Ritz values, largest modulus first, their vectors in the basis, and residuals.

    The residual is |A y - theta y| for the unit Ritz vector y = V z.
    """
    h = space.hessenberg
    values, vectors = torch.linalg.eig(h[:, :-1].cpu())
    order = values.abs().argsort(dim=-1, descending=True, stable=True)
    values = values.gather(1, order)
    vectors = vectors.gather(2, order[:, None].expand_as(vectors))
    residuals = h[:, -1, -1:].abs().cpu() * vectors[:, -1].abs()
    return values, vectors, residuals


def solve_shifted(space: Krylov, size: Float[Tensor, " row"]) -> tuple[Rows, Float[Tensor, " row"]]:
    """Return the x of the space for which (I - A) x comes nearest to b.

    Parameters
    ----------
    space : Krylov
        Begun with b.
    size : Float[Tensor, "row"]
        Norm of b.

    Returns
    -------
    x : Float[Tensor, "row n"]
        GMRES' solution.
    left : Float[Tensor, "row"]
        Norm of what is left, relative to b; infinite where products are not finite.
    """
    h, finite = _finite(space.hessenberg.cpu())
    rows, _, m = h.shape
    shifted = torch.eye(m + 1, m, dtype=h.dtype) - h
    right = torch.zeros(rows, m + 1, 1, dtype=h.dtype)
    right[:, 0, 0] = size.double().cpu()
    y = torch.linalg.lstsq(shifted, right, driver="gelsd").solution
    left = (right - shifted @ y).norm(dim=(1, 2)) / right.norm(dim=(1, 2)).clamp(min=1e-300)
    basis = torch.stack(space.basis[:-1], dim=1)
    x = torch.einsum("rm,rmn->rn", y[..., 0].to(basis), basis)
    return x, torch.where(finite, left, torch.inf).to(size)


def smallest_stretch(space: Krylov) -> tuple[Float[Tensor, " row"], Rows]:
    """Return the least |(I - A) v| over the unit vectors of the space, and the v.

    It is the smallest singular value of I - A where the space is the whole one, and an upper bound
    of it otherwise; zero where products are not finite.
    """
    h, finite = _finite(space.hessenberg.cpu())
    m = space.steps
    _, sizes, right = torch.linalg.svd(torch.eye(m + 1, m, dtype=h.dtype) - h, full_matrices=False)
    basis = torch.stack(space.basis[:-1], dim=1)
    vector = torch.einsum("rm,rmn->rn", right[:, -1].to(basis), basis)
    return torch.where(finite, sizes[:, -1], 0.0).to(basis.device), vector


def _finite(h: Tensor) -> tuple[Tensor, Tensor]:
    """Return matrices, zero where some number of a row is not finite, and which rows are finite."""
    finite = h.isfinite().flatten(1).all(-1)
    return torch.where(finite[:, None, None], h, 0.0), finite


def _unit(w: Rows, basis: list[Rows], ended: Tensor, seed: int) -> Rows:
    """Return rows of norm 1; random ones, orthogonal to the basis, where nothing is left."""
    size = length(w)
    ended = ended.to(w.device) | (size == 0)
    unit = w / torch.where(ended, 1.0, size)[:, None]
    if not bool(ended.any()):
        return unit
    draw = torch.randn(w.shape[1], generator=torch.Generator().manual_seed(seed)).to(w)
    other = draw.expand_as(w).clone()
    for _ in range(2):
        for vector in basis:
            other = other - (vector * other).sum(-1, keepdim=True) * vector
    norm = other.norm(dim=-1, keepdim=True)
    other = torch.where(norm > 1e-6, other / norm.clamp(min=1e-30), torch.zeros_like(other))
    return torch.where(ended[:, None], other, unit)
