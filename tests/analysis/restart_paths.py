"""Restarts of one token in closed form, for the tests that compare restarts."""

import numpy as np

T, D = 64, 24
TIME = np.arange(T + 1)[:, None]
PLANE = np.linalg.qr(np.random.default_rng(0).normal(size=(D, 2)))[0].T
CENTRE = np.full(D, 0.5)


def decays(rate, starts, limit=CENTRE):
    return np.stack([limit + rate**TIME * start for start in starts])


def orbit(ahead, period=9.7, radius=1.0):
    angle = 2 * np.pi * (TIME + ahead) / period
    return CENTRE + radius * (np.cos(angle) * PLANE[0] + np.sin(angle) * PLANE[1])


def of(*trajectories):
    """Restarts of one token, (restart, 1, iteration, d_model)."""
    return np.stack(trajectories)[:, None]
