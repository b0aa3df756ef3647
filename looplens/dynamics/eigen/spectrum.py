"""The spectrum of a map's Jacobian at a state, for any differentiable map of tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from looplens.analysis.algebra.inputs import real_number
from looplens.dynamics.maps.derivatives import Linearised
from looplens.dynamics.maps.state_map import Rows, StateMap
from looplens.dynamics.solving.krylov import Product, begin, extend, ritz
from looplens.errors import InputError
from looplens.models.inputs import whole_number

_CHUNK = 8  # products between two looks at the Ritz values
_FORMED = 256  # numbers in a state up to which J itself costs less than products one by one


@dataclass(frozen=True, kw_only=True, slots=True)
class Spectrum:
    r"""Leading eigenvalues of a Jacobian; leading axes are rows where there are several.

    Attributes
    ----------
    eigenvalues : Complex[ndarray, "k"]
        The k of largest modulus, largest first; of a complex pair the one with positive imaginary
        part comes first. NaN where the space is smaller than k.
    residuals : Float[ndarray, "k"]
        :math:`|J y - \lambda y|` for the unit Ritz vectors y.
    converged : Bool[ndarray, "k"]
        Whether the residual is below the tolerance.
    sigma_max : float
        Largest singular value :math:`|J|_2`: the largest stretch of one step.
    non_normality : float
        Henrici's departure from normality
        :math:`\sqrt{|H|_F^2 - \sum |\theta|^2} / |H|_F` of J in the Krylov space, from 0 for a
        normal matrix towards 1; of J itself where the space is the whole one, a smaller one
        shows less of it.
    products : int
        Products with the Jacobian, sigma_max left out; n where J itself was formed.
    """

    eigenvalues: Complex[np.ndarray, "*rows k"]
    residuals: Float[np.ndarray, "*rows k"]
    converged: Bool[np.ndarray, "*rows k"]
    sigma_max: Float[np.ndarray, "*rows"]
    non_normality: Float[np.ndarray, "*rows"]
    products: int

    @property
    def spectral_radius(self) -> Any:
        """Modulus of the leading eigenvalue."""
        return np.abs(self.eigenvalues[..., 0])

    @property
    def period(self) -> Any:
        r"""Iterations of a turn of the leading eigenvalue, :math:`2\pi / |\arg \lambda|`."""
        with np.errstate(divide="ignore"):
            return 2 * np.pi / np.abs(np.angle(self.eigenvalues[..., 0]))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return the eigenvalues."""
        return np.asarray(self.eigenvalues, dtype=dtype)


def spectrum(
    f: Callable[[Tensor], Tensor],
    s: Tensor,
    k: int = 6,
    *,
    tolerance: float = 1e-4,
    krylov: int = 120,
    seed: int = 0,
) -> Spectrum:
    r"""Compute leading eigenvalues of the Jacobian of f at s by Arnoldi's process.

    Only products J v are computed, so no n x n matrix is formed; the memory is that of `krylov`
    states. Complex pairs come out as pairs, which power iteration on real vectors cannot give.
    Where n is at most 256 or `krylov`, J itself is formed: that costs less.

    Parameters
    ----------
    f : callable
        A differentiable map of a state to the next.
    s : Tensor
        Where; of any shape.
    k : int
        Eigenvalues wanted.
    tolerance : float
        Largest residual of an eigenvalue that is called converged, relative to the largest modulus.
    krylov : int
        Most products with J, where it is not formed.
    seed : int
        Of the vector that the process starts with.

    Returns
    -------
    Spectrum
        Eigenvalues with residuals, the largest singular value, non-normality.

    Raises
    ------
    InputError
        If the state or ``f`` of it is not finite, or ``f`` changes shape or dtype.

    References
    ----------
    Saad, Numerical Methods for Large Eigenvalue Problems (2011), section 6.2. Henrici,
    Numer. Math. 4 (1962).

    Examples
    --------
    >>> import torch
    >>> turn = 0.9 * torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    >>> spectrum(lambda s: turn @ s, torch.zeros(2), k=2).eigenvalues.round(3)
    array([0.+0.9j, 0.-0.9j])
    """
    map_ = StateMap.of(f, s)
    if not bool(map_(map_.flat(s)).isfinite().all()):
        raise InputError("f(s) is not finite: there is nothing to linearise at this state")
    found = leading(map_, map_.flat(s), k, tolerance=tolerance, krylov=krylov, seed=seed)
    return Spectrum(
        eigenvalues=found.eigenvalues[0],
        residuals=found.residuals[0],
        converged=found.converged[0],
        sigma_max=found.sigma_max[0],
        non_normality=found.non_normality[0],
        products=found.products,
    )


