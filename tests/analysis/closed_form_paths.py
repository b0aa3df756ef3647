"""Paths in closed form that several tests of analyses measure."""

import numpy as np

T = np.arange(65)[:, None]
PERIOD = 9.7


def embedded(columns, offset=3.0, d_model=16, seed=0):
    """Put a path of a few columns into d dimensions, with a constant beside it."""
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(d_model, d_model)))[0]
    return columns @ basis[: columns.shape[1]] + offset * basis[-1]


def circle(period=PERIOD, radius=1.0):
    angle = 2 * np.pi * T / period
    return radius * np.concatenate([np.cos(angle), np.sin(angle)], axis=1)


SYSTEMS = {
    "circle": embedded(circle()),
    "line": embedded(0.1 * T),
    "to and fro": embedded((-1.0) ** T),
    "contraction": embedded(0.7**T),
    "walk": np.cumsum(np.random.default_rng(1).normal(size=(65, 16)), axis=0),
}
ALL = np.stack(list(SYSTEMS.values()))
