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
from looplens.dynamics.maps.state_map import Rows, StateMap
from looplens.dynamics.solving.krylov import begin, extend, ritz
from looplens.models.inputs import whole_number

_CHUNK = 8  # products between two looks at the Ritz values


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
        normal matrix towards 1; of J itself where the space is the whole one.
    products : int
        Products with the Jacobian, sigma_max left out.
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
        Most products with J; where n is no more than this, all eigenvalues are exact.
    seed : int
        Of the vector that the process starts with.

    Returns
    -------
    Spectrum
        Eigenvalues with residuals, the largest singular value, non-normality.

    Raises
    ------
    InputError
        If the state is not finite or ``f`` changes shape or dtype.

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
) -> Spectrum:
    """Compute the spectrum of every row; the arguments are those of `spectrum`."""
    k = whole_number(k, "k", least=1)
    most = min(whole_number(krylov, "krylov", least=k), map_.size)
    tolerance = real_number(tolerance, "tolerance")
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(map_.size, generator=generator).to(x).expand_as(x).contiguous()
    space = begin(start, seed)
    while True:
        extend(space, lambda v: map_.jvp(x, v), min(_CHUNK, most - space.steps))
        values, _, residuals = ritz(space)
        limit = tolerance * values[:, :1].abs().clamp(min=torch.finfo(x.dtype).tiny)
        converged = residuals <= limit
        if space.steps >= most or (space.steps > k and bool(converged[:, :k].all())):
            break
    h = space.hessenberg[:, :-1].cpu()
    frobenius = h.square().sum((1, 2))
    departure = (frobenius - values.abs().square().sum(-1)).clamp(min=0).sqrt()
    non_normality = departure / frobenius.sqrt().clamp(min=1e-300)
    return Spectrum(
        eigenvalues=_padded(_pairs_in_order(values[:, :k].numpy()), k),
        residuals=_padded(residuals[:, :k].numpy(), k),
        converged=_padded(converged[:, :k].numpy(), k),
        sigma_max=largest_stretch(map_, x, start, krylov=krylov).cpu().numpy(),
        non_normality=non_normality.numpy(),
        products=space.steps,
    )


def largest_stretch(
    map_: StateMap, x: Rows, start: Rows, *, krylov: int = 120, tolerance: float = 1e-4
) -> Float[Tensor, " row"]:
    """Return the largest singular value of the Jacobian of every row, by Arnoldi on J^T J."""
    space = begin(start)
    most = min(krylov, map_.size)
    while True:
        extend(space, lambda v: map_.vjp(x, map_.jvp(x, v)), min(_CHUNK, most - space.steps))
        values, _, residuals = ritz(space)
        top = values[:, 0].real.clamp(min=0)
        if space.steps >= most or bool((residuals[:, 0] <= tolerance * top).all()):
            return top.sqrt()


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
