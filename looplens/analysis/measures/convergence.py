"""How fast trajectories stop moving: steps, distances to the limit, rates, settling iterations.

Judges no regime: a trajectory that drifts for ever with small steps settles here by its tolerance
and is a slider in `classify`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from looplens.analysis.algebra.gram import TINY, Floats
from looplens.analysis.algebra.inputs import real_number
from looplens.analysis.algebra.moments import moments_of
from looplens.analysis.algebra.products import Moments
from looplens.analysis.algebra.trajectories import as_trajectories, tail_points
from looplens.analysis.regimes.thresholds import ROUNDING_STEP
from looplens.errors import InputError

_FLOOR_MULTIPLE = 3.0
CURVES = ("relative_step", "distance_to_limit", "state_norm", "radial_share")


@dataclass(frozen=True, kw_only=True, slots=True)
class Convergence:
    """What `convergence` measures; T is the number of steps, ``...`` the leading axes.

    Attributes
    ----------
    relative_step : ndarray, shape (..., T)
        |s_t - s_{t-1}| / |s_t|.
    distance_to_limit : ndarray, shape (..., T)
        |s_t - s*| / |s*|, where s* is the mean of the last quarter of the states.
    state_norm : ndarray, shape (..., T)
        |s_t|.
    radial_share : ndarray, shape (..., T)
        Share of each squared step that lies along the state before it: 1 for a pure change of norm.
    floor : ndarray, shape (...)
        Median relative step over the last quarter: an upper bound of the noise floor.
    rate : ndarray, shape (...)
        Factor by which step norms shrink in an iteration, fitted on the signal only (iteration 2 to
        `signal_end`); NaN where fewer than three steps are signal.
    signal_end : ndarray, shape (...)
        Last step that exceeds three times the floor; T when no step does, so that there is no floor
        to keep away from.
    settling_iteration : ndarray, shape (...)
        First iteration from which on all relative steps are below the tolerance; NaN when the last
        one is not.
    tolerance : float
        What relative steps were compared with.
    """

    relative_step: Floats
    distance_to_limit: Floats
    state_norm: Floats
    radial_share: Floats
    floor: Floats
    rate: Floats
    signal_end: Floats
    settling_iteration: Floats
    tolerance: float

    def reshaped(self, leading: tuple[int, ...]) -> Convergence:
        """Return the same with other leading axes."""
        numbers = ("floor", "rate", "signal_end", "settling_iteration")
        steps = self.relative_step.shape[-1]
        return dataclasses.replace(
            self,
            **{name: getattr(self, name).reshape(*leading, steps) for name in CURVES},
            **{name: getattr(self, name).reshape(leading) for name in numbers},
        )


def convergence(states: ArrayLike, *, tolerance: float = 1e-2) -> Convergence:
    """Measure how trajectories settle.

    Parameters
    ----------
    states : array_like, shape (..., iteration 0..T, d_model)
        States, the initial one first.
    tolerance : float
        Relative step under which a trajectory counts as settled.

    Returns
    -------
    Convergence
        NaN throughout for trajectories that are not finite.

    Raises
    ------
    InputError
        For fewer than two states, or a tolerance that is not positive.

    References
    ----------
    Relative step and distance to the limit: Geiping et al. 2025, arXiv:2502.05171. The floor as the
    median step of the last quarter and the signal as the steps above three times it: public
    self-audit of measurements on that model. Radial share: Sharma and Vu 2026, arXiv:2606.24898.
    """
    flat, leading = as_trajectories(states)
    count, length, _ = flat.shape
    if length < 2:
        raise InputError(f"Convergence needs at least two states; got {length}.")
    check_tolerance(tolerance)
    shape = (count, length - 1)
    return convergence_of(moments_of(flat), shape, tolerance, array_rounding(flat.dtype)).reshaped(
        leading
    )


def check_tolerance(tolerance: float) -> None:
    """Raise `InputError` unless the tolerance is a positive number."""
    if real_number(tolerance, "tolerance") <= 0:
        raise InputError(f"tolerance must be positive; got {tolerance}.")


def convergence_of(
    parts: list[Moments], shape: tuple[int, int], tolerance: float, rounding: float
) -> Convergence:
    """Measure how trajectories settle whose products are known.

    Parameters
    ----------
    parts : list of Moments
        Products.
    shape : tuple of int
        How many trajectories there are, and how many steps each has.
    tolerance : float
        Relative step under which a trajectory counts as settled.
    rounding : float
        Relative step that rounding alone shows.
    """
    count, steps = shape
    curves = {name: np.full(shape, np.nan) for name in CURVES}
    numbers = {name: np.full(count, np.nan) for name in ("floor", "rate", "signal_end", "settling")}
    for part in parts:
        rows = part.rows
        norms, size = np.sqrt(part.norm2), np.sqrt(part.step2)
        relative = _ratio(size, norms[:, 1:])
        limit = np.sqrt(part.limit2)[:, None]
        along = part.radial / np.maximum(norms[:, :-1], TINY)
        curves["relative_step"][rows] = relative
        curves["distance_to_limit"][rows] = _ratio(np.sqrt(part.away2[:, 1:]), limit)
        curves["state_norm"][rows] = norms[:, 1:] * part.scale[:, None]
        curves["radial_share"][rows] = np.minimum(_ratio(along**2, part.step2), 1.0)
        end, rate = signal_rate(size, rounding * norms[:, -1])
        numbers["floor"][rows] = np.median(relative[:, -tail_points(steps) :], axis=1)
        numbers["rate"][rows], numbers["signal_end"][rows] = rate, end
        numbers["settling"][rows] = settling_iteration(relative, tolerance)
    return Convergence(
        **curves,
        floor=numbers["floor"],
        rate=numbers["rate"],
        signal_end=numbers["signal_end"],
        settling_iteration=numbers["settling"],
        tolerance=float(tolerance),
    )


def settling_iteration(relative_step: Floats, tolerance: float) -> Floats:
    """First iteration (counted from 1) from which all steps are below the tolerance, or NaN.

    The last axis is the iteration. A step that is NaN at the beginning is unknown and does not
    count; any other NaN is not below.
    """
    moving = ~(relative_step < tolerance)
    if moving.shape[-1] > 1:
        moving[..., 0] &= ~np.isnan(relative_step[..., 0])
    steps = moving.shape[-1]
    last = np.where(moving.any(-1), steps - moving[..., ::-1].argmax(-1), 0)
    return np.where(last == steps, np.nan, last + 1.0)


def signal_rate(size: Floats, rounding: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Where the signal of a decaying series ends, and its factor per iteration before that.

    Parameters
    ----------
    size : ndarray, shape (b, T)
        Norms that decay to a floor: of steps, or of gaps between restarts, at iterations 1..T.
    rounding : ndarray, shape (b,)
        What rounding alone shows: a floor at exactly zero would make rounding a signal.

    Returns
    -------
    end : ndarray of int, shape (b,)
        Last iteration above three times the floor (the median of the last quarter, at least
        rounding); T if there is none.
    rate : ndarray, shape (b,)
        Exponential of the slope of log norm, fitted on iterations 2..end (the way from a random
        start is not part of the decay); NaN for fewer than three points.
    """
    steps = size.shape[-1]
    floor = np.maximum(np.median(size[:, -tail_points(steps) :], axis=1), rounding)
    above = size > _FLOOR_MULTIPLE * floor[:, None]
    end = np.where(above.any(1), steps - above[:, ::-1].argmax(1), steps)
    iteration = np.arange(1, steps + 1)
    used = (iteration >= 2) & (iteration <= end[:, None]) & (size > 0)
    weight = used.astype(np.float64)
    count = weight.sum(1)
    logs = np.log(np.where(used, size, 1.0))
    safe = np.maximum(count, 1.0)
    time = iteration - ((weight * iteration).sum(1) / safe)[:, None]
    spread = (weight * time**2).sum(1)
    slope = (weight * time * logs).sum(1) / np.maximum(spread, TINY)
    return end, np.where(count >= 3, np.exp(slope), np.nan)


def array_rounding(dtype: np.dtype) -> float:
    """Relative step that rounding alone shows in arrays of this dtype."""
    return ROUNDING_STEP.get(dtype.name, ROUNDING_STEP["float64"])


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Quotient; 0 / 0 is 0 (nothing moved), and a positive over 0 is infinite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(numerator == 0, 0.0, numerator / denominator)
