"""What single steps look like: how long, which way, how sharply one turns into the next.

Everything comes from products of neighbouring states, so nothing here is quadratic in the number of
iterations. Numbers are taken over the signal only: from iteration 2 to where rounding takes over.
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
from looplens.analysis.measures.convergence import array_rounding, signal_rate
from looplens.analysis.regimes.thresholds import resting_spread
from looplens.errors import InputError

CURVES = ("step_norm", "step_cosine", "acceleration", "radial_step", "tangential_step")
NUMBERS = ("mean_step_cosine", "turning_angle", "curvature", "path_length", "straightness")
# A trained map amplifies its rounding: the same allowance as in the regimes.


@dataclass(frozen=True, kw_only=True, slots=True)
class Geometry:
    """What `geometry` measures; T is the number of steps, ``...`` the leading axes.

    With D_t = s_t - s_{t-1} and u the direction of s_{t-1}. The numbers are over the signal, which
    is iteration 2 to `signal_end`; NaN where there are fewer than two steps of it.

    Attributes
    ----------
    step_norm : ndarray, shape (..., T)
        |D_t|, in units of the state.
    step_cosine : ndarray, shape (..., T)
        Cosine of D_t and D_{t-1}: 1 straight on, 0 a right angle, -1 straight back. NaN at
        iteration 1, and where a step is zero.
    acceleration : ndarray, shape (..., T)
        |D_t - D_{t-1}| / |s_t|; NaN at iteration 1.
    radial_step, tangential_step : ndarray, shape (..., T)
        D_t . u / |s_t|, with its sign (positive is outwards), and |D_t - (D_t . u) u| / |s_t|. What
        is over the norm of a state is NaN where that is zero.
    signal_end : ndarray, shape (...)
        Last iteration that is not the noise floor: T where the last quarter moves by more than
        rounding, 0 where nothing does.
    mean_step_cosine : ndarray, shape (...)
        Mean of `step_cosine` over the signal.
    turning_angle : ndarray, shape (...)
        Mean angle between successive steps over the signal, in radians, 0 to pi.
    curvature : ndarray, shape (...)
        Median over the signal of the turning angle over the mean of the two steps, times |s_t|: 1
        on a circle about the origin.
    path_length : ndarray, shape (...)
        Sum of the steps of the signal, over the norm of the last state.
    straightness : ndarray, shape (...)
        Chord over arc: the distance from the state at iteration 1 to the last one, over the sum of
        the steps of the signal. 1 is a straight line.
    """

    step_norm: Floats
    step_cosine: Floats
    acceleration: Floats
    radial_step: Floats
    tangential_step: Floats
    signal_end: Floats
    mean_step_cosine: Floats
    turning_angle: Floats
    curvature: Floats
    path_length: Floats
    straightness: Floats

    def reshaped(self, leading: tuple[int, ...]) -> Geometry:
        """Return the same with other leading axes."""
        steps = self.step_norm.shape[-1]
        return dataclasses.replace(
            self,
            **{name: getattr(self, name).reshape(*leading, steps) for name in CURVES},
            **{name: getattr(self, name).reshape(leading) for name in ("signal_end", *NUMBERS)},
        )


def geometry(states: ArrayLike, *, rounding: float | None = None) -> Geometry:
    """Measure the steps of trajectories.

    Parameters
    ----------
    states : array_like, shape (..., iteration 0..T, d_model)
        States, the initial one first.
    rounding : float, optional
        Relative step that rounding alone shows where the states were computed; by default that of
        the dtype of the array.

    Returns
    -------
    Geometry
        NaN throughout for trajectories that are not finite.

    Raises
    ------
    InputError
        For fewer than three states, or a rounding that is negative.

    References
    ----------
    Step norm, cosine of successive steps, acceleration: Pappone, Crisostomi and Rodolà 2025,
    arXiv:2509.23314, as summarised by others; its text was not read. Acceleration over the norm of
    the state, instead of over the step: the sampler of Geiping et al. 2025, arXiv:2502.05171.
    Chord over arc, and the signal window: public self-audit of measurements on that model.
    """
    flat, leading = as_trajectories(states)
    count, length, _ = flat.shape
    if length < 3:
        raise InputError(f"The geometry of steps needs at least three states; got {length}.")
    smallest = known_rounding(flat.dtype, rounding)
    return geometry_of(moments_of(flat), (count, length - 1), smallest).reshaped(leading)


def known_rounding(dtype: np.dtype, rounding: float | None) -> float:
    """Relative step that rounding alone shows: what is given, or that of the dtype."""
    if rounding is None:
        return array_rounding(dtype)
    if real_number(rounding, "rounding") < 0:
        raise InputError(f"rounding must not be negative; got {rounding}.")
    return float(rounding)


def geometry_of(parts: list[Moments], shape: tuple[int, int], rounding: float) -> Geometry:
    """Measure the steps of trajectories whose products are known.

    Parameters
    ----------
    parts : list of Moments
        Products.
    shape : tuple of int
        How many trajectories there are, and how many steps each has.
    rounding : float
        Relative step that rounding alone shows.
    """
    curves = {name: np.full(shape, np.nan) for name in CURVES}
    numbers = {name: np.full(shape[0], np.nan) for name in ("signal_end", *NUMBERS)}
    for part in parts:
        rows, norm = part.rows, np.sqrt(part.norm2)
        size, now = np.sqrt(part.step2), np.where(norm[:, 1:] > 0, norm[:, 1:], np.nan)
        along = part.radial / np.maximum(norm[:, :-1], TINY)
        cosine = step_cosines(part)
        end = signal_end(size, norm[:, -1], rounding)
        curves["step_norm"][rows] = size * part.scale[:, None]
        curves["step_cosine"][rows] = cosine
        curves["acceleration"][rows, 1:] = np.sqrt(part.bend2) / now[:, 1:]
        curves["radial_step"][rows] = along / now
        curves["tangential_step"][rows] = np.sqrt(np.maximum(part.step2 - along**2, 0.0)) / now
        numbers["signal_end"][rows] = end
        for name, values in _over_signal(size, cosine, now, part.from_last2[:, 1], end).items():
            numbers[name][rows] = values
    return Geometry(**curves, **numbers)


def step_cosines(part: Moments) -> Floats:
    """Cosines of successive steps, (b, T): NaN at iteration 1 and where a step is zero.

    2 D_t . D_{t-1} = |D_t|^2 + |D_{t-1}|^2 - |D_t - D_{t-1}|^2, which loses no digits that matter:
    the cosine is off by no more than rounding of the squares.
    """
    both = part.step2[:, 1:] * part.step2[:, :-1]
    product = 0.5 * (part.step2[:, 1:] + part.step2[:, :-1] - part.bend2)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = np.where(both > 0, np.clip(product / np.sqrt(both), -1.0, 1.0), np.nan)
    return np.concatenate([np.full((len(cosine), 1), np.nan), cosine], axis=1)


def signal_end(size: Floats, norm: Floats, rounding: float) -> NDArray[np.int64]:
    """Last iteration whose step is not the noise floor, shape (b,).

    T where the median step of the last quarter exceeds 50 rounding steps (at most 1 % of the norm):
    then the tail moves, and there is no floor to keep away from. Otherwise the last step above
    three times that median; 0 where no step is.

    Parameters
    ----------
    size : ndarray, shape (b, T)
        Step norms.
    norm : ndarray, shape (b,)
        Norm of the last state.
    rounding : float
        Relative step that rounding alone shows.
    """
    steps = size.shape[-1]
    tail = np.median(size[:, -tail_points(steps) :], axis=1)
    at_rest = tail <= resting_spread(rounding) * norm
    end, _ = signal_rate(size, rounding * norm)
    # Without any step above the floor `signal_rate` takes all of them; at rest that is none.
    none = ~(size > 3.0 * np.maximum(tail, rounding * norm)[:, None]).any(1)
    return np.where(at_rest, np.where(none, 0, end), steps)


def _over_signal(
    size: Floats, cosine: Floats, norm: Floats, chord2: Floats, end: NDArray[np.int64]
) -> dict[str, Floats]:
    """Numbers over iterations 2..end of steps (b, T); a cosine needs the step before it too."""
    iteration = np.arange(1, size.shape[1] + 1)
    inside = (iteration >= 2) & (iteration <= end[:, None])
    turns = inside & (iteration >= 3) & np.isfinite(cosine)
    few = turns.sum(1) < 1
    angle = np.arccos(np.where(turns, cosine, 1.0))
    count = np.maximum(turns.sum(1), 1)
    mean_step = size.copy()
    mean_step[:, 1:] = 0.5 * (size[:, 1:] + size[:, :-1])
    arc = np.where(inside, size, 0.0).sum(1)
    bend = np.where(turns, angle / np.maximum(mean_step, TINY) * norm, np.nan)
    flat = ~np.isfinite(bend).any(1)
    bend[flat] = 0.0  # a median of nothing warns
    found = {
        "mean_step_cosine": np.where(turns, cosine, 0.0).sum(1) / count,
        "turning_angle": np.where(turns, angle, 0.0).sum(1) / count,
        "curvature": np.where(flat, np.nan, np.nanmedian(bend, axis=1)),
        "path_length": arc / norm[:, -1],
        "straightness": np.minimum(np.sqrt(chord2) / np.maximum(arc, TINY), 1.0),
    }
    return {name: np.where(few, np.nan, values) for name, values in found.items()}