def leading(
    map_: StateMap,
    x: Rows,
    k: int = 6,
    *,
    tolerance: float = 1e-4,
    krylov: int = 120,
    seed: int = 0,
    stretch: bool = True,
) -> Spectrum:
    """Compute the spectrum of every row, without sigma_max unless `stretch`; see `spectrum`.

    A row whose products are not finite has NaN for eigenvalues, and is not converged.
    """
    k = whole_number(k, "k", least=1)
    most = min(whole_number(krylov, "krylov", least=k), map_.size)
    tolerance = real_number(tolerance, "tolerance")
    at = map_.linearised(x)
    if map_.size <= max(_FORMED, most) and not at.is_forward:
        return _whole(at.jacobian(), k, torch.finfo(x.dtype).eps, stretch=stretch)
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(map_.size, generator=generator).to(x).expand_as(x).contiguous()
    space, finite = begin(start, seed), torch.ones(len(x), dtype=torch.bool, device=x.device)
    product = _noting(at.jvp, finite)
    while True:
        extend(space, product, min(_CHUNK, most - space.steps))
        values, _, residuals = ritz(space)
        limit = tolerance * values[:, :1].abs().clamp(min=torch.finfo(x.dtype).tiny)
        converged = residuals <= limit
        if space.steps >= most or (space.steps > k and bool(converged[:, :k].all())):
            break
    sigma = torch.full((len(x),), torch.nan)
    if stretch:
        sigma = _largest_stretch(at, start, most)
    return _as_spectrum(
        values[:, :k],
        residuals[:, :k],
        converged[:, :k],
        sigma.cpu(),
        _departure(space.hessenberg[:, :-1].cpu(), values),
        finite.cpu(),
        k,
        space.steps,
    )


def _whole(jacobian: Float[Tensor, "row n n"], k: int, eps: float, *, stretch: bool) -> Spectrum:
    """Return the spectrum of matrices that were formed; residuals are those of their rounding."""
    finite = jacobian.isfinite().flatten(1).all(-1).cpu()
    matrices = torch.where(finite[:, None, None], jacobian.double().cpu(), 0.0)
    values = torch.linalg.eigvals(matrices)
    values = values.gather(1, values.abs().argsort(dim=-1, descending=True, stable=True))
    sigma = torch.full((len(matrices),), torch.nan, dtype=torch.float64)
    if stretch:
        sigma = torch.linalg.matrix_norm(matrices, 2)
    first = values[:, :k]
    rounding = eps * matrices.square().sum((1, 2)).sqrt()[:, None].expand(first.shape)
    every = torch.ones(first.shape, dtype=torch.bool)
    departure = _departure(matrices, values)
    return _as_spectrum(first, rounding, every, sigma, departure, finite, k, matrices.shape[-1])


def _departure(
    matrices: Float[Tensor, "row m m"], values: Complex[Tensor, "row m"]
) -> Float[Tensor, " row"]:
    """Return Henrici's departure from normality, relative to the size of the matrix."""
    frobenius = matrices.square().sum((1, 2))
    departure = (frobenius - values.abs().square().sum(-1)).clamp(min=0).sqrt()
    return departure / frobenius.sqrt().clamp(min=1e-300)


def _as_spectrum(
    values: Complex[Tensor, "row some"],
    residuals: Float[Tensor, "row some"],
    converged: Bool[Tensor, "row some"],
    sigma: Float[Tensor, " row"],
    departure: Float[Tensor, " row"],
    finite: Bool[Tensor, " row"],
    k: int,
    products: int,
) -> Spectrum:
    """Put numbers into arrays, NaN where there are none."""
    known = finite[:, None]
    values, residuals = (torch.where(known, y, torch.nan) for y in (values, residuals))
    sigma, departure = (torch.where(finite, y, torch.nan) for y in (sigma, departure))
    return Spectrum(
        eigenvalues=_padded(_pairs_in_order(values.numpy()), k),
        residuals=_padded(residuals.numpy(), k),
        converged=_padded((converged & known).numpy(), k),
        sigma_max=sigma.numpy(),
        non_normality=departure.numpy(),
        products=products,
    )


def _largest_stretch(
    at: Linearised, start: Rows, most: int, tolerance: float = 1e-4
) -> Float[Tensor, " row"]:
    """Return the largest singular value of the Jacobian of every row, by Arnoldi on J^T J."""
    space, finite = begin(start), torch.ones(len(start), dtype=torch.bool, device=start.device)
    product = _noting(lambda v: at.vjp(at.jvp(v)), finite)
    while True:
        extend(space, product, min(_CHUNK, most - space.steps))
        values, _, residuals = ritz(space)
        top = values[:, 0].real.clamp(min=0)
        if space.steps >= most or bool((residuals[:, 0] <= tolerance * top).all()):
            return torch.where(finite, top.sqrt(), torch.nan)


def _noting(product: Callable[[Rows], Rows], finite: Bool[Tensor, " row"]) -> Product:
    """Return a product that is zero for rows where it is not finite, and notes which those are."""

    def noting(v: Rows) -> Rows:
        found = product(v)
        finite.logical_and_(found.isfinite().all(-1))
        return torch.where(finite[:, None], found, 0.0)

    return noting


def _pairs_in_order(values: Complex[np.ndarray, "row k"]) -> np.ndarray:
    """Put the one with positive imaginary part first in every complex pair."""
    values = values.copy()
    for row in values:
        for i in range(len(row) - 1):
            if row[i].imag < 0 and np.isclose(row[i], row[i + 1].conj()):
                row[[i, i + 1]] = row[[i + 1, i]]
    return values


def _padded(values: np.ndarray, k: int) -> np.ndarray:
    missing = k - values.shape[1]
    if not missing:
        return values
    fill = False if values.dtype == bool else np.nan
    return np.pad(values, [(0, 0), (0, missing)], constant_values=fill)
