"""Compiled loops over states in the order of their phase: neighbours, and distances from them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from looplens.analysis.algebra.compiled import compiled

Floats = NDArray[np.float64]
HOPELESS = 0.7  # of the size of errors that know nothing: not worth refining


@compiled
def neighbours(n: int, frequency: float, before: NDArray, after: NDArray, weight: Floats) -> None:
    """Find for each state its neighbours in phase from other turns, and the weight of the first."""
    phase = np.empty(n)
    for i in range(n):
        turn = i * frequency
        phase[i] = turn - np.floor(turn + 1e-9)
    order = np.argsort(phase)
    apart = 0.5 / frequency
    for place in range(n):
        i = order[place]
        a, b, low, high = -1, -1, 0.0, 0.0
        for k in range(1, n):
            j = order[(place - k) % n]
            if abs(j - i) > apart:
                a, low = j, phase[i] - phase[j]
                break
        for k in range(1, n):
            j = order[(place + k) % n]
            if abs(j - i) > apart and (j != a or k == n - 1):
                b, high = j, phase[j] - phase[i]
                break
        if a < 0:
            a, low = b, 0.0
        if b < 0:
            b, high = a, 0.0
        low -= np.floor(low + 1e-9)
        high -= np.floor(high + 1e-9)
        before[i], after[i] = a, b
        weight[i] = 0.5 if low + high < 1e-9 else high / (low + high)


@compiled
def errors_of(gram: Floats, before: NDArray, after: NDArray, weight: Floats, out: Floats) -> None:
    """Square of the distance of each state from the line between its neighbours.

    Over what white noise of variance 1 would give it; `weight` becomes that of the first neighbour
    at the nearest point.
    """
    for i in range(gram.shape[0]):
        a, b = before[i], after[i]
        first = gram[i, i] + gram[a, a] - 2 * gram[i, a]
        second = gram[i, i] + gram[b, b] - 2 * gram[i, b]
        between = gram[a, a] + gram[b, b] - 2 * gram[a, b]
        w = weight[i]
        if between > 1e-12 * gram[i, i]:
            w = min(max(0.5 * (1.0 + (second - first) / between), 0.0), 1.0)
        v = 1.0 - w
        weight[i] = w
        square = w * first + v * second - w * v * between
        out[i] = max(square, 0.0) / (1.0 + w * w + v * v)


@compiled
def search(
    grams: Floats, starts: Floats, least_turns: float, highest: float, found: Floats
) -> None:
    """Refine frequencies (b, k) by the mean size of the errors, and keep the best of each row.

    The size rather than the square, so that the corners of a cycle do not lead the search. A longer
    turn has to predict twice as well as a shorter one: its multiples fit as well as a turn itself.
    """
    b, n, _ = grams.shape
    before, after = np.empty(n, np.int64), np.empty(n, np.int64)
    weight, out = np.empty(n), np.empty(n)
    for row in range(b):
        best, typical = np.inf, 0.0
        for i in range(n):
            typical += grams[row, i, i] / n
        typical = n * np.sqrt(typical)
        found[row] = np.nan
        for k in range(starts.shape[1]):
            here, step = starts[row, k], 1.0 / (24 * n)
            if not here > 0:
                continue
            own = np.inf
            for stage in range(3):
                centre = here
                reach = 8 if stage == 0 else 2
                for q in range(-reach, reach + 1):
                    trial = centre + q * step
                    if trial * n < least_turns or trial > highest:
                        continue
                    if own < np.inf and q == 0:
                        continue
                    neighbours(n, trial, before, after, weight)
                    errors_of(grams[row], before, after, weight, out)
                    size = 0.0
                    for i in range(n):
                        size += np.sqrt(out[i])
                    if size < own:
                        own, here = size, trial
                step *= 0.4
                if own > HOPELESS * typical:
                    break
            if own > HOPELESS * typical:
                continue
            if own < 0.5 * best or (own < 2 * best and here > found[row]):
                best, found[row] = own, here
