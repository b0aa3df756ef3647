"""Whether the place where a trajectory ends depends on where it started.

Compares restarts of the same token: how their distance develops, and the cosines of their limits.
Says nothing about what the model reads out of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from looplens.analysis._convergence import array_rounding, signal_rate
from looplens.analysis._gram import TINY, Floats
from looplens.analysis._inputs import as_array
from looplens.analysis._trajectories import tail_points
from looplens.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class PathIndependence:
    """What `path_independence` measures; ``...`` are the axes between restart and iteration.

    Attributes
    ----------
    gap : ndarray, shape (..., iteration)
        Distance between two restarts relative to the mean of their norms, mean over pairs.
    gap_max : ndarray, shape (..., iteration)
        The same for the farthest pair.
    gap_rate : ndarray, shape (...)
        Factor by which the gap changes in an iteration, fitted where it is above three times its
        floor.
    gap_floor : ndarray, shape (...)
        Median gap over the last quarter.
    final_gap : ndarray, shape (...)
        Gap at the last iteration.
    token_aa : ndarray, shape (...)
        Cosine between the limits of two restarts, mean over pairs. The limit is the mean of the
        last quarter, so two restarts on one orbit at different phases agree. NaN where a limit is
        zero: it has no direction.
    aa_score : float
        Mean of `token_aa`: 1 for a path-independent model. NaN when no token has one.
    """

    gap: Floats
    gap_max: Floats
    gap_rate: Floats
    gap_floor: Floats
    final_gap: Floats
    token_aa: Floats
    aa_score: float


def path_independence(states: ArrayLike) -> PathIndependence:
    """Compare restarts.

    Parameters
    ----------
    states : array_like, shape (restart, ..., iteration 0..T, d_model)
        At least two restarts.

    Returns
    -------
    PathIndependence
        NaN for tokens with a restart that is not finite.

    Raises
    ------
    InputError
        For other axes, fewer than two restarts, or values that are not real numbers.

    References
    ----------
    Asymptotic alignment score: Anil et al. 2022, arXiv:2211.09961, here over draws of the initial
    state instead of over the limits of other inputs. That a rate of contraction has to come from
    two trajectories of the same prompt, and not from one's distance to its own end: public
    self-audit of measurements on the model of Geiping et al. 2025, arXiv:2502.05171.
    """
    array = as_array(states, ("iteration", "d_model"), first="restart")
    if len(array) < 2:
        raise InputError(
            "path_independence needs states (restart, ..., iteration, d_model) with at least two "
            f"restarts; got an array of shape {array.shape}."
        )
    leading, length = array.shape[1:-2], array.shape[-2]
    count = math.prod(leading)
    flat = array.reshape(len(array), count, *array.shape[-2:]).astype(np.float64)
    gap, gap_max = np.full((count, length), np.nan), np.full((count, length), np.nan)
    rate, floor, aa = np.full(count, np.nan), np.full(count, np.nan), np.full(count, np.nan)
    rows = np.flatnonzero(np.isfinite(flat).all((0, 2, 3)))
    if len(rows):
        known = flat[:, rows]
        size = np.abs(known).max((0, 2, 3))
        known = known / np.where(size > 0, size, 1.0)[:, None, None]
        norms = np.sqrt((known**2).sum(-1))
        limits = known[..., -tail_points(length) :, :].mean(-2)
        lengths = np.sqrt((limits**2).sum(-1))
        gaps, cosines = [], []
        for one, other in combinations(range(len(known)), 2):
            distance = np.sqrt(((known[one] - known[other]) ** 2).sum(-1))
            gaps.append(distance / np.maximum(0.5 * (norms[one] + norms[other]), TINY))
            product = (limits[one] * limits[other]).sum(-1)
            both = lengths[one] * lengths[other]
            cosines.append(np.where(both > 0, product / np.maximum(both, TINY), np.nan))
        gap[rows], gap_max[rows] = np.mean(gaps, axis=0), np.max(gaps, axis=0)
        floor[rows] = np.median(gap[rows, -tail_points(length) :], axis=1)
        rounding = np.full(len(rows), array_rounding(array.dtype))
        _, rate[rows] = signal_rate(gap[rows], rounding)
        aa[rows] = np.mean(cosines, axis=0)
    known_aa = aa[np.isfinite(aa)]
    return PathIndependence(
        gap=gap.reshape(*leading, length),
        gap_max=gap_max.reshape(*leading, length),
        gap_rate=rate.reshape(leading),
        gap_floor=floor.reshape(leading),
        final_gap=gap[:, -1].reshape(leading),
        token_aa=aa.reshape(leading),
        aa_score=float(known_aa.mean()) if known_aa.size else float("nan"),
    )
