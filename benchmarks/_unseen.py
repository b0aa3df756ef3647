"""Systems that no threshold was chosen on.

They are other systems than those of `looplens.testing`, not other seeds of them. Truth is by
construction, as there. Whoever works on the detector must not look at which of these it misses, or
it ends their use; that is why only sums are printed of them. What to work on is
`looplens.testing.KINDS` with seeds below 1000.
"""

from __future__ import annotations

import functools
import zlib

import numpy as np

from benchmarks._unseen_flows import (
    clock,
    fitzhugh_nagumo,
    lorenz,
    pendulum,
    roessler,
    van_der_pol,
)
from looplens.testing.systems.irregular import LEAST_EXPONENT, parting
from looplens.testing.systems.making import System, observed
from looplens.testing.systems.motion import Floats, Motion, Recipe, Rng, log_uniform, longest_period


def doughnut(rng: Rng, iterations: int) -> Motion:
    """The surface of a torus in three dimensions: the two rotations multiply."""
    ratio = float(rng.choice([5**0.5, np.e / 2, np.pi / 2]))
    period = log_uniform(rng, 2.3 * ratio, longest_period(iterations))
    long = 2 * np.pi * (clock(iterations) / period + rng.uniform())
    short = 2 * np.pi * (clock(iterations) * ratio / period + rng.uniform())
    small = rng.uniform(0.2, 0.5)
    ring = 1 + small * np.cos(short)
    path = np.stack([ring * np.cos(long), ring * np.sin(long), small * np.sin(short)], axis=1)
    return Motion(path=path, period=period)


def noisy_cycle(rng: Rng, iterations: int) -> Motion:
    """A limit cycle whose phase diffuses by at most half a radian over the record."""
    period = log_uniform(rng, 3.0, longest_period(iterations))
    phase = 2 * np.pi * clock(iterations) / period + rng.uniform(0, 2 * np.pi)
    kicks = rng.normal(size=iterations + 1) * (rng.uniform(0.1, 0.5) / np.sqrt(iterations))
    radius = np.empty(iterations + 1)
    radius[0] = rng.uniform(0.5, 1.5)
    for i in range(iterations):
        radius[i + 1] = 1 + 0.7 * (radius[i] - 1) + 0.03 * rng.normal()
    phase += np.cumsum(kicks)
    path = np.stack([radius * np.cos(phase), radius * np.sin(phase)], axis=1)
    return Motion(path=path, period=period)


