"""Sampled flows among the systems that no threshold was chosen on; see `_unseen`."""

from __future__ import annotations

import numpy as np
from scipy.integrate import odeint

from looplens.testing.systems.motion import (
    Floats,
    Motion,
    Rng,
    log_uniform,
    longest_period,
    times,
)


def clock(iterations: int) -> Floats:
    """Return 0..T."""
    return times(iterations)[:, 0]


def _flow(field, start: Floats, period: float, *, burn: float, times: Floats) -> Floats:
    """Sample a flow at `times` turns of a measured period, after `burn` units of its own time."""
    span = np.concatenate([[0.0], burn + times * period])
    return odeint(field, start, span, rtol=1e-8, atol=1e-10, mxstep=100_000)[1:]


def _cycle_length(field, start: Floats, *, burn: float, guess: float) -> float:
    """Mean time between upward crossings of the mean of the first coordinate."""
    t = np.linspace(0, burn + 12 * guess, 6000)
    x = odeint(field, start, t, rtol=1e-8, atol=1e-10, mxstep=100_000)[t > burn, 0]
    t, x = t[t > burn], x - x.mean()
    up = np.flatnonzero((x[:-1] < 0) & (x[1:] >= 0))
    crossings = t[up] - x[up] * (t[up + 1] - t[up]) / (x[up + 1] - x[up])
    return float(np.diff(crossings).mean())


def _oscillator(rng: Rng, iterations: int, field, start: Floats, guess: float) -> Motion:
    burn = 15 * guess
    length = _cycle_length(field, start, burn=burn, guess=guess)
    period = log_uniform(rng, 4.0, longest_period(iterations))
    path = _flow(
        field, start, length / period, burn=burn + rng.uniform(0, length), times=clock(iterations)
    )
    return Motion(path=path / path.std(0), period=period)


def van_der_pol(rng: Rng, iterations: int) -> Motion:
    mu = rng.uniform(1.0, 5.0)
    return _oscillator(
        rng, iterations, lambda s, _: [s[1], mu * (1 - s[0] ** 2) * s[1] - s[0]], np.ones(2), 8.0
    )


def fitzhugh_nagumo(rng: Rng, iterations: int) -> Motion:
    drive = rng.uniform(0.4, 0.8)

    def field(s, _):
        return [s[0] - s[0] ** 3 / 3 - s[1] + drive, 0.08 * (s[0] + 0.7 - 0.8 * s[1])]

    return _oscillator(rng, iterations, field, np.zeros(2), 40.0)


def pendulum(rng: Rng, iterations: int) -> Motion:
    """A pendulum with friction, from a large swing."""
    friction = rng.uniform(0.3, 0.8)
    start = np.array([rng.uniform(1.5, 2.8), 0.0])
    path = _flow(
        lambda s, _: [s[1], -np.sin(s[0]) - friction * s[1]],
        start,
        rng.uniform(0.6, 1.2),
        burn=1e-9,
        times=clock(iterations),
    )
    return Motion(path=path)


def lorenz(rng: Rng, iterations: int) -> Motion:
    """The Lorenz flow, two to five samples a turn."""

    def field(s, _):
        return [10 * (s[1] - s[0]), s[0] * (28 - s[2]) - s[1], s[0] * s[1] - 8 / 3 * s[2]]

    start = rng.normal(size=3) + np.array([0.0, 0.0, 20.0])
    return Motion(
        path=_flow(field, start, rng.uniform(0.15, 0.35), burn=20.0, times=clock(iterations))
    )


def roessler(rng: Rng, iterations: int) -> Motion:
    """The Roessler flow where its phase is chaotic too (the funnel), two to four samples a turn."""

    def field(s, _):
        return [-s[1] - s[2], s[0] + 0.3 * s[1], 0.4 + s[2] * (s[0] - 8.5)]

    start = rng.normal(size=3)
    return Motion(
        path=_flow(field, start, rng.uniform(1.5, 3.0), burn=120.0, times=clock(iterations))
    )
