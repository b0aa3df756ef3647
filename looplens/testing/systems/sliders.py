"""Motions that drift on.

Most have no bound: the distance from the start grows for ever. Two lie on a bounded set, ``arc``
and ``manifold``; they keep their speed, have no point of rest, and cover less than a third of a
turn during the record. What they do after several records more, the record does not say.
"""

from __future__ import annotations

import numpy as np

from looplens.testing.systems.motion import Motion, Recipe, Rng, decay, times


def linear(rng: Rng, iterations: int) -> Motion:
    """Move at constant velocity after a short transient."""
    drift = rng.uniform(0.5, 2.0) * times(iterations) / iterations
    return Motion(path=np.concatenate([drift, 0.3 * decay(rng, iterations, 0.2, 0.6, 3)], axis=1))


def arc(rng: Rng, iterations: int) -> Motion:
    """Drift along a circle about the origin: the norm stays, less than a third of a turn."""
    angle = rng.uniform(0.5, 2.0) * times(iterations) / iterations
    return Motion(path=np.concatenate([np.cos(angle), np.sin(angle)], axis=1), rest="origin")


def decelerating(rng: Rng, iterations: int) -> Motion:
    """Let steps shrink like t^-q with q up to 0.7: slower than 1/t, so their sum has no bound."""
    steps = (1 + times(iterations)) ** -rng.uniform(0.1, 0.7)
    return Motion(path=np.cumsum(steps, axis=0))


def logarithmic(rng: Rng, iterations: int) -> Motion:
    """Take the logarithm of time: steps of 1 / (tau + t), with tau over a third of the record."""
    return Motion(path=np.log1p(times(iterations) / (rng.uniform(0.35, 1.0) * iterations)))


def helix(rng: Rng, iterations: int) -> Motion:
    """Turn about an axis and drift along it by 3 to 10 radii."""
    angle = 2 * np.pi * times(iterations) / rng.uniform(2.5, 9.0) + rng.uniform(0, 2 * np.pi)
    drift = rng.uniform(3.0, 10.0) * times(iterations) / iterations
    return Motion(path=np.concatenate([np.cos(angle), np.sin(angle), drift], axis=1))


def norm_growth(rng: Rng, iterations: int) -> Motion:
    """Grow the norm linearly, to 3 to 20 times, while the direction settles."""
    direction = np.concatenate(
        [np.ones((iterations + 1, 1)), 0.5 * decay(rng, iterations, 0.3, 0.8, 4)], axis=1
    )
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    size = 1 + rng.uniform(2.0, 19.0) * times(iterations) / iterations
    return Motion(path=size * direction, rest="origin")


def manifold(rng: Rng, iterations: int) -> Motion:
    """Fall quickly onto a sphere and creep along it, on a curve that bends in two planes."""
    share = times(iterations) / iterations
    first, second = (rng.uniform(0.4, 2.0) * share + rng.uniform(0, 2 * np.pi) for _ in range(2))
    curve = [np.cos(first), np.sin(first), np.cos(second), np.sin(second)]
    path = np.concatenate([*curve, 0.5 * decay(rng, iterations, 0.2, 0.6, 3)], axis=1)
    return Motion(path=path, rest="origin")


RECIPES: dict[str, Recipe] = {
    "slider_linear": linear,
    "slider_arc": arc,
    "slider_decelerating": decelerating,
    "slider_logarithmic": logarithmic,
    "slider_helix": helix,
    "slider_norm_growth": norm_growth,
    "slider_manifold": manifold,
}
