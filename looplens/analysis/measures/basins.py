"""How many places restarts of the same token end in, and which restarts end where.

What is compared are the sets of states that the tails visit, not single states: two restarts on
one orbit share a basin at whatever phase they are. Says nothing about the shape of the sets.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from looplens.analysis.algebra.gram import TINY, Floats
from looplens.analysis.algebra.inputs import as_array, real_number
from looplens.analysis.algebra.threads import in_threads
from looplens.analysis.measures.convergence import array_rounding
from looplens.analysis.measures.phase import phases
from looplens.analysis.measures.state_sets import away, squares_of_all, to_path, way_ahead
from looplens.analysis.regimes.thresholds import resting_spread
from looplens.errors import InputError

UNKNOWN = -1
MOVEMENT_MULTIPLE = 2.0
STILL_CLOSING = 0.95  # share of a distance left in the second half of the tail
SMALLEST_FLOOR = 1e-7  # what is known of a distance over the norm, in float64
LONGEST_TAIL, SHORTEST_TAIL, _MOST_POINTS = 64, 16, 512
_BYTES_PER_STEP = 2**23


@dataclass(frozen=True, kw_only=True, slots=True)
class Basins:
    """What `basins` finds; ``...`` are the axes between restart and iteration.

    Attributes
    ----------
    basin : ndarray of int, shape (restart, ...)
        Number of the basin, the one with most restarts first (on a tie, the one with the earliest
        restart); -1 where a restart is not finite in the states that are compared.
    count : ndarray, shape (...)
        How many basins the restarts fall into; NaN where one is not finite.
    largest_share : ndarray, shape (...)
        Share of the restarts in the largest basin.
    separation : ndarray, shape (...)
        Smallest distance between restarts of different basins, over the norm; NaN with one basin.
    tolerance : ndarray, shape (...)
        Distance, over the norm, from which two restarts count as apart: the median over restarts.
    undecided : ndarray of bool, shape (...)
        Whether some pair that counts as apart may yet meet, so that the number of basins is an
        upper bound: it comes closer, or one of the two still goes to new places, and far enough.
    shift : ndarray, shape (restart, ...)
        Phase on an orbit: how many iterations a restart is ahead of the first restart in the same
        basin. NaN where the motion does not come back, or is below the tolerance.
    """

    basin: NDArray[np.int64]
    count: Floats
    largest_share: Floats
    separation: Floats
    tolerance: Floats
    undecided: NDArray[np.bool_]
    shift: Floats

    def reshaped(self, leading: tuple[int, ...]) -> Basins:
        """Return the same with other axes between restart and iteration."""
        values = {}
        for field in dataclasses.fields(self):
            first = (len(self.basin),) if field.name in ("basin", "shift") else ()
            values[field.name] = getattr(self, field.name).reshape((*first, *leading))
        return Basins(**values)


def basins(states: ArrayLike, *, basin_tolerance: float = 1e-3) -> Basins:
    r"""Sort restarts by where they end.

    With A and B the sets of states in the tails of two restarts, let :math:`d(A \to B)` be the root
    mean square, over the states of A, of the distance to B: to the nearest of the lines that join
    the state of B that is nearest with the next two. The two restarts are apart if
    :math:`d(A \to B) > \tau_A` or :math:`d(B \to A) > \tau_B`. The tolerance :math:`\tau_A` is the
    largest of ``basin_tolerance`` times the norm, the rounding floor (as in `classify`), and twice
    the distance of the states of A from the other states of A: what still moves, or is sampled
    coarsely, is not told apart more finely than it is known. Restarts are then joined by average
    linkage.

    With A' the same many states before those of A, two restarts of different basins are undecided
    if

    * their distance in the second half of the tails is under 95 % of that in the first,
    * or A has left A' by more than :math:`\tau_A`, or B has left B', and they would get as far as
      each other at the pace at which they slow down,
    * or they are not apart themselves, only from what the other one was joined with.

    Slow contraction, turns longer than the tail, drift, and chaos that is sampled too little look
    like several basins; this tells them from those that are.

    Parameters
    ----------
    states : array_like, shape (restart, ..., iteration 0..T, d_model)
        At least two restarts.
    basin_tolerance : float
        Distance over the norm that never counts as apart; at least 1e-7 is taken.

    Returns
    -------
    Basins
        Basins, their separation, and the phases on orbits.

    Raises
    ------
    InputError
        For other axes, fewer than two restarts, fewer than four iterations, or a tolerance that is
        not positive.

    Notes
    -----
    The tail is the last quarter, at least 16 (or half of a short record) and at most 64 states
    (fewer with many restarts). The phase is read from twice as many, so that longer turns come
    back.
    """
    array = as_array(states, ("iteration", "d_model"), first="restart")
    if len(array) < 2 or array.shape[-2] < 4:
        raise InputError(
            "basins needs states (restart, ..., iteration, d_model) with at least two restarts and "
            f"four iterations; got an array of shape {array.shape}."
        )
    check_tolerance(basin_tolerance)
    leading = array.shape[1:-2]
    flat = array.reshape(len(array), math.prod(leading), *array.shape[-2:])
    return basins_of(flat, array_rounding(array.dtype), basin_tolerance).reshaped(leading)


def check_tolerance(basin_tolerance: float) -> None:
    """Raise `InputError` unless the tolerance is a positive number."""
    if real_number(basin_tolerance, "basin_tolerance") <= 0:
        raise InputError(f"basin_tolerance must be positive; got {basin_tolerance}.")


def tail_of(length: int, restarts: int) -> int:
    """How many states at the end of a record of this length are compared; an even number."""
    points = max(length // 4, min(SHORTEST_TAIL, length // 2))
    most = max(SHORTEST_TAIL, min(LONGEST_TAIL, _MOST_POINTS // restarts))
    return min(points, most) // 2 * 2


def basins_of(
    states: NDArray[np.floating], rounding: float, basin_tolerance: float = 1e-3
) -> Basins:
    """Sort restarts by where they end; states (restart, token, iteration, d_model).

    Parameters
    ----------
    states : ndarray
        The states.
    rounding : float
        Relative step that rounding alone shows.
    basin_tolerance : float
        Distance over the norm that never counts as apart.
    """
    restarts, count = states.shape[:2]
    points = tail_of(states.shape[2], restarts)
    tail = states[:, :, -2 * points :]
    floor = max(basin_tolerance, resting_spread(rounding), SMALLEST_FLOOR)
    basin = np.full((restarts, count), UNKNOWN)
    shift = np.full((restarts, count), np.nan)
    numbers = {name: np.full(count, np.nan) for name in ("separation", "tolerance")}
    undecided = np.zeros(count, dtype=bool)
    finite = np.flatnonzero(np.isfinite(tail).all((0, 2, 3)))
    size = max(1, _BYTES_PER_STEP // (8 * tail[:, :1].size or 1))

    def part(start: int) -> None:
        rows = finite[start : start + size]
        some = np.moveaxis(tail[:, rows], 0, 1).astype(np.float64)
        _, exponent = np.frexp(np.abs(some).max((1, 2, 3)))  # squares of huge states overflow
        some = np.ldexp(some, -np.clip(exponent, -1000, 1000)[:, None, None, None])
        norm = np.sqrt(np.vecdot(some, some).mean((1, 2)))
        # In units of the norm, about a common centre, so that products lose no digits.
        some /= np.maximum(norm, TINY)[:, None, None, None]
        some -= some.mean((1, 2), keepdims=True)
        ends = some[:, :, -points:]
        gaps = ends - ends[:, :1]
        together = np.vecdot(gaps, gaps).mean(2).max(1) < floor**2
        numbered = np.zeros((len(rows), restarts), dtype=np.int64)
        numbers["tolerance"][rows] = floor
        if not together.all():
            rest = rows[~together]
            found = _compare(some[~together], floor)
            numbered[~together] = found[0]
            numbers["separation"][rest], numbers["tolerance"][rest], undecided[rest] = found[1:]
        leader = (numbered[:, :, None] == numbered[:, None]).argmax(2)
        basin[:, rows], shift[:, rows] = numbered.T, phases(some, leader, floor).T

    in_threads(part, range(0, len(finite), size))
    sizes = np.stack([(basin == number).sum(0) for number in range(restarts)])
    known = (basin >= 0).all(0)
    return Basins(
        basin=basin,
        count=np.where(known, (sizes > 0).sum(0), np.nan),
        largest_share=np.where(known, sizes.max(0, initial=0) / restarts, np.nan),
        undecided=undecided,
        shift=shift,
        **numbers,
    )


def _compare(
    points: Floats, floor: float
) -> tuple[NDArray[np.int64], Floats, Floats, NDArray[np.bool_]]:
    """Compare the tails of some tokens with each other, and with what went before them.

    Parameters
    ----------
    points : ndarray, shape (token, restart, point, d_model)
        The tails, and as many states before them, in units of the norm.
    floor : float
        Distance that never counts as apart.

    Returns
    -------
    basin : ndarray of int, shape (token, restart)
    separation, tolerance : ndarray, shape (token,)
    undecided : ndarray of bool, shape (token,)
    """
    half = points.shape[2] // 2
    before, tails = points[:, :, :half], points[:, :, half:]
    far = squares_of_all(tails)
    own = np.einsum("baaij->baij", far)
    nearest = to_path(far, own[:, None])
    moves = to_path(own + np.where(np.eye(half, dtype=bool), np.inf, 0.0), own)
    tolerance = np.maximum(floor, MOVEMENT_MULTIPLE * np.sqrt(moves))[:, :, None]
    apart = nearest > tolerance**2  # in one direction
    ratio = np.sqrt(nearest) / tolerance
    basin = np.stack([_joined(matrix) for matrix in np.maximum(ratio, np.swapaxes(ratio, 1, 2))])

    # What is where it was before goes nowhere.
    moves_on = away(tails, before) > tolerance[..., 0] ** 2
    ahead = np.where(moves_on, way_ahead(points), 0.0)
    yet = nearest < (ahead[:, :, None] + ahead[:, None]) ** 2
    quarter = half // 2
    early = to_path(far[..., :quarter, :quarter], own[:, None, :, :quarter, :quarter])
    late = to_path(far[..., quarter:, quarter:], own[:, None, :, quarter:, quarter:])
    nearest, early, late = (np.maximum(x, np.swapaxes(x, 1, 2)) for x in (nearest, early, late))
    yet |= late < STILL_CLOSING**2 * early

    other = basin[:, :, None] != basin[:, None]
    distance = np.where(other, np.sqrt(nearest), np.inf).min((1, 2))
    distance[np.isinf(distance)] = np.nan
    touching = ~(apart | np.swapaxes(apart, 1, 2))  # parted by what they are joined with
    undecided = (other & ((apart & yet) | touching)).any((1, 2))
    return basin, distance, np.median(tolerance, axis=(1, 2)), undecided


def _joined(ratio: Floats) -> NDArray[np.int64]:
    """Join the restarts of one token by their distances over tolerances (restart, restart)."""
    if (ratio <= 1).all():
        return np.zeros(len(ratio), dtype=np.int64)
    # Not at the top: viewers of runs need none of it.
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    ratio = np.minimum(ratio, 1e150)
    np.fill_diagonal(ratio, 0.0)
    found = fcluster(linkage(squareform(ratio, checks=False), "average"), 1.0, "distance")
    _, first, member, sizes = np.unique(
        found, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.lexsort((first, -sizes))
    return np.argsort(order)[member]
