"""Dynamic mode decomposition: the linear map that best takes each step of a trajectory to the next.

Its eigenvalues say how each part of the motion shrinks and turns per iteration: inside the unit
circle it dies out, on the circle it lasts. Fitted to the end of the signal, where a map that
settles is nearly linear.
"""

from __future__ import annotations

import dataclasses
import numbers
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from looplens.analysis.algebra.gram import Floats
from looplens.analysis.algebra.inputs import whole_number
from looplens.analysis.algebra.trajectories import as_trajectories
from looplens.analysis.measures.steps import known_rounding, signal_end
from looplens.errors import InputError

SHORTEST, LONGEST = 6, 64
_WANTED = 12
_DIGITS = 1e-7  # singular values come as roots of eigenvalues, which are exact to 1e-15


@dataclass(frozen=True, kw_only=True, slots=True)
class DMD:
    """What `dmd` finds; ``...`` are the leading axes.

    Attributes
    ----------
    eigenvalues : ndarray of complex, shape (..., mode)
        Multipliers per iteration, the mode with most motion first; NaN beyond the rank.
    amplitude : ndarray, shape (..., mode)
        Root-mean-square size of each mode over the window, in units of what was fitted: the modes
        together come closest to all snapshots.
    rank : ndarray, shape (...)
        How many directions were kept; NaN where the window is too short, or nothing moves in it.
    residual : ndarray, shape (...)
        Share of the norm of the snapshots that the linear map does not predict.
    first, last : ndarray, shape (...)
        Iterations of the first and the last state of the window.
    """

    eigenvalues: NDArray[np.complex128]
    amplitude: Floats
    rank: Floats
    residual: Floats
    first: Floats
    last: Floats

    def reshaped(self, leading: tuple[int, ...]) -> DMD:
        """Return the same with other leading axes."""
        modes = self.amplitude.shape[-1]
        return dataclasses.replace(
            self,
            eigenvalues=self.eigenvalues.reshape(*leading, modes),
            amplitude=self.amplitude.reshape(*leading, modes),
            **{n: getattr(self, n).reshape(leading) for n in ("rank", "residual", "first", "last")},
        )


def dmd(
    states: ArrayLike,
    *,
    rank: int | float | None = None,
    on: str = "steps",
    whole: bool = False,
    rounding: float | None = None,
) -> DMD:
    """Fit a linear map to the end of the signal of each trajectory.

    With snapshots X = (y_1 .. y_{n-1}) and Y = (y_2 .. y_n), and U S V* the singular value
    decomposition of X cut to the rank, the eigenvalues are those of U* Y V / S.

    Parameters
    ----------
    states : array_like, shape (..., iteration 0..T, d_model)
        States, the initial one first.
    rank : int, float or None
        How many directions to keep: a number; a share in (0, 1) of the sum of squares; or None for
        the optimal hard threshold of the singular values.
    on : {"steps", "states"}
        Snapshots. The limit drops out of the steps, so that no eigenvalue 1 stands for it; a drift
        of constant speed has the eigenvalue 1.
    whole : bool
        Take all states, instead of the last half of the signal (6 to 64 steps, 12 where there are).
    rounding : float, optional
        Relative step that rounding alone shows; by default that of the dtype of the array.

    Returns
    -------
    DMD

    Raises
    ------
    InputError
        For fewer than seven states, a rank that is none of these, or other snapshots.

    References
    ----------
    Exact DMD: Tu et al. 2014, J. Comput. Dyn. 1, 391. Hard threshold: Gavish and Donoho 2014, IEEE
    Trans. Inf. Theory 60, 5040 (both from memory, texts not read; the tests compare with PyDMD).
    """
    flat, leading = as_trajectories(states)
    count, length, _ = flat.shape
    if length < SHORTEST + 1:
        raise InputError(f"A linear map needs at least {SHORTEST + 1} states; got {length}.")
    check_rank(rank)
    if on not in ("steps", "states"):
        raise InputError(f"on must be 'steps' or 'states'; got {on!r}.")
    smallest = known_rounding(flat.dtype, rounding)
    modes = LONGEST if not whole else length
    found = DMD(
        eigenvalues=np.full((count, modes), np.nan + 1j * np.nan),
        amplitude=np.full((count, modes), np.nan),
        **{name: np.full(count, np.nan) for name in ("rank", "residual", "first", "last")},
    )
    for row in range(count):
        one = flat[row].astype(np.float64)
        if np.isfinite(one).all():
            _fit_row(found, row, one, rank, on == "steps", whole, smallest)
    most = int(np.nanmax(found.rank, initial=1))
    found = dataclasses.replace(
        found, eigenvalues=found.eigenvalues[:, :most], amplitude=found.amplitude[:, :most]
    )
    return found.reshaped(leading)


