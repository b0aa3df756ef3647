"""A plane in the space of states, a square window of it, and how one is laid through trajectories.

It knows states as vectors only: no map, no model, no token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from looplens.analysis.algebra.gram import Floats
from looplens.errors import InputError

STANDS = 1e-3  # of the norm: a spread below this spans no plane
_TAIL_MARGIN, _PATH_MARGIN = 1.8, 1.2  # half width of a window over what is to be seen in it


@dataclass(frozen=True, kw_only=True, slots=True)
class Plane:
    """Two orthonormal directions through a point.

    Attributes
    ----------
    origin : Float[ndarray, "n"]
        The point, at u = v = 0.
    directions : Float[ndarray, "2 n"]
        Of u and v.
    """

    origin: Float[np.ndarray, " n"]
    directions: Float[np.ndarray, "2 n"]

    def coordinates(self, states: Float[np.ndarray, "*any n"]) -> Float[np.ndarray, "*any 2"]:
        """Return u and v of states projected onto the plane."""
        return (np.asarray(states, np.float64) - self.origin) @ self.directions.T

    def distance(self, states: Float[np.ndarray, "*any n"]) -> Float[np.ndarray, "*any"]:
        """Return how far states are from the plane."""
        away = np.asarray(states, np.float64) - self.origin
        away = away - (away @ self.directions.T) @ self.directions
        return np.linalg.norm(away, axis=-1)

    def states(self, uv: Float[np.ndarray, "*any 2"]) -> Float[np.ndarray, "*any n"]:
        """Return the states at coordinates."""
        return self.origin + np.asarray(uv) @ self.directions


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """A square part of a plane, sampled on a grid.

    Attributes
    ----------
    u, v : Float[ndarray, "size"]
        Coordinates of the columns and rows of the grid.
    """

    u: Float[np.ndarray, " size"]
    v: Float[np.ndarray, " size"]

    @classmethod
    def about(cls, middle: Floats, half: float, size: int) -> Window:
        """Lay a window about a point of the plane; an odd size puts the point on the grid."""
        steps = np.linspace(-half, half, size)
        return cls(u=middle[0] + steps, v=middle[1] + steps)

    @property
    def half(self) -> float:
        """Half of the width."""
        return float(self.u[-1] - self.u[0]) / 2

    @property
    def points(self) -> Float[np.ndarray, "cell 2"]:
        """Coordinates of the cells, row by row of v."""
        v, u = np.meshgrid(self.v, self.u, indexing="ij")
        return np.stack([u.ravel(), v.ravel()], axis=1)

    def between(self, cells: Sequence[tuple[float, float]]) -> Float[np.ndarray, "point 2"]:
        """Return the coordinates of places (row, column) that may lie between cells."""
        at = np.asarray(cells, np.float64).reshape(-1, 2)
        numbers = np.arange(len(self.u))
        return np.stack(
            [np.interp(at[:, 1], numbers, self.u), np.interp(at[:, 0], numbers, self.v)], axis=1
        )


def spanned(origin: Floats, directions: Any) -> Plane:
    """Return the plane of two directions through a point.

    The second direction is made orthogonal to the first.

    Raises
    ------
    InputError
        If there are not two finite directions of the right length, or they are parallel.
    """
    try:
        given = np.asarray(directions)
    except ValueError as error:
        raise InputError(f"the directions of the plane are no array: {error}") from None
    if given.shape != (2, len(origin)) or given.dtype.kind not in "fiu":
        raise InputError(
            f"two directions of {len(origin)} real numbers span the plane; got {given.dtype} of "
            f"shape {given.shape}. Of a complex eigenvector, pass its real and its imaginary part"
        )
    given = given.astype(np.float64)
    sizes = np.linalg.norm(given, axis=1)
    if not np.isfinite(given).all() or not (sizes > 0).all():
        raise InputError("the directions of the plane must be finite and not zero")
    first, second = given / sizes[:, None]
    rest = second - (second @ first) * first
    if np.linalg.norm(rest) < 1e-6:
        raise InputError("the two directions of the plane are parallel: pass others")
    return Plane(
        origin=np.asarray(origin, np.float64),
        directions=np.stack([first, rest / np.linalg.norm(rest)]),
    )


def standstill(origin: Floats, paths: Floats) -> float:
    """Return the spread about a point that is too small to span a plane.

    It is 0.1 % of the norm of the point. Near the zero of the space that says nothing: there it is
    a millionth of the way that the trajectories came.
    """
    return STANDS * max(float(np.linalg.norm(origin)), STANDS * _way(origin, paths))


def _way(origin: Floats, paths: Floats) -> float:
    """Return how far from a point trajectories have been."""
    away = np.linalg.norm(paths - origin, axis=-1)
    return float(away.max(initial=0.0, where=np.isfinite(away)))


def through_limits(
    origin: Floats, tails: Floats, paths: Floats, seed: int = 0
) -> tuple[Plane, int]:
    """Lay a plane through a point along the principal axes of trajectories about it.

    The axes are those of the tails, as far as they spread by more than 0.1 % of the norm (several
    limits, or an orbit); what is missing is taken from the whole paths, and from a seeded random
    direction where they say nothing either. Largest loadings are positive, so that two machines
    agree on the signs.

    Parameters
    ----------
    origin : Float[ndarray, "n"]
        The point.
    tails : Float[ndarray, "restart tail n"]
        The ends of the trajectories.
    paths : Float[ndarray, "restart iteration n"]
        The trajectories.
    seed : int
        Of random directions.

    Returns
    -------
    plane : Plane
    from_tails : int
        How many of its directions the tails gave.
    """
    n = len(origin)
    if n < 2:
        raise InputError(f"a plane needs states of at least 2 numbers, got {n}")
    limit = standstill(origin, paths)
    size = max(float(np.linalg.norm(origin)), _way(origin, paths)) or 1.0
    found: list[Floats] = []
    from_tails = 0
    random = np.random.default_rng(seed).standard_normal((2, n))
    for number, sample in enumerate((tails, paths, origin + size * random)):
        away = sample.reshape(-1, n).astype(np.float64) - origin
        away = away[np.isfinite(away).all(1)]
        for direction in found:
            away = away - np.outer(away @ direction, direction)
        if not len(away):
            continue
        _, sizes, axes = np.linalg.svd(away, full_matrices=False)
        spread = sizes / np.sqrt(len(away))
        least = limit if number == 0 else 1e-9 * size
        wanted = [axis for axis, size in zip(axes, spread, strict=True) if size > least]
        found += wanted[: 2 - len(found)]
        from_tails = len(found) if number == 0 else from_tails
    signed = [axis * np.sign(axis[np.abs(axis).argmax()]) for axis in found]
    return spanned(origin, np.stack(signed)), from_tails


def window_of(
    plane: Plane, tails: Floats, paths: Floats, size: int, half: float | None = None, *, close: bool
) -> Window:
    """Lay a window around what is to be seen: the tails if `close`, else the paths too."""
    middle = np.zeros(2)
    if half is None:
        seen = plane.coordinates(tails).reshape(-1, 2)
        if not close:
            seen = np.concatenate([seen, plane.coordinates(paths).reshape(-1, 2)])
        seen = np.concatenate([seen[np.isfinite(seen).all(1)], np.zeros((1, 2))])
        low, high = seen.min(0), seen.max(0)
        middle = (low + high) / 2
        half = float((high - low).max()) / 2 * (_TAIL_MARGIN if close else _PATH_MARGIN)
        # Where everything stands still, a window that shows how the map pulls nearby.
        half = max(half, 10 * standstill(plane.origin, paths)) or 1.0
    return Window.about(middle, half, size)
