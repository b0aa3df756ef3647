"""Whether the place where a trajectory ends depends on where it started.

Compares restarts of the same token: how their distance develops, and the cosines of their limits.
Says nothing about what the model reads out of them.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from looplens.analysis.algebra.gram import TINY, Floats
from looplens.analysis.algebra.inputs import as_array
from looplens.analysis.algebra.moments import moments_of
from looplens.analysis.algebra.products import Moments
from looplens.analysis.algebra.threads import in_threads
from looplens.analysis.algebra.trajectories import tail_points
from looplens.analysis.measures.convergence import array_rounding
from looplens.analysis.measures.gap_decay import GapDecay, gap_decay, over_pairs
from looplens.errors import InputError

NUMBERS = ("gap_rate", "gap_rate_error", "gap_fit_end", "gap_floor", "final_gap", "token_aa")
_BYTES_PER_STEP = 2**20  # what is differenced at a time stays in the cache


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
        Factor by which the distance between two restarts changes in an iteration: below 1 the loop
        contracts. Geometric mean over pairs, each fitted on its leading run (`gap_decay`).
    gap_rate_error : ndarray, shape (...)
        Standard error of a pair and scatter between pairs.
    gap_fit_end : ndarray, shape (...)
        Last iteration of the fit, median over pairs.
    gap_floor : ndarray, shape (...)
        Median gap over the last quarter: an upper bound of the floor where the gap still falls.
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
    gap_rate_error: Floats
    gap_fit_end: Floats
    gap_floor: Floats
    final_gap: Floats
    token_aa: Floats
    aa_score: float

    def reshaped(self, leading: tuple[int, ...]) -> PathIndependence:
        """Return the same with other leading axes."""
        return dataclasses.replace(
            self,
            gap=self.gap.reshape(*leading, self.gap.shape[-1]),
            gap_max=self.gap_max.reshape(*leading, self.gap.shape[-1]),
            **{name: getattr(self, name).reshape(leading) for name in NUMBERS},
        )


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
    self-audit of measurements on the model of Geiping et al. 2025, arXiv:2502.05171. The paper's
    text was not read for the alignment score, only its public code.
    """
    array = as_array(states, ("iteration", "d_model"), first="restart")
    if len(array) < 2:
        raise InputError(
            "path_independence needs states (restart, ..., iteration, d_model) with at least two "
            f"restarts; got an array of shape {array.shape}."
        )
    leading = array.shape[1:-2]
    flat = array.reshape(len(array), math.prod(leading), *array.shape[-2:])
    trajectories = flat.reshape(-1, *array.shape[-2:])
    rounding = array_rounding(array.dtype)
    return path_independence_of(moments_of(trajectories), flat, rounding).reshaped(leading)


def path_independence_of(
    parts: list[Moments], states: NDArray[np.floating], rounding: float
) -> PathIndependence:
    """Compare restarts whose products are known.

    Parameters
    ----------
    parts : list of Moments
        Products of all trajectories, restart by restart.
    states : ndarray, shape (restart, token, iteration, d_model)
        The states themselves: differences of restarts are not among the products.
    rounding : float
        Relative gap that rounding alone shows.
    """
    restarts, count, length, d_model = states.shape
    norms = np.full((restarts * count, length), np.nan)
    limits = np.full((restarts * count, d_model), np.nan)
    scale = np.full(restarts * count, np.nan)
    for part in parts:
        norms[part.rows], scale[part.rows] = np.sqrt(part.norm2), part.scale
        limits[part.rows] = part.limit  # of states over their scale, which a cosine does not see
    norms, scale = norms.reshape(restarts, count, length), scale.reshape(restarts, count)
    limits = limits.reshape(restarts, count, d_model)
    rows = np.flatnonzero(np.isfinite(scale).all(0))
    gap, gap_max = np.full((count, length), np.nan), np.full((count, length), np.nan)
    numbers = {name: np.full(count, np.nan) for name in NUMBERS}
    if len(rows):
        # One scale for all restarts of a token, so that huge and tiny ones can be compared.
        common = scale[:, rows].max(0)
        norms = norms[:, rows] * (scale[:, rows] / common)[..., None]
        limits = limits[:, rows]
        lengths = np.sqrt(np.vecdot(limits, limits))
        gaps, cosines, fits = [], [], list[GapDecay]()
        for one, other in combinations(range(restarts), 2):
            distance = _distances(states[one], states[other], rows, common)
            size = 0.5 * (norms[one] + norms[other])
            gaps.append(distance / np.maximum(size, TINY))
            fits.append(gap_decay(distance, rounding * np.median(size, axis=1)))
            product = np.vecdot(limits[one], limits[other])
            both = lengths[one] * lengths[other]
            cosines.append(np.where(both > 0, product / np.maximum(both, TINY), np.nan))
        gap[rows], gap_max[rows] = np.mean(gaps, axis=0), np.max(gaps, axis=0)
        numbers["gap_floor"][rows] = np.median(gap[rows, -tail_points(length) :], axis=1)
        numbers["final_gap"][rows] = gap[rows, -1]
        numbers["token_aa"][rows] = np.mean(cosines, axis=0)
        fitted = zip(("gap_rate", "gap_rate_error", "gap_fit_end"), over_pairs(fits), strict=True)
        for name, values in fitted:
            numbers[name][rows] = values
    aa = numbers["token_aa"]
    known = aa[np.isfinite(aa)]
    return PathIndependence(
        gap=gap,
        gap_max=gap_max,
        **numbers,
        aa_score=float(known.mean()) if known.size else float("nan"),
    )


def _distances(
    one: NDArray[np.floating], other: NDArray[np.floating], rows: NDArray[np.int64], scale: Floats
) -> Floats:
    """Distances (row, iteration) between two restarts (token, iteration, d_model), over a scale."""
    squares = np.empty((len(rows), one.shape[1]))
    size = max(1, _BYTES_PER_STEP // one[:1].nbytes)
    work = np.dtype(np.float64 if one.dtype == np.float64 else np.float32)

    def part(start: int) -> None:
        some = rows[start : start + size]
        divisor = scale[start : start + size]
        if (divisor == 1).all():
            apart = one[some].astype(work) - other[some].astype(work)
        else:
            down = -_exponent(divisor)[:, None, None]
            apart = np.ldexp(one[some].astype(np.float64), down)
            apart -= np.ldexp(other[some].astype(np.float64), down)
        squares[start : start + size] = np.vecdot(apart, apart)

    in_threads(part, range(0, len(rows), size))
    return np.sqrt(squares)


def _exponent(power: Floats) -> NDArray[np.int32]:
    """Exponents of powers of two."""
    return np.frexp(power)[1] - 1
