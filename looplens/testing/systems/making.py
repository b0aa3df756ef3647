"""From a recipe to a trajectory in the dimensions of a model."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from looplens.errors import InputError, near_matches
from looplens.testing.systems import fixed, irregular, orbits, sliders
from looplens.testing.systems.motion import Floats, Motion, Recipe, Rng

# Relative spread of a settled float32 trajectory: a relative step of 1.9e-7 over the root of two.
FLOAT32_FLOOR = 1.35e-7

_BY_TRUTH: dict[str, dict[str, Recipe]] = {
    "fixed_point": fixed.RECIPES,
    "orbit": orbits.RECIPES,
    "slider": sliders.RECIPES,
    "unresolved": irregular.RECIPES,
}
_RECIPES = {
    kind: (truth, recipe)
    for truth, recipes in _BY_TRUTH.items()
    for kind, recipe in recipes.items()
}

TRUTHS: tuple[str, ...] = tuple(_BY_TRUTH)
KINDS: tuple[str, ...] = tuple(_RECIPES)


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


def kinds_of(truth: str) -> tuple[str, ...]:
    """Return the kinds of systems whose truth is this.

    Parameters
    ----------
    truth : str
        One of `TRUTHS`: ``fixed_point``, ``orbit``, ``slider``, ``unresolved``.

    Raises
    ------
    InputError
        For another word.
    """
    if truth not in _BY_TRUTH:
        raise InputError(
            f"Unknown truth {truth!r}; expected one of {', '.join(TRUTHS)}."
            f"{near_matches(truth, TRUTHS)}"
        )
    return tuple(_BY_TRUTH[truth])


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
        One of `KINDS`; `kinds_of` lists those of a regime.
    iterations : int
        T. The trajectory has T + 1 states, the first one at iteration 0.
    d_model : int
        Dimensions to embed in, at least 24.
    snr_db : float
        Signal-to-noise ratio in decibels: white noise whose norm is the root-mean-square distance
        of the clean trajectory from its mean times ``10 ** (-snr_db / 20)``. Infinity: none.
    seed : int
        Seed of every draw. The draws of one kind do not depend on which other kinds there are, and
        only the size of the noise depends on `snr_db`.

    Returns
    -------
    System

    Raises
    ------
    InputError
        For an unknown kind, fewer than 8 iterations or fewer than 24 dimensions.

    Notes
    -----
    Speeds and periods are chosen with the record in mind: three turns of every orbit fit in its
    second half (in all of it for ``orbit_long``), and what settles has little left to go at 64
    iterations. Shorter records of slow kinds cannot be told apart by anybody.
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
    truth, recipe = _RECIPES[kind]
    rng = np.random.default_rng([seed, zlib.crc32(kind.encode()), iterations, d_model])
    motion = recipe(rng, iterations)
    states = observed(motion, rng, d_model=d_model, snr_db=snr_db)
    return System(states=states, truth=truth, kind=kind, period=float(motion.period))


def observed(motion: Motion, rng: Rng, *, d_model: int, snr_db: float) -> NDArray[np.float64]:
    """Embed a motion in `d_model` dimensions, move it away from the origin, and add noise.

    Parameters
    ----------
    motion : Motion
        At most `d_model` dimensions.
    rng : Generator
        Draws the axes, the offset and the noise.
    d_model : int
        Dimensions of the result.
    snr_db : float
        As in `make_system`.

    Returns
    -------
    ndarray of float64, shape (iteration 0..T, d_model)
    """
    path = motion.path
    axes, _ = np.linalg.qr(rng.normal(size=(d_model, path.shape[1])))
    spread = float(np.sqrt(((path - path.mean(0)) ** 2).sum(-1).mean()))
    offset = rng.normal(size=d_model)
    low, high = {"free": (0.0, 1.0), "far": (1.3, 2.0), "origin": (0.0, 0.0)}[motion.rest]
    size = 0.0 if motion.rest == "origin" else spread * 10 ** rng.uniform(low, high)
    offset *= size / np.linalg.norm(offset)
    noise = rng.normal(size=(len(path), d_model)) / np.sqrt(d_model)
    states = path @ axes.T + offset + spread * 10 ** (-snr_db / 20) * noise
    if motion.rounded:
        norms = np.linalg.norm(states, axis=-1, keepdims=True)
        states = states + FLOAT32_FLOOR * norms * noise[::-1]
    return states
