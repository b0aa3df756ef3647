"""Motions that return for ever: cycles, rotations, limit cycles, and a torus of two frequencies."""

from __future__ import annotations

import dataclasses

import numpy as np

from looplens.testing.systems.motion import (
    Floats,
    Motion,
    Recipe,
    Rng,
    decay,
    log_uniform,
    longest_period,
    times,
)


def _points(rng: Rng, iterations: int, period: int) -> Motion:
    points = rng.normal(size=(period, max(2, period - 1)))
    order = (np.arange(iterations + 1) + rng.integers(period)) % period
    return Motion(path=points[order], period=float(period))


def _angle(rng: Rng, iterations: int, period: float) -> Floats:
    return 2 * np.pi * times(iterations) / period + rng.uniform(0, 2 * np.pi)


def period_two(rng: Rng, iterations: int) -> Motion:
    """Visit two points in turn."""
    return _points(rng, iterations, 2)


def cycle(rng: Rng, iterations: int) -> Motion:
    """Visit three to nine points in turn."""
    longest = max(3, min(9, int(longest_period(iterations))))
    return _points(rng, iterations, int(rng.integers(3, longest + 1)))


def rotation(rng: Rng, iterations: int) -> Motion:
    """Go round an ellipse with a period that need not be an integer."""
    period = log_uniform(rng, 2.2, longest_period(iterations))
    angle = _angle(rng, iterations, period)
    path = np.concatenate([np.cos(angle), rng.uniform(0.4, 1.0) * np.sin(angle)], axis=1)
    return Motion(path=path, period=period)


def limit_cycle(rng: Rng, iterations: int) -> Motion:
    """Run the Hopf normal form from inside or outside the cycle."""
    period = log_uniform(rng, 3.0, longest_period(iterations))
    growth, radius = rng.uniform(0.15, 0.5), rng.choice([rng.uniform(0.3, 0.7), 1.4])
    path = np.empty((iterations + 1, 2))
    for t in range(iterations + 1):
        phase = 2 * np.pi * t / period
        path[t] = radius * np.cos(phase), radius * np.sin(phase)
        radius += growth * radius * (1 - radius**2)
    return Motion(path=path, period=period)


def transient(rng: Rng, iterations: int) -> Motion:
    """Put a cycle or rotation under a transient that is gone by the middle of the record."""
    motion = [period_two, cycle, rotation][int(rng.integers(3))](rng, iterations)
    highest = min(0.85, 0.002 ** (1 / (0.5 * iterations)))
    gone = 3.0 * decay(rng, iterations, 0.3, highest, 3)
    return dataclasses.replace(motion, path=np.concatenate([motion.path, gone], axis=1))


def driven(rng: Rng, iterations: int) -> Motion:
    """Orbit at 1 to 5 % of the norm, like a token that follows another one's orbit."""
    motion = [period_two, cycle, rotation][int(rng.integers(3))](rng, iterations)
    return dataclasses.replace(motion, rest="far")


def _closed_curve(rng: Rng, iterations: int, period: float) -> Motion:
    angle = _angle(rng, iterations, period)
    sizes = [1.0, *rng.uniform(0.2, 0.7, 2)]
    waves = [
        size * wave((order + 1) * angle)
        for order, size in enumerate(sizes)
        for wave in (np.cos, np.sin)
    ]
    return Motion(path=np.concatenate(waves, axis=1), period=period)


def non_planar(rng: Rng, iterations: int) -> Motion:
    """Go round a closed curve with three harmonics, each in a plane of its own."""
    return _closed_curve(rng, iterations, log_uniform(rng, 4.0, longest_period(iterations)))


def long(rng: Rng, iterations: int) -> Motion:
    """Go round such a curve only three to five times during the record."""
    return _closed_curve(rng, iterations, iterations / rng.uniform(3.0, 5.0))


def torus(rng: Rng, iterations: int) -> Motion:
    """Add two frequencies of irrational ratio: never the same state twice, always near an old one.

    The period is that of the larger circle.
    """
    ratio = float(rng.choice([(1 + 5**0.5) / 2, 2**0.5, 3**0.5]))
    period = log_uniform(rng, 2.2 * ratio, longest_period(iterations))
    large, small = _angle(rng, iterations, period), _angle(rng, iterations, period / ratio)
    size = rng.uniform(0.3, 0.7)
    waves = [np.cos(large), np.sin(large), size * np.cos(small), size * np.sin(small)]
    return Motion(path=np.concatenate(waves, axis=1), period=period)


def relaxation(rng: Rng, iterations: int) -> Motion:
    """Charge slowly and fall quickly, with a second coordinate that fires at the fall."""
    period = log_uniform(rng, 4.0, longest_period(iterations))
    phase = (times(iterations) / period + rng.uniform()) % 1.0
    share, bend = rng.uniform(0.6, 0.85), rng.uniform(0.5, 2.0)
    charge = (1 - np.exp(-bend * phase / share)) / (1 - np.exp(-bend))
    fall = (1 - phase) / (1 - share)
    fire = np.exp(-0.5 * ((phase - share) / 0.12) ** 2)
    path = np.concatenate([np.where(phase < share, charge, fall), fire], axis=1)
    return Motion(path=path, period=period)


def alternating(rng: Rng, iterations: int) -> Motion:
    """Fall towards one of two sinks and then the other, each for a fixed number of steps."""
    period = int(rng.integers(4, max(4, int(longest_period(iterations))) + 1))
    first = int(rng.integers(1, period))
    sinks, pull = rng.normal(size=(2, 4)), rng.uniform(0.3, 0.9)
    state, path = sinks[0], np.empty((iterations + 1, 4))
    # Twenty turns before the record: the switching is periodic from the start.
    start = 20 * period + int(rng.integers(period))
    for t in range(start + iterations + 1):
        if t >= start:
            path[t - start] = state
        state = state + pull * (sinks[int(t % period >= first)] - state)
    return Motion(path=path, period=float(period))


RECIPES: dict[str, Recipe] = {
    "orbit_period_two": period_two,
    "orbit_cycle": cycle,
    "orbit_rotation": rotation,
    "orbit_limit_cycle": limit_cycle,
    "orbit_transient": transient,
    "orbit_driven": driven,
    "orbit_non_planar": non_planar,
    "orbit_long": long,
    "orbit_torus": torus,
    "orbit_relaxation": relaxation,
    "orbit_alternating": alternating,
}
