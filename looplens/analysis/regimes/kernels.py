"""Compiled loops over Gram matrices: damped harmonics, one window after the other.

What `_periodic` asks of a harmonic at a trial frequency is a sum over all pairs of states; here the
pairs are summed along the diagonals (i - j) and across them (i + j) once, after which a trial costs
a number of operations linear in the states. Written as loops and compiled by numba, since arrays of
the intermediate steps would be read and written many times over.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from looplens.analysis.algebra.compiled import compiled
from looplens.analysis.regimes.trials import TRIALS, VANISHES, columns_of, refined, share_of, turns

Floats = NDArray[np.float64]


@compiled
def _along_and_across(gram: Floats, along: Floats, across: Floats) -> None:
    """Sum a symmetric matrix along its diagonals (lags 0..n-1) and across them (i + j)."""
    n = gram.shape[0]
    along[:] = 0.0
    across[:] = 0.0
    for i in range(n):
        for j in range(i, n):
            along[j - i] += gram[i, j]
        for j in range(n):
            across[i + j] += gram[i, j]


@compiled
def _peak(along: Floats, cosines: Floats) -> int:
    """Return the number of the frequency (row) with the largest power."""
    best, found = -np.inf, 0
    for row in range(cosines.shape[0]):
        power = 0.0
        for k in range(along.shape[0]):
            power += cosines[row, k] * along[k]
        if power > best:
            best, found = power, row
    return found


@compiled
def _best_damping(
    gram: Floats,
    across: Floats,
    omega: float,
    grid: Floats,
    basis: Floats,
    columns: int,
    cosine: Floats,
    sine: Floats,
) -> float:
    """Decay per iteration of a harmonic, by a grid and a parabola through the best three."""
    n = cosine.shape[0]
    turned = np.zeros(2 * n - 1)
    rotation, quadrature = np.empty(2 * n - 1), np.empty(2 * n - 1)
    turns(-omega * (n - 1), omega, rotation, quadrature)
    for i in range(n):
        for j in range(n):
            turned[i + j] += gram[i, j] * rotation[j - i + n - 1]
    even, odd, mixed = turned, np.empty(2 * n - 1), np.empty(2 * n - 1)
    for m in range(2 * n - 1):
        odd[m] = across[m] * rotation[m]
        mixed[m] = across[m] * quadrature[m]
    shares = np.empty(grid.shape[0])
    for g in range(grid.shape[0]):
        weight, factor = np.exp(grid[g] * (n - 1)), np.exp(-grid[g])
        k_even, k_odd, k_mixed = 0.0, 0.0, 0.0
        for m in range(2 * n - 1):
            k_even += weight * even[m]
            k_odd += weight * odd[m]
            k_mixed += weight * mixed[m]
            weight *= factor
        columns_of(omega, grid[g], cosine, sine)
        shares[g] = share_of(
            0.5 * (k_even + k_odd),
            0.5 * k_mixed,
            0.5 * (k_even - k_odd),
            cosine,
            sine,
            basis,
            columns,
        )
    best = min(max(np.argmax(shares), 1), grid.shape[0] - 2)
    left, right = grid[best] - grid[best - 1], grid[best + 1] - grid[best]
    # Vertex of the parabola through three points that need not be equidistant.
    up = (shares[best] - shares[best - 1]) / left
    down = (shares[best + 1] - shares[best]) / right
    curvature = min((down - up) / (left + right), -1e-300)
    vertex = grid[best] - (up + curvature * left) / (2 * curvature)
    return min(max(vertex, grid[best - 1]), grid[best + 1])


@compiled
def _take_out(
    gram: Floats, basis: Floats, columns: int, cosine: Floats, sine: Floats, image: Floats
) -> None:
    """Make two columns orthonormal, add them to the basis, and project them out of the matrix."""
    n = cosine.shape[0]
    before = 0.0
    for i in range(n):
        before += cosine[i] * cosine[i] + sine[i] * sine[i]
    for which in range(2):
        column = cosine if which == 0 else sine
        for _ in range(2):  # a second time for what rounding has left
            for k in range(columns + which):
                product = 0.0
                for i in range(n):
                    product += basis[k, i] * column[i]
                for i in range(n):
                    column[i] -= product * basis[k, i]
        after = 0.0
        for i in range(n):
            after += column[i] * column[i]
        scale = 1 / np.sqrt(after) if after > VANISHES * before else 0.0
        for i in range(n):
            basis[columns + which, i] = scale * column[i]
        new = basis[columns + which]
        inner = 0.0
        for i in range(n):
            total = 0.0
            for j in range(n):
                total += gram[i, j] * new[j]
            image[i] = total
        for i in range(n):
            inner += new[i] * image[i]
        for i in range(n):
            image[i] -= 0.5 * inner * new[i]
        for i in range(n):
            one, other = new[i], image[i]
            for j in range(n):
                gram[i, j] -= one * image[j] + other * new[j]


@compiled
def first_harmonic(
    grams: Floats,
    bases: Floats,
    cosines: Floats,
    lowest: int,
    spacing: float,
    grid: Floats,
    omegas: Floats,
    dampings: Floats,
) -> None:
    """Fit one damped harmonic to each matrix and take it out, in place.

    Parameters
    ----------
    grams : ndarray, shape (b, n, n)
        Gram matrices that are free of the first two columns of the bases.
    bases : ndarray, shape (b, columns, n)
        Two orthonormal columns, as rows, and room for two more.
    cosines : ndarray, shape (frequency, n)
        Cosines of the lags at the frequencies of the search, from number `lowest` on, `spacing`
        apart.
    grid : ndarray
        Trial dampings.
    omegas, dampings : ndarray, shape (b,)
        Take the results.
    """
    n = grams.shape[1]
    cosine, sine, image = np.empty(n), np.empty(n), np.empty(n)
    along, across = np.empty(n), np.empty(2 * n - 1)
    work = np.empty((40, TRIALS))
    weighted = np.empty((n, n))
    for row in range(grams.shape[0]):
        gram, basis = grams[row], bases[row]
        _along_and_across(gram, along, across)
        omega = (lowest + _peak(along, cosines)) * spacing
        omega = refined(omega, 0.0, 0.5 * spacing, along, across, basis, 2, work)
        damping = _best_damping(gram, across, omega, grid, basis, 2, cosine, sine)
        image[0], shrink = np.exp(0.5 * damping * (n - 1)), np.exp(-damping)
        for i in range(1, n):
            image[i] = image[i - 1] * shrink
        for i in range(n):
            for j in range(n):
                weighted[i, j] = gram[i, j] * image[i] * image[j]
        _along_and_across(weighted, along, across)
        for reach in (0.75, 0.25, 0.08):
            omega = refined(omega, damping, reach * spacing, along, across, basis, 2, work)
        columns_of(omega, damping, cosine, sine)
        _take_out(gram, basis, 2, cosine, sine, image)
        omegas[row], dampings[row] = omega, damping


@compiled
def further_harmonics(
    grams: Floats, bases: Floats, fitted: int, cosines: Floats, lowest: int, spacing: float
) -> None:
    """Fit undamped harmonics to each matrix and take them out, until the bases are full.

    The first `fitted` columns of the bases are out already; all else as for `first_harmonic`.
    """
    n = grams.shape[1]
    cosine, sine, image = np.empty(n), np.empty(n), np.empty(n)
    along, across = np.empty(n), np.empty(2 * n - 1)
    work = np.empty((40, TRIALS))
    for row in range(grams.shape[0]):
        gram, basis = grams[row], bases[row]
        for columns in range(fitted, basis.shape[0], 2):
            _along_and_across(gram, along, across)
            omega = (lowest + _peak(along, cosines)) * spacing
            omega = refined(omega, 0.0, 0.5 * spacing, along, across, basis, columns, work)
            columns_of(omega, 0.0, cosine, sine)
            _take_out(gram, basis, columns, cosine, sine, image)