def three_sinks(rng: Rng, iterations: int) -> Motion:
    """Fall towards a sink until close to it, then towards the next of three."""
    sinks, near = rng.normal(size=(3, 6)), 0.2
    dwell = int(rng.integers(1, max(1, min(6, int(longest_period(iterations) / 3))) + 1))
    pull = 1 - near ** (1 / dwell) + 1e-3
    state, path = sinks[2], []
    for i in range(60 * dwell + iterations + 1):
        path.append(state)
        state = state + pull * (sinks[(i // dwell) % 3] - state)
    return Motion(path=np.array(path[-(iterations + 1) :]), period=3.0 * dwell)


def logistic_window(rng: Rng, iterations: int) -> Motion:
    """The logistic map inside a window of period 3, 4 or 5, which draws orbits in quickly."""
    rate, period = [(3.8319, 3), (3.4985, 4), (3.7389, 5)][int(rng.integers(3))]
    x = rng.uniform(0.2, 0.8)
    for _ in range(3000):
        x = rate * x * (1 - x)
    for _ in range(int(rng.integers(period))):
        x = rate * x * (1 - x)
    path = np.empty(iterations + 1)
    for i in range(iterations + 1):
        path[i], x = x, rate * x * (1 - x)
    return Motion(path=np.stack([path, path**2], axis=1), period=float(period))


def logarithmic_spiral(rng: Rng, iterations: int) -> Motion:
    """Round and round, towards the middle, not far from the plane."""
    t = clock(iterations)
    radius = rng.uniform(0.8, 0.93) ** t
    angle = rng.uniform(0.1, 1.5) * t
    path = [radius * np.cos(angle), radius * np.sin(angle), 0.3 * radius**2]
    return Motion(path=np.stack(path, axis=1))


def logistic_sink(rng: Rng, iterations: int) -> Motion:
    """The logistic map where it has a stable fixed point that it reaches from both sides."""
    rate, x = rng.uniform(2.2, 2.88), rng.uniform(0.1, 0.4)
    path = np.empty(iterations + 1)
    for i in range(iterations + 1):
        path[i], x = x, rate * x * (1 - x)
    return Motion(path=np.stack([path, np.sqrt(path)], axis=1))


def descent(rng: Rng, iterations: int) -> Motion:
    """Gradient descent with momentum on a bowl that is neither round nor quadratic."""
    bends = rng.uniform(0.05, 0.4, 8)
    state, speed = rng.normal(size=8), np.zeros(8)
    path = np.empty((iterations + 1, 8))
    for i in range(iterations + 1):
        path[i] = state
        speed = 0.6 * speed - bends * (state + 0.3 * state**3)
        state = state + speed
    return Motion(path=path)


def parabola(rng: Rng, iterations: int) -> Motion:
    """A drift that gains speed in two more directions."""
    t = clock(iterations) / iterations
    path = np.stack([t, rng.uniform(0.3, 1.0) * t**2, rng.uniform(0.1, 0.6) * t**3], axis=1)
    return Motion(path=rng.uniform(0.5, 2.0) * path)


def stick_slip(rng: Rng, iterations: int) -> Motion:
    """A drift whose speed rises and falls."""
    t, period = clock(iterations), rng.uniform(3.0, 8.0)
    wave = rng.uniform(0.3, 0.8) * period / (2 * np.pi) * np.sin(2 * np.pi * t / period)
    return Motion(path=np.stack([t + wave, 0.5 * t], axis=1) / iterations)


def turning_drift(rng: Rng, iterations: int) -> Motion:
    """A drift whose heading turns ever more slowly, by one to two radians during the record."""
    heading = (
        rng.uniform(1.0, 2.0) * np.log1p(clock(iterations) / (0.3 * iterations)) / np.log1p(1 / 0.3)
    )
    path = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=1), axis=0)
    return Motion(path=path / iterations)


def growing_norm(rng: Rng, iterations: int) -> Motion:
    """A norm that grows like the root of time along a direction that still wobbles at first."""
    t = clock(iterations)
    size = np.sqrt(1 + rng.uniform(0.5, 4.0) * t)
    wobble = 0.4 * rng.uniform(0.5, 0.8) ** t
    return Motion(path=np.stack([size, size * wobble, wobble], axis=1), rest="origin")


def standard_map(rng: Rng, iterations: int) -> Motion:
    """The kicked rotor, far beyond the last torus, on the circle of its two angles."""
    kick, p, q = rng.uniform(6.0, 9.0), *rng.uniform(0, 2 * np.pi, 2)
    path = np.empty((iterations + 1, 4))
    for i in range(iterations + 1):
        path[i] = np.cos(p), np.sin(p), np.cos(q), np.sin(q)
        p = p + kick * np.sin(q)
        q = q + p
    return Motion(path=path)


def coupled_lattice(rng: Rng, iterations: int) -> Motion:
    """Twelve logistic maps, each coupled to its neighbours, in space-time chaos.

    Some draws freeze into a pattern of period two; the exponent tells, and they are drawn again.
    """
    while True:
        state, coupling = rng.uniform(0.1, 0.9, 12), rng.uniform(0.05, 0.15)

        def step(x: Floats, coupling: float = coupling) -> Floats:
            mapped = 3.97 * x * (1 - x)
            beside = (np.roll(mapped, 1) + np.roll(mapped, -1)) / 2
            return (1 - coupling) * mapped + coupling * beside

        for _ in range(200):
            state = step(state)
        if parting(step, state, iterations) > LEAST_EXPONENT:
            break
    path = np.empty((iterations + 1, 12))
    for i in range(iterations + 1):
        path[i], state = state, step(state)
    return Motion(path=path)


def chaotic_switching(rng: Rng, iterations: int) -> Motion:
    """Fall towards one of three sinks; a chaotic map says at each step which."""
    sinks, pull, x = rng.normal(size=(3, 5)), rng.uniform(0.4, 0.95), rng.uniform(0.1, 0.9)
    state, path = sinks[0], np.empty((iterations + 1, 5))
    for i in range(iterations + 1):
        path[i] = state
        x = 3.99 * x * (1 - x)
        state = state + pull * (sinks[min(int(3 * x), 2)] - state)
    return Motion(path=path)


def persistent_walk(rng: Rng, iterations: int) -> Motion:
    """A random walk whose steps remember half of the one before."""
    steps = rng.normal(size=(iterations + 1, int(rng.integers(3, 13))))
    for i in range(1, iterations + 1):
        steps[i] += 0.5 * steps[i - 1]
    return Motion(path=np.cumsum(steps, axis=0))


def pink_noise(rng: Rng, iterations: int) -> Motion:
    """Noise whose power falls like one over the frequency, from a record eight times as long."""
    n = 8 * (iterations + 1)
    spectrum = np.fft.rfft(rng.normal(size=(n, int(rng.integers(2, 13)))), axis=0)
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))[:, None]
    spectrum[0] = 0
    return Motion(path=np.fft.irfft(spectrum, n, axis=0)[: iterations + 1])


RECIPES: dict[str, tuple[str, Recipe]] = {
    "logarithmic_spiral": ("fixed_point", logarithmic_spiral),
    "pendulum": ("fixed_point", pendulum),
    "logistic_sink": ("fixed_point", logistic_sink),
    "descent": ("fixed_point", descent),
    "van_der_pol": ("orbit", van_der_pol),
    "fitzhugh_nagumo": ("orbit", fitzhugh_nagumo),
    "doughnut": ("orbit", doughnut),
    "noisy_cycle": ("orbit", noisy_cycle),
    "three_sinks": ("orbit", three_sinks),
    "logistic_window": ("orbit", logistic_window),
    "parabola": ("slider", parabola),
    "stick_slip": ("slider", stick_slip),
    "turning_drift": ("slider", turning_drift),
    "growing_norm": ("slider", growing_norm),
    "lorenz": ("unresolved", lorenz),
    "roessler": ("unresolved", roessler),
    "standard_map": ("unresolved", standard_map),
    "coupled_lattice": ("unresolved", coupled_lattice),
    "chaotic_switching": ("unresolved", chaotic_switching),
    "persistent_walk": ("unresolved", persistent_walk),
    "pink_noise": ("unresolved", pink_noise),
}
KINDS = tuple(RECIPES)


@functools.lru_cache(maxsize=4096)
def _motion(kind: str, iterations: int, seed: int) -> Motion:
    rng = np.random.default_rng([seed, zlib.crc32(kind.encode()), iterations])
    return RECIPES[kind][1](rng, iterations)


def make_unseen(
    kind: str, *, iterations: int, d_model: int = 64, snr_db: float = np.inf, seed: int = 0
) -> System:
    """Build one of these systems, as `looplens.testing.make_system` builds its own."""
    motion = _motion(kind, iterations, seed)
    rng = np.random.default_rng([seed, zlib.crc32(kind.encode()), iterations, d_model, 1])
    states = observed(motion, rng, d_model=d_model, snr_db=snr_db)
    return System(states=states, truth=RECIPES[kind][0], kind=kind, period=motion.period)
