"""Motions without a limit, a return or a direction: chaos, noise, walks, hops."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from looplens.testing.systems.motion import Floats, Motion, Recipe, Rng

# A draw counts as chaos only if nearby orbits part by this factor's logarithm per iteration:
# parameters inside a periodic window are drawn again.
LEAST_EXPONENT = 0.15


def logistic(rng: Rng, iterations: int) -> Motion:
    """Iterate the logistic map, on a line or on a curve."""
    while True:
        rate, x, exponent = rng.uniform(3.6, 4.0), rng.uniform(0.1, 0.9), 0.0
        for _ in range(400):
            x = rate * x * (1 - x)
        burnt = x
        for _ in range(1000):
            exponent += np.log(abs(rate * (1 - 2 * x)) + 1e-12) / 1000
            x = rate * x * (1 - x)
        if exponent > LEAST_EXPONENT:
            break
    series = np.empty((iterations + 1, 1))
    for t in range(iterations + 1):
        series[t], burnt = burnt, rate * burnt * (1 - burnt)
    if rng.uniform() < 0.5:  # a curved embedding instead of a line
        series = np.concatenate([series, series**2, np.sin(3 * series)], axis=1)
    return Motion(path=series)


def parting(step: Callable[[Floats], Floats], state: Floats, count: int) -> float:
    """Return the largest Lyapunov exponent of a map, from two orbits kept 1e-7 apart (Benettin)."""
    apart = state + 1e-7 / np.sqrt(len(state))
    total = 0.0
    for _ in range(count):
        state, apart = step(state), step(apart)
        distance = float(np.linalg.norm(apart - state))
        if not 0 < distance < np.inf:
            return -np.inf  # fell together, or escaped
        total += np.log(distance / 1e-7)
        apart = state + (apart - state) * (1e-7 / distance)
    return total / count


def _recorded(
    rng: Rng,
    iterations: int,
    draw: Callable[[Rng], tuple[Callable[[Floats], Floats], Floats]],
    least: float,
) -> Motion:
    """Draw maps until one is chaotic, and record it after 300 iterations."""
    while True:
        step, state = draw(rng)
        for _ in range(300):
            state = step(state)
        if np.isfinite(state).all() and parting(step, state, 400) > least:
            break
    path = np.empty((iterations + 1, len(state)))
    for t in range(iterations + 1):
        path[t], state = state, step(state)
    return Motion(path=path)


def henon(rng: Rng, iterations: int) -> Motion:
    """Iterate the Henon map near its classical parameters."""

    def draw(rng: Rng) -> tuple[Callable[[Floats], Floats], Floats]:
        a = rng.uniform(1.2, 1.4)
        start = rng.uniform(-0.1, 0.1, 2)
        return lambda s: np.array([1 - a * s[0] * s[0] + s[1], 0.3 * s[0]]), start

    return _recorded(rng, iterations, draw, LEAST_EXPONENT)


def ikeda(rng: Rng, iterations: int) -> Motion:
    """Iterate the Ikeda map of light in a ring cavity."""

    def draw(rng: Rng) -> tuple[Callable[[Floats], Floats], Floats]:
        u = rng.uniform(0.8, 0.9)

        def step(s: Floats) -> Floats:
            turn = 0.4 - 6 / (1 + s[0] * s[0] + s[1] * s[1])
            c, d = np.cos(turn), np.sin(turn)
            return np.array([1 + u * (s[0] * c - s[1] * d), u * (s[0] * d + s[1] * c)])

        return step, rng.uniform(0, 0.5, 2)

    return _recorded(rng, iterations, draw, LEAST_EXPONENT)


def network(rng: Rng, iterations: int) -> Motion:
    """Run a tanh network of 24 units with random weights of gain 2.5 to 4."""

    def draw(rng: Rng) -> tuple[Callable[[Floats], Floats], Floats]:
        matrix = rng.normal(size=(24, 24)) * (rng.uniform(2.5, 4.0) / np.sqrt(24))
        return lambda s: np.tanh(matrix @ s), rng.normal(size=24)

    return _recorded(rng, iterations, draw, 0.1)


def random_walk(rng: Rng, iterations: int) -> Motion:
    """Sum independent steps in 2 to 16 dimensions."""
    dims = int(rng.integers(2, 17))
    return Motion(path=np.cumsum(rng.normal(size=(iterations + 1, dims)), axis=0))


def white_noise(rng: Rng, iterations: int) -> Motion:
    """Draw independently in 1 to 16 dimensions."""
    return Motion(path=rng.normal(size=(iterations + 1, int(rng.integers(1, 17)))))


def coloured_noise(rng: Rng, iterations: int) -> Motion:
    """Draw autoregressive noise of order one, stationary from the start."""
    memory, dims = rng.uniform(0.3, 0.9), int(rng.integers(2, 17))
    path = rng.normal(size=(iterations + 1, dims))
    for t in range(1, iterations + 1):
        path[t] = memory * path[t - 1] + np.sqrt(1 - memory**2) * path[t]
    return Motion(path=path)


def code_hops(rng: Rng, iterations: int) -> Motion:
    """Count: one of 24 nearly equidistant codes after another, in an order without a period."""
    codes = rng.normal(size=(24, 24))
    order = np.concatenate([rng.permutation(24) for _ in range(iterations // 24 + 1)])
    return Motion(path=codes[order[: iterations + 1]])


def switching(rng: Rng, iterations: int) -> Motion:
    """Fall towards one of two sinks and then the other, after 2 to 7 steps as chance has it."""
    sinks, pull = rng.normal(size=(2, 4)), rng.uniform(0.3, 0.9)
    dwell = rng.integers(2, 8, iterations + 1)
    towards = np.repeat(np.arange(len(dwell)) % 2, dwell)
    state, path = sinks[0], np.empty((iterations + 1, 4))
    for t in range(iterations + 1):
        path[t] = state
        state = state + pull * (sinks[towards[t]] - state)
    return Motion(path=path)


RECIPES: dict[str, Recipe] = {
    "chaos_logistic": logistic,
    "chaos_henon": henon,
    "chaos_ikeda": ikeda,
    "chaos_network": network,
    "random_walk": random_walk,
    "white_noise": white_noise,
    "coloured_noise": coloured_noise,
    "code_hops": code_hops,
    "irregular_switching": switching,
}
