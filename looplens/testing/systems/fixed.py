"""Motions that tend to a point: the distance to it goes to zero as t grows."""

from __future__ import annotations

import numpy as np

from looplens.testing.systems.motion import Motion, Recipe, Rng, decay, times


def geometric(rng: Rng, iterations: int) -> Motion:
    """Decay geometrically along one to five axes."""
    return Motion(path=decay(rng, iterations, 0.3, 0.85, int(rng.integers(1, 6))))


def spiral(rng: Rng, iterations: int) -> Motion:
    """Turn a pair of complex poles inside the unit circle."""
    pole = rng.uniform(0.75, 0.95) * np.exp(1j * rng.uniform(0.3, 2.8))
    turn = pole ** times(iterations)
    return Motion(path=np.concatenate([turn.real, turn.imag * rng.uniform(0.4, 1.0)], axis=1))


def converged(rng: Rng, iterations: int) -> Motion:
    """Reach the rounding floor of float32 long before the end."""
    return Motion(path=decay(rng, iterations, 0.05, 0.3, 4), rounded=True)


def slow(rng: Rng, iterations: int) -> Motion:
    """Put one slow pole of 0.9 to 0.955 beside faster ones."""
    path = decay(rng, iterations, 0.3, 0.8, 3)
    path[:, 0] = rng.choice([-1.0, 1.0]) * 1.5 * rng.uniform(0.9, 0.955) ** np.arange(len(path))
    return Motion(path=path)


def non_normal(rng: Rng, iterations: int) -> Motion:
    """Apply a triangular matrix: poles under 0.8, yet distances grow before they shrink."""
    matrix = np.diag(rng.uniform(0.5, 0.8, 3)) + np.diag(rng.uniform(1.0, 3.0, 2), 1)
    path = np.empty((iterations + 1, 3))
    state = rng.normal(size=3)
    for t in range(iterations + 1):
        path[t], state = state, matrix @ state
    return Motion(path=path)


def algebraic(rng: Rng, iterations: int) -> Motion:
    """Let the distance fall like a power of t: the map has slope 1 at its fixed point."""
    shape = (1 + times(iterations) / rng.uniform(0.5, 2.0)) ** -rng.uniform(1.2, 2.5)
    return Motion(path=np.concatenate([shape, 0.5 * decay(rng, iterations, 0.3, 0.7, 3)], axis=1))


def network(rng: Rng, iterations: int) -> Motion:
    """Run a tanh network whose matrix has norm 0.5 to 0.85, so that it is a contraction."""
    matrix = rng.normal(size=(16, 16))
    matrix *= rng.uniform(0.5, 0.85) / np.linalg.norm(matrix, 2)
    bias, state = rng.normal(size=(2, 16))
    path = np.empty((iterations + 1, 16))
    for t in range(iterations + 1):
        path[t], state = state, np.tanh(matrix @ state + bias)
    return Motion(path=path)


RECIPES: dict[str, Recipe] = {
    "fixed_geometric": geometric,
    "fixed_spiral": spiral,
    "fixed_converged": converged,
    "fixed_slow": slow,
    "fixed_non_normal": non_normal,
    "fixed_algebraic": algebraic,
    "fixed_network": network,
}
