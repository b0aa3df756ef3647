"""Compiled trials of damped harmonics: what a frequency explains of a Gram matrix.

The sums of the matrix along its diagonals and across them are given, and a trial costs a number of
operations linear in the states.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from looplens.analysis.algebra.compiled import compiled

Floats = NDArray[np.float64]

TRIALS = 8  # side by side: five that count, and what fills up a register
VANISHES = 1e-12  # of the square of a column, what is left across the others


@compiled
def columns_of(omega: float, damping: float, cosine: Floats, sine: Floats) -> None:
    """Damped cosine and sine about the middle of the window, by turning the one before."""
    n = cosine.shape[0]
    start = -0.5 * (n - 1)
    size, shrink = np.exp(-damping * start), np.exp(-damping)
    c, s = size * np.cos(omega * start), size * np.sin(omega * start)
    turn_c, turn_s = shrink * np.cos(omega), shrink * np.sin(omega)
    for i in range(n):
        cosine[i], sine[i] = c, s
        c, s = c * turn_c - s * turn_s, s * turn_c + c * turn_s


@compiled
def explained(
    k11: float,
    k12: float,
    k22: float,
    m11: float,
    m12: float,
    m22: float,
    size1: float,
    size2: float,
) -> float:
    """Variance that a pair of columns explains: sums over the matrix, and products of the columns.

    k over the matrix, m of the columns beyond the basis, sizes of the whole columns. A column that
    vanishes beside the other or the basis (one of them does at the Nyquist frequency) explains
    nothing: what is left of it is rounding.
    """
    share, slope = 0.0, 0.0
    least = VANISHES * (size1 + size2)
    if m11 > least:
        slope = m12 / m11
        share = k11 / m11
    rest = m22 - slope * m12
    if rest > least:
        share += (k22 - 2 * slope * k12 + slope * slope * k11) / rest
    return share


@compiled
def share_of(
    k11: float, k12: float, k22: float, cosine: Floats, sine: Floats, basis: Floats, columns: int
) -> float:
    """Variance that a pair of columns explains beyond a basis, from its sums over the matrix."""
    n = cosine.shape[0]
    size1, cross, size2 = 0.0, 0.0, 0.0
    for i in range(n):
        size1 += cosine[i] * cosine[i]
        cross += cosine[i] * sine[i]
        size2 += sine[i] * sine[i]
    m11, m22 = size1, size2
    for k in range(columns):
        in1, in2 = 0.0, 0.0
        for i in range(n):
            in1 += basis[k, i] * cosine[i]
            in2 += basis[k, i] * sine[i]
        m11 -= in1 * in1
        cross -= in1 * in2
        m22 -= in2 * in2
    return explained(k11, k12, k22, m11, cross, m22, size1, size2)


@compiled
def turns(first: float, step: float, cosine: Floats, sine: Floats) -> None:
    """Cosines and sines of equidistant angles, by turning the one before."""
    c, s, turn_c, turn_s = np.cos(first), np.sin(first), np.cos(step), np.sin(step)
    for q in range(cosine.shape[0]):
        cosine[q], sine[q] = c, s
        c, s = c * turn_c - s * turn_s, s * turn_c + c * turn_s


@compiled
def refined(
    omega: float,
    damping: float,
    reach: float,
    along: Floats,
    across: Floats,
    basis: Floats,
    columns: int,
    work: Floats,
) -> float:
    """Best of five frequencies up to `reach` away; beyond pi they are mirrored there.

    The sums are those of the matrix times the damping on both sides. The trials go side by side,
    since each cosine follows from the one before and alone would wait for it.
    """
    n = along.shape[0]
    turn_c, turn_s, c, s = work[0], work[1], work[2], work[3]
    even, odd, mixed = work[4], work[5], work[6]
    m11, m12, m22, size1, size2 = work[7], work[8], work[9], work[10], work[11]
    in1, in2 = work[12:26], work[26:40]
    turns(omega - reach, 0.5 * reach, turn_c, turn_s)
    for q in range(TRIALS):
        c[q], s[q] = turn_c[q], turn_s[q]
        even[q] = along[0]
    for k in range(1, n):
        for q in range(TRIALS):
            even[q] += 2 * along[k] * c[q]
            new = c[q] * turn_c[q] - s[q] * turn_s[q]
            s[q] = s[q] * turn_c[q] + c[q] * turn_s[q]
            c[q] = new
    turns((reach - omega) * (n - 1), -0.5 * reach * (n - 1), c, s)
    for q in range(TRIALS):
        odd[q], mixed[q] = 0.0, 0.0
    for m in range(2 * n - 1):
        for q in range(TRIALS):
            odd[q] += across[m] * c[q]
            mixed[q] += across[m] * s[q]
            new = c[q] * turn_c[q] - s[q] * turn_s[q]
            s[q] = s[q] * turn_c[q] + c[q] * turn_s[q]
            c[q] = new
    # The columns themselves, and what of them lies in the basis.
    start = -0.5 * (n - 1)
    size, shrink = np.exp(-damping * start), np.exp(-damping)
    turns((omega - reach) * start, 0.5 * reach * start, c, s)
    for q in range(TRIALS):
        c[q] *= size
        s[q] *= size
        turn_c[q] *= shrink
        turn_s[q] *= shrink
        size1[q], m12[q], size2[q] = 0.0, 0.0, 0.0
    in1[:columns] = 0.0
    in2[:columns] = 0.0
    for i in range(n):
        for q in range(TRIALS):
            size1[q] += c[q] * c[q]
            m12[q] += c[q] * s[q]
            size2[q] += s[q] * s[q]
        for k in range(columns):
            part = basis[k, i]
            for q in range(TRIALS):
                in1[k, q] += part * c[q]
                in2[k, q] += part * s[q]
        for q in range(TRIALS):
            new = c[q] * turn_c[q] - s[q] * turn_s[q]
            s[q] = s[q] * turn_c[q] + c[q] * turn_s[q]
            c[q] = new
    for q in range(TRIALS):
        m11[q], m22[q] = size1[q], size2[q]
    for k in range(columns):
        for q in range(TRIALS):
            m11[q] -= in1[k, q] * in1[k, q]
            m12[q] -= in1[k, q] * in2[k, q]
            m22[q] -= in2[k, q] * in2[k, q]
    best, found = -np.inf, omega
    for q in range(5):
        share = explained(
            0.5 * (even[q] + odd[q]),
            0.5 * mixed[q],
            0.5 * (even[q] - odd[q]),
            m11[q],
            m12[q],
            m22[q],
            size1[q],
            size2[q],
        )
        if share > best:
            best, found = share, omega + 0.5 * (q - 2) * reach
    return 2 * np.pi - found if found > np.pi else found
