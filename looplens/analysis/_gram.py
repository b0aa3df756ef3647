"""Batched algebra on Gram matrices of short trajectories.

Everything that the regime decision asks of a centred trajectory X (n x d) is a function of its Gram
matrix ``G = X X^T`` (n x n), so one batched product per window feeds all statistics. Shapes are
written with ``b`` for the batch of trajectories and ``n`` for the points of the window. This module
knows nothing of regimes or thresholds.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
TINY = 1e-300  # keeps divisions by an exactly zero spread finite


@lru_cache(maxsize=32)
def polynomials(n: int, degree: int = 3) -> Floats:
    """Orthonormal polynomials on n equidistant points, columns of degree 0..degree."""
    basis, _ = np.linalg.qr(np.vander(np.linspace(-1.0, 1.0, n), degree + 1, increasing=True))
    basis.flags.writeable = False
    return basis


def lag_sums(gram: Floats) -> Floats:
    """Sum along the diagonals of each Gram matrix, lags 0..n-1: n times the autocovariance.

    Reversing the rows and re-reading the zero-padded buffer with one column less puts each diagonal
    in a column, so that no loop over lags is needed.
    """
    b, n, _ = gram.shape
    padded = np.zeros((b, n, 2 * n))
    padded[:, :, :n] = gram[:, ::-1]
    skewed = padded.reshape(b, -1)[:, : n * (2 * n - 1)].reshape(b, n, 2 * n - 1)
    return skewed.sum(1)[:, n - 1 :]


def mean_square_displacement(gram: Floats, sums: Floats) -> Floats:
    """MSD(k) = mean over i of |x_{i+k} - x_i|^2 for lags 1..n-1, shape (b, n-1)."""
    n = gram.shape[-1]
    diagonal = np.diagonal(gram, axis1=1, axis2=2)
    running = np.concatenate([np.zeros((len(gram), 1)), np.cumsum(diagonal, 1)], axis=1)
    lags = np.arange(1, n)
    heads = running[:, n - lags]  # sum of |x_i|^2 over i < n - k
    tails = running[:, -1:] - running[:, lags]  # sum of |x_{i+k}|^2
    return np.maximum(heads + tails - 2 * sums[:, 1:], 0.0) / (n - lags)


def orthonormal_pair(first: Floats, second: Floats, basis: Floats | None = None) -> Floats:
    """Orthonormalise two columns (b, n, c) each, within and against `basis` (b, n, k) or (n, k).

    Returns an array (b, n, c, 2). A column that vanishes (the sine at the Nyquist frequency) comes
    back as zeros and so explains nothing.
    """
    pair = np.stack([first, second], axis=-1)  # b n c 2
    b, n, c, _ = pair.shape
    if basis is not None:
        flat = pair.reshape(b, n, 2 * c)
        size = np.sqrt((flat**2).sum(1, keepdims=True))
        flat = flat - basis @ (np.swapaxes(basis, -1, -2) @ flat)
        flat = np.where(np.sqrt((flat**2).sum(1, keepdims=True)) > 1e-6 * size, flat, 0.0)
        pair = flat.reshape(b, n, c, 2)
    lead, other = pair[..., 0], pair[..., 1]
    lead = _unit(lead, np.sqrt((lead**2).sum(1, keepdims=True)))
    size = np.sqrt((other**2).sum(1, keepdims=True))
    other = other - lead * (lead * other).sum(1, keepdims=True)
    return np.stack([lead, _unit(other, size)], axis=-1)


def _unit(column: Floats, reference: Floats) -> Floats:
    norm = np.sqrt((column**2).sum(1, keepdims=True))
    return np.where(norm > 1e-6 * reference, column / np.maximum(norm, TINY), 0.0)


def explained(gram: Floats, first: Floats, second: Floats, basis: Floats) -> Floats:
    """Variance that pairs of columns explain beyond a basis that the Gram matrix is free of.

    Parameters
    ----------
    gram : ndarray, shape (b, n, n)
        Gram matrices out of which `basis` is projected.
    first, second : ndarray, shape (b, n, c)
        The columns of c candidate pairs; neither orthogonal nor normalised.
    basis : ndarray, shape (b, n, k)
        Orthonormal columns.

    Returns
    -------
    ndarray, shape (b, c)
        A column that vanishes beside the basis (the sine at the Nyquist frequency) explains
        nothing.
    """
    c = first.shape[-1]
    columns = np.concatenate([first, second], axis=-1)
    image = gram @ columns
    inside = np.swapaxes(basis, 1, 2) @ columns  # what of the columns lies in the basis
    one, two = slice(None, c), slice(c, None)

    def product(left: Floats, right: Floats) -> Floats:
        return np.einsum("bnc,bnc->bc", left, right)

    size_one, size_two = product(first, first), product(second, second)
    metric = size_one - product(inside[..., one], inside[..., one])
    cross = product(first, second) - product(inside[..., one], inside[..., two])
    other = size_two - product(inside[..., two], inside[..., two])
    lead = metric > 1e-12 * size_one
    slope = np.where(lead, cross / np.where(lead, metric, 1.0), 0.0)
    rest = other - slope * cross  # square of the second column across the first
    follow = rest > 1e-12 * size_two
    first_first, first_second = product(first, image[..., one]), product(first, image[..., two])
    second_second = product(second, image[..., two])
    share = np.where(lead, first_first / np.where(lead, metric, 1.0), 0.0)
    across = second_second - 2 * slope * first_second + slope**2 * first_first
    return share + np.where(follow, across / np.where(follow, rest, 1.0), 0.0)


def project_out(gram: Floats, columns: Floats) -> Floats:
    """Gram matrix after removing orthonormal `columns` (b, n, c) or (n, c) from the trajectory."""
    cross = gram @ columns  # b n c
    core = np.swapaxes(columns, -1, -2) @ cross  # b c c
    half = cross - 0.5 * columns @ core
    outer = half @ np.swapaxes(columns, -1, -2)
    return gram - outer - np.swapaxes(outer, -1, -2)


def whiteness(gram: Floats, removed: Floats, lags: int = 3) -> Floats:
    """Largest absolute autocorrelation over the first lags, shape (b,): about 0 for white noise.

    Fitting takes variance out of white noise unevenly over the lags. `removed` (lags 0..lags, shape
    (lags + 1,) or (b, lags + 1)) holds the lag sums of the projection that was fitted, so that what
    white noise would show after the same fit is taken off.
    """
    n = gram.shape[-1]
    sums = np.stack([np.trace(gram, lag, axis1=1, axis2=2) for lag in range(lags + 1)], axis=-1)
    expected = -removed[..., 1:] / (n - removed[..., :1])
    return np.abs(sums[:, 1:] / np.maximum(sums[:, :1], TINY) - expected).max(1)


def column_lag_sums(columns: Floats, lags: int = 3) -> Floats:
    """Lag sums 0..lags of the projection on orthonormal columns (..., n, c), along a last axis."""
    n = columns.shape[-2]
    return np.stack(
        [
            (columns[..., : n - lag, :] * columns[..., lag:, :]).sum((-1, -2))
            for lag in range(lags + 1)
        ],
        axis=-1,
    )


def isotropy(gram: Floats, d_model: int, degrees: int | NDArray[np.int64]) -> Floats:
    """Participation ratio of the motion over what white noise of full dimension would show.

    For `degrees` independent white samples in d dimensions the expected ratio of tr(G)^2 to the sum
    of squares of G is ``degrees * d / (degrees + d + 1)``.
    """
    trace = np.trace(gram, axis1=1, axis2=2)
    squares = _sum_of_squares(gram)
    expected = degrees * d_model / (degrees + d_model + 1.0)
    return trace**2 / np.maximum(squares, TINY) / expected


def _sum_of_squares(gram: Floats) -> Floats:
    flat = gram.reshape(len(gram), -1)
    return np.vecdot(flat, flat)


def noise_dimensions(gram: Floats, degrees: int, d_model: int) -> Floats:
    """Dimensions that white noise with this participation ratio would fill, 1..d_model; (b,)."""
    trace = np.trace(gram, axis1=1, axis2=2)
    ratio = trace**2 / np.maximum(_sum_of_squares(gram), TINY)
    dimensions = ratio * (degrees + 1.0) / np.maximum(degrees - ratio, 1.0)
    return np.clip(dimensions, 1.0, d_model)
