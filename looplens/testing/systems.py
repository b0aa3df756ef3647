"""Closed-form trajectories whose regime is known, for checking what analyses say.

A system is built in a few dimensions from a formula, turned into ``d_model`` dimensions by a random
orthonormal embedding, moved by a random offset, and covered with white observation noise. Every
draw comes from one seed. This module knows nothing of the analyses that it is used to check, of
runs on disk, or of models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from looplens.errors import InputError, near_matches

Floats = NDArray[np.float64]
Rng = np.random.Generator
# Relative spread of a settled float32 trajectory: a relative step of 1.9e-7 over the root of two.
FLOAT32_FLOOR = 1.35e-7
# A builder returns the low-dimensional trajectory (iteration 0..T, few) and its period (NaN: none).
Builder = Callable[[Rng, int], tuple[Floats, float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class System:
    """One trajectory with the truth about it.

    Attributes
    ----------
    states : ndarray of float64, shape (iteration 0..T, d_model)
        The trajectory.
    truth : str
        ``fixed_point``, ``orbit``, ``slider`` or ``unresolved``: what it tends to by construction.
    kind : str
        The recipe, one of `KINDS`.
    period : float
        Iterations in a turn; NaN where the truth is not an orbit.
    """

    states: Floats
    truth: str
    kind: str
    period: float


def _times(iterations: int) -> Floats:
    return np.arange(iterations + 1, dtype=np.float64)[:, None]


def _decay(rng: Rng, iterations: int, low: float, high: float, dims: int) -> Floats:
    """Sum of real geometric decays towards the origin along `dims` axes."""
    rates = rng.uniform(low, high, dims)
    return rng.normal(size=dims) * rates ** _times(iterations)


def _fixed_geometric(rng: Rng, iterations: int) -> tuple[Floats, float]:
    return _decay(rng, iterations, 0.3, 0.85, int(rng.integers(1, 6))), np.nan


def _fixed_spiral(rng: Rng, iterations: int) -> tuple[Floats, float]:
    pole = rng.uniform(0.75, 0.95) * np.exp(1j * rng.uniform(0.3, 2.8))
    turn = pole ** _times(iterations)
    return np.concatenate([turn.real, turn.imag * rng.uniform(0.4, 1.0)], axis=1), np.nan


def _fixed_converged(rng: Rng, iterations: int) -> tuple[Floats, float]:
    """Fast enough to be at the rounding floor of float32 long before the end (see make_system)."""
    return _decay(rng, iterations, 0.05, 0.3, 4), np.nan


def _fixed_slow(rng: Rng, iterations: int) -> tuple[Floats, float]:
    states = _decay(rng, iterations, 0.3, 0.8, 3)
    states[:, 0] = rng.choice([-1.0, 1.0]) * 1.5 * rng.uniform(0.9, 0.955) ** np.arange(len(states))
    return states, np.nan


def _longest_period(iterations: int) -> float:
    """Three turns fit in the second half of the record."""
    return max(iterations / 6.0, 3.5)


def _cycle(rng: Rng, iterations: int, period: int) -> Floats:
    points = rng.normal(size=(period, max(2, period - 1)))
    return points[(np.arange(iterations + 1) + rng.integers(period)) % period]


def _orbit_period_two(rng: Rng, iterations: int) -> tuple[Floats, float]:
    return _cycle(rng, iterations, 2), 2.0


def _orbit_cycle(rng: Rng, iterations: int) -> tuple[Floats, float]:
    period = int(rng.integers(3, max(3, min(9, int(_longest_period(iterations)))) + 1))
    return _cycle(rng, iterations, period), float(period)


def _rotation(rng: Rng, iterations: int) -> tuple[Floats, float]:
    period = np.exp(rng.uniform(np.log(2.2), np.log(_longest_period(iterations))))
    phase = 2 * np.pi * _times(iterations) / period + rng.uniform(0, 2 * np.pi)
    states = np.concatenate([np.cos(phase), rng.uniform(0.4, 1.0) * np.sin(phase)], axis=1)
    return states, float(period)


def _orbit_limit_cycle(rng: Rng, iterations: int) -> tuple[Floats, float]:
    period = np.exp(rng.uniform(np.log(3.0), np.log(_longest_period(iterations))))
    growth, radius = rng.uniform(0.15, 0.5), rng.choice([rng.uniform(0.3, 0.7), 1.4])
    states = np.empty((iterations + 1, 2))
    for t in range(iterations + 1):  # Hopf normal form, one step a turn of 2 pi / period
        phase = 2 * np.pi * t / period
        states[t] = radius * np.cos(phase), radius * np.sin(phase)
        radius += growth * radius * (1 - radius**2)
    return states, float(period)


def _orbit_transient(rng: Rng, iterations: int) -> tuple[Floats, float]:
    build = [_orbit_period_two, _orbit_cycle, _rotation][int(rng.integers(3))]
    states, period = build(rng, iterations)
    highest = 0.002 ** (1 / (0.5 * iterations))  # gone by the middle of the record
    transient = 3.0 * _decay(rng, iterations, 0.3, min(0.85, highest), 3)
    return np.concatenate([states, transient], axis=1), period


def _slider_linear(rng: Rng, iterations: int) -> tuple[Floats, float]:
    drift = rng.uniform(0.5, 2.0) * _times(iterations) / iterations
    return np.concatenate([drift, 0.3 * _decay(rng, iterations, 0.2, 0.6, 3)], axis=1), np.nan


def _slider_arc(rng: Rng, iterations: int) -> tuple[Floats, float]:
    """Drift along a circle about the origin: the norm stays, less than a third of a turn."""
    angle = rng.uniform(0.5, 2.0) * _times(iterations) / iterations
    return np.concatenate([np.cos(angle), np.sin(angle)], axis=1), np.nan


def _slider_decelerating(rng: Rng, iterations: int) -> tuple[Floats, float]:
    steps = (1 + _times(iterations)) ** -rng.uniform(0.1, 0.7)
    return np.cumsum(steps, axis=0), np.nan


def _chaos_logistic(rng: Rng, iterations: int) -> tuple[Floats, float]:
    """Iterate the logistic map where its Lyapunov exponent exceeds 0.15 (no periodic window)."""
    while True:
        rate, x, exponent = rng.uniform(3.6, 4.0), rng.uniform(0.1, 0.9), 0.0
        for _ in range(400):
            x = rate * x * (1 - x)
        burnt = x
        for _ in range(1000):
            exponent += np.log(abs(rate * (1 - 2 * x)) + 1e-12) / 1000
            x = rate * x * (1 - x)
        if exponent > 0.15:
            break
    series = np.empty((iterations + 1, 1))
    for t in range(iterations + 1):
        series[t], burnt = burnt, rate * burnt * (1 - burnt)
    if rng.uniform() < 0.5:  # a curved embedding instead of a line
        series = np.concatenate([series, series**2, np.sin(3 * series)], axis=1)
    return series, np.nan


def _random_walk(rng: Rng, iterations: int) -> tuple[Floats, float]:
    dims = int(rng.integers(2, 17))
    return np.cumsum(rng.normal(size=(iterations + 1, dims)), axis=0), np.nan


def _white_noise(rng: Rng, iterations: int) -> tuple[Floats, float]:
    return rng.normal(size=(iterations + 1, int(rng.integers(1, 17)))), np.nan


def _code_hops(rng: Rng, iterations: int) -> tuple[Floats, float]:
    """Count: one of 24 nearly equidistant codes after another, in an order without a period."""
    codes = rng.normal(size=(24, 24))
    order = np.concatenate([rng.permutation(24) for _ in range(iterations // 24 + 1)])
    return codes[order[: iterations + 1]], np.nan


_RECIPES: dict[str, tuple[str, Builder]] = {
    "fixed_geometric": ("fixed_point", _fixed_geometric),
    "fixed_spiral": ("fixed_point", _fixed_spiral),
    "fixed_converged": ("fixed_point", _fixed_converged),
    "fixed_slow": ("fixed_point", _fixed_slow),
    "orbit_period_two": ("orbit", _orbit_period_two),
    "orbit_cycle": ("orbit", _orbit_cycle),
    "orbit_rotation": ("orbit", _rotation),
    "orbit_limit_cycle": ("orbit", _orbit_limit_cycle),
    "orbit_transient": ("orbit", _orbit_transient),
    "slider_linear": ("slider", _slider_linear),
    "slider_arc": ("slider", _slider_arc),
    "slider_decelerating": ("slider", _slider_decelerating),
    "chaos_logistic": ("unresolved", _chaos_logistic),
    "random_walk": ("unresolved", _random_walk),
    "white_noise": ("unresolved", _white_noise),
    "code_hops": ("unresolved", _code_hops),
}

KINDS: tuple[str, ...] = tuple(_RECIPES)


def make_system(
    kind: str,
    *,
    iterations: int = 64,
    d_model: int = 64,
    snr_db: float = np.inf,
    seed: int = 0,
) -> System:
    """Build one trajectory with a known regime.

    Parameters
    ----------
    kind : str
        One of `KINDS`; the word before the first underscore hints at the truth.
    iterations : int
        T. The trajectory has T + 1 states, the first one at iteration 0.
    d_model : int
        Dimensions to embed in, at least 24.
    snr_db : float
        Signal-to-noise ratio in decibels: white noise whose norm is the root-mean-square distance
        of the clean trajectory from its mean times ``10 ** (-snr_db / 20)``. Infinity: none.
    seed : int
        Seed of every draw.

    Returns
    -------
    System

    Raises
    ------
    InputError
        For an unknown kind, fewer than 8 iterations or fewer than 24 dimensions.
    """
    if kind not in _RECIPES:
        raise InputError(
            f"Unknown kind of system {kind!r}; expected one of {', '.join(KINDS)}."
            f"{near_matches(kind, KINDS)}"
        )
    if iterations < 8 or d_model < 24:
        raise InputError(
            "A system needs at least 8 iterations and 24 dimensions; "
            f"got iterations={iterations}, d_model={d_model}."
        )
    truth, build = _RECIPES[kind]
    rng = np.random.default_rng([seed, KINDS.index(kind), iterations, d_model])
    trajectory, period = build(rng, iterations)
    axes, _ = np.linalg.qr(rng.normal(size=(d_model, trajectory.shape[1])))
    spread = float(np.sqrt(((trajectory - trajectory.mean(0)) ** 2).sum(-1).mean()))
    offset = rng.normal(size=d_model)
    if kind != "slider_arc":  # the arc keeps its norm: it turns about the origin
        # The resting state is as large as the motion to ten times larger.
        offset *= spread * 10 ** rng.uniform(0, 1) / np.linalg.norm(offset)
    else:
        offset[:] = 0
    noise = rng.normal(size=(iterations + 1, d_model)) / np.sqrt(d_model)
    states = trajectory @ axes.T + offset + spread * 10 ** (-snr_db / 20) * noise
    if kind == "fixed_converged":
        norms = np.linalg.norm(states, axis=-1, keepdims=True)
        states = states + FLOAT32_FLOOR * norms * noise[::-1]
    return System(states=states, truth=truth, kind=kind, period=float(period))
