"""Batched algebra on Gram matrices of short trajectories.

Everything that the regime decision asks of a centred trajectory X (n x d) is a function of its Gram
matrix ``G = X X^T`` (n x n), so one batched product per window feeds all statistics. Shapes are
written with ``b`` for the batch of trajectories and ``n`` for the points of the window. This module
knows nothing of regimes or thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass
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
    skewed = padded.reshape(b, 2 * n * n)[:, : n * (2 * n - 1)].reshape(b, n, 2 * n - 1)
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


def project_out(gram: Floats, columns: Floats) -> Floats:
    """Gram matrix after removing orthonormal `columns` (b, n, c) or (n, c) from the trajectory."""
    cross = gram @ columns  # b n c
    core = np.swapaxes(columns, -1, -2) @ cross  # b c c
    half = cross - 0.5 * columns @ core
    outer = half @ np.swapaxes(columns, -1, -2)
    return gram - outer - np.swapaxes(outer, -1, -2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Leftover:
    """Sums over Gram matrices of what a model leaves; n points.

    ``lags`` (b, 4) along the diagonals of lags 0 to 3, ``squares`` (b,) of all entries, ``first``
    and ``second`` (b,) over the halves of the diagonal.
    """

    points: int
    lags: Floats
    squares: Floats
    first: Floats
    second: Floats

    @property
    def trace(self) -> Floats:
        """Sums of squares of the states, shape (b,)."""
        return self.lags[:, 0]


def leftover(gram: Floats) -> Leftover:
    """Take the sums of Gram matrices (b, n, n)."""
    from looplens.analysis.algebra import (
        sums,  # numba takes a while to load, and viewers need none of it
    )

    found = np.empty((len(gram), 7))
    sums.sums(np.ascontiguousarray(gram), found)
    return Leftover(
        points=gram.shape[-1],
        lags=found[:, :4],
        squares=found[:, 4],
        first=found[:, 5],
        second=found[:, 6],
    )


def whiteness(left: Leftover, removed: Floats) -> Floats:
    """Largest absolute autocorrelation over lags 1 to 3, shape (b,): about 0 for white noise.

    Fitting takes variance out of white noise unevenly over the lags. `removed` (lags 0..3, shape
    (4,) or (b, 4)) holds the lag sums of the projection that was fitted, so that what white noise
    would show after the same fit is taken off.
    """
    expected = -removed[..., 1:] / (left.points - removed[..., :1])
    found = left.lags[:, 1:] / np.maximum(left.lags[:, :1], TINY)
    return np.abs(found - expected).max(1)


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


def isotropy(left: Leftover, d_model: int, degrees: int | NDArray[np.int64]) -> Floats:
    """Participation ratio of the motion over what white noise of full dimension would show.

    For `degrees` independent white samples in d dimensions the expected ratio of tr(G)^2 to the sum
    of squares of G is ``degrees * d / (degrees + d + 1)``.
    """
    expected = degrees * d_model / (degrees + d_model + 1.0)
    return left.trace**2 / np.maximum(left.squares, TINY) / expected


def noise_dimensions(left: Leftover, degrees: int, d_model: int) -> Floats:
    """Dimensions that white noise with this participation ratio would fill, 1..d_model; (b,)."""
    ratio = left.trace**2 / np.maximum(left.squares, TINY)
    dimensions = ratio * (degrees + 1.0) / np.maximum(degrees - ratio, 1.0)
    return np.clip(dimensions, 1.0, d_model)