def check_rank(rank: int | float | None) -> None:
    """Raise `InputError` unless the rank is a number of directions, a share, or None."""
    if rank is None or (_is_share(rank) and 0 < rank < 1):
        return
    if _is_share(rank):
        raise InputError(
            f"rank must be a whole number, a share between 0 and 1, or None; got {rank}."
        )
    whole_number(rank, "rank", least=1)


def _is_share(rank: int | float) -> bool:
    """Whether it is no whole number; those of numpy count as what they are."""
    return isinstance(rank, numbers.Real) and not isinstance(rank, numbers.Integral)


def _fit_row(
    found: DMD,
    row: int,
    states: Floats,
    rank: int | float | None,
    steps: bool,
    whole: bool,
    rounding: float,
) -> None:
    """Fit one trajectory, if there is enough of it."""
    # Squares of very large or small states would leave the range; a power of two costs no digit.
    exponent = int(np.frexp(np.abs(states).max())[1])
    states = np.ldexp(states, -exponent)
    norm = float(np.linalg.norm(states[-1]))
    first, last = 0, len(states) - 1
    if not whole:
        size = np.linalg.norm(np.diff(states, axis=0), axis=1)
        end = int(signal_end(size[None], np.array([norm]), rounding)[0])
        last = end
        # The state before step `first + 1`; the first iteration comes from the random start.
        first = max(1, min(end // 2, end - _WANTED), end - LONGEST)
    if last - first < SHORTEST:
        return
    window = states[first : last + 1]
    snapshots = np.diff(window, axis=0) if steps else window
    if not snapshots[:-1].any():  # nothing to predict from
        return
    least = rounding * norm * np.sqrt(len(snapshots))
    values, sizes, residual = _fit(snapshots, rank, least)
    sizes = np.ldexp(sizes, exponent)
    found.eigenvalues[row, : len(values)], found.amplitude[row, : len(values)] = values, sizes
    found.rank[row], found.residual[row] = len(values), residual
    found.first[row], found.last[row] = first, last


def _fit(
    snapshots: Floats, rank: int | float | None, least: float
) -> tuple[NDArray[np.complex128], Floats, float]:
    """Eigenvalues, sizes of the modes over the snapshots (n, d), and what is not predicted."""
    # All of it follows from the inner products of the snapshots: n x n instead of d x d.
    gram = snapshots @ snapshots.T
    squares, vectors = np.linalg.eigh(gram[:-1, :-1])
    singular = np.sqrt(np.maximum(squares[::-1], 0.0))
    shape = (snapshots.shape[1], len(singular))
    kept = _kept(singular[: min(shape)], shape, rank, max(least, _DIGITS * singular[0]))
    basis, scale = vectors[:, ::-1][:, :kept], singular[:kept]
    small = (basis.T @ gram[:-1, 1:] @ basis) / scale[:, None] / scale
    values, modes = np.linalg.eig(small)
    sizes = _sizes(values, modes, scale[:, None] * basis.T)
    total = float(np.trace(gram[1:, 1:]))
    missed = max(total - float(np.sum((small * scale) ** 2)), 0.0)
    # Both of a pair have one size but for rounding: the upper one comes first.
    order = np.lexsort((-values.imag, -np.round(sizes / sizes.max(initial=1e-300), 9)))
    return values[order], sizes[order], float(np.sqrt(missed / total)) if total > 0 else 0.0


def _sizes(values: NDArray[np.complex128], modes: NDArray[np.complex128], path: Floats) -> Floats:
    """Root-mean-square sizes of the modes that together come closest to a path (r, n).

    The first snapshot alone would make a mode that is gone at once the largest of a bad fit.
    """
    time = np.arange(path.shape[1])
    # A mode that grows is counted back from the end, so that its powers stay finite.
    back = np.where(np.abs(values) > 1.0, time[-1], 0)
    powers = values.astype(complex)[:, None] ** (time - back[:, None])
    powers = powers / np.sqrt(np.mean(np.abs(powers) ** 2, axis=1, keepdims=True))
    left = (modes.conj().T @ modes) * (powers @ powers.conj().T).conj()
    right = np.einsum("jt,it,ij->j", powers.conj(), path, modes.conj())
    return np.abs(np.linalg.lstsq(left, right, rcond=None)[0])


def _kept(singular: Floats, shape: tuple[int, int], rank: int | float | None, least: float) -> int:
    """How many singular values to keep: at least one, and none that rounding alone shows."""
    real = max(int((singular > least).sum()), 1)
    if rank is not None and not _is_share(rank):
        return min(int(rank), real)
    if rank is not None:
        shares = np.cumsum(singular**2) / max(float(np.sum(singular**2)), 1e-300)
        return min(int(np.searchsorted(shares, rank)) + 1, real)
    beta = min(shape) / max(shape)
    threshold = np.median(singular) * (0.56 * beta**3 - 0.95 * beta**2 + 1.82 * beta + 1.43)
    return min(max(int((singular > threshold).sum()), 1), real)
