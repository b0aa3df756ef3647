"""Inner products of trajectories: all that the analyses ask of states, from one look at them.

States are differenced and centred on the last state before they are multiplied: a product of
uncentred float32 states loses small steps, a product of centred ones keeps them to 1e-7 of
themselves. Products along the iterations (norms, steps, distances) are linear in the number of
states; a full Gram matrix is taken of the window at the end only. Nothing is judged here.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from looplens.analysis._gram import Floats
from looplens.analysis._products import Moments, TailGram, divided, joined, unit_offset
from looplens.analysis._threads import in_threads
from looplens.analysis._trajectories import tail_points

# States of a sub-block: its few copies together stay in the cache of a core.
_BYTES_PER_SUBBLOCK = 2**20
# Trajectories of a group: enough to make calls of numpy cheap, few enough for the cache.
_BYTES_PER_GROUP = 2**20
# Squares of states of this size and their differences are normal numbers of the dtype.
_RANGE = {"float32": (1e-12, 1e18, 1e-20), "float64": (1e-100, 1e200, 1e-140)}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wanted:
    """What `moments_of` was asked for."""

    points: int | None
    skip: int
    limit_points: int
    directions: NDArray[np.floating] | None


def moments_of(
    flat: NDArray[np.floating],
    *,
    points: int | None = None,
    skip: int = 0,
    limit_points: int | None = None,
    directions: NDArray[np.floating] | None = None,
) -> list[Moments]:
    """Take the products of trajectories, in groups.

    Parameters
    ----------
    flat : ndarray, shape (count, N, d_model)
        Trajectories. float64 is multiplied in float64, all else in float32.
    points : int, optional
        Length of the window at the end whose Gram matrix is wanted.
    skip : int
        States at the beginning that do not count as lying before the window.
    limit_points : int, optional
        States at the end whose mean is the limit; by default a quarter.
    directions : ndarray, optional, shape (k, d_model)
        Directions to project on.

    Returns
    -------
    list of Moments
        Of the finite trajectories, in any order.
    """
    count, length, d_model = flat.shape
    work = np.dtype(np.float64 if flat.dtype == np.float64 else np.float32)
    size = max(1, _BYTES_PER_SUBBLOCK // (work.itemsize * length * d_model))
    per_row = 8 * max(points or 0, 8) ** 2
    group = size * max(1, -(-_BYTES_PER_GROUP // (per_row * size)))
    wanted = _Wanted(
        points=points,
        skip=skip,
        limit_points=limit_points or tail_points(length),
        directions=None if directions is None else np.ascontiguousarray(directions, dtype=work),
    )

    def of_group(start: int) -> list[Moments]:
        stop = min(start + group, count)
        parts: list[Moments] = []
        for first in range(start, stop, size):
            rows = np.arange(first, min(first + size, stop))
            parts += _of_rows(flat, rows, work, wanted)
        return joined(parts)

    groups = in_threads(of_group, range(0, count, group))
    return [part for parts in groups for part in parts]


def _of_rows(
    flat: NDArray[np.floating],
    rows: NDArray[np.int64],
    work: np.dtype,
    wanted: _Wanted,
) -> list[Moments]:
    """Moments of a sub-block; trajectories whose squares leave the dtype apart, in float64."""
    lowest, highest, tiny = _RANGE[work.name]
    states = np.ascontiguousarray(flat[rows[0] : rows[-1] + 1], dtype=work)
    path = _path(states)
    norm2 = path[0]
    top = norm2.max(1)
    plain = (top >= lowest) & (top <= highest)  # False where not finite
    # A zero at the beginning is a start from zero; later ones may be what is left of a small state.
    plain &= ~((norm2 < tiny) & (norm2 > 0)).any(1) & (norm2[:, 1:] > 0).all(1)
    found = []
    if plain.any():
        kept = slice(None) if plain.all() else plain
        norm2, step2, radial = (values[kept] for values in path)
        part = _products(states[kept], rows[kept], (norm2, step2, radial), wanted)
        _, exponent = np.frexp(np.sqrt(top[kept]))
        found.append(divided(part, np.ldexp(1.0, exponent)))
    odd = np.flatnonzero(~plain)
    odd = odd[np.isfinite(states[odd]).all((1, 2))]
    if len(odd):
        block = flat[rows[odd]].astype(np.float64)
        _, exponent = np.frexp(np.abs(block).max((1, 2)))
        exponent = np.clip(exponent, -1000, 1000)
        block = np.ldexp(block, -exponent[:, None, None])
        part = _products(block, rows[odd], _path(block), wanted)
        scale = np.ldexp(1.0, exponent)
        if part.projected is not None:
            projected = part.projected * scale[:, None, None]
            part = dataclasses.replace(part, projected=projected.astype(work))
        found.append(dataclasses.replace(part, scale=scale))
    return found


def _path(states: NDArray[np.floating]) -> tuple[Floats, Floats, Floats]:
    """Squared norms, squared steps, and products of steps with the states before them."""
    from looplens.analysis import _passes as passes  # numba takes a while to load

    count, length, _ = states.shape
    norm2 = np.empty((count, length))
    step2, radial = np.empty((count, length - 1)), np.empty((count, length - 1))
    passes.along_the_path(states, states.dtype.type(0), norm2, step2, radial)
    return norm2, step2, radial


def _products(
    states: NDArray[np.floating],
    rows: NDArray[np.int64],
    path: tuple[Floats, Floats, Floats],
    wanted: _Wanted,
) -> Moments:
    """Moments of a sub-block whose squares are all normal numbers."""
    from looplens.analysis import _passes as passes

    norm2, step2, radial = path
    count, length, d_model = states.shape
    zero = states.dtype.type(0)
    shift = np.empty((count, d_model), dtype=states.dtype)
    square, towards = np.empty((count, length)), np.empty((count, length))
    passes.about_the_last(states, zero, wanted.limit_points, shift, square, towards)
    limit = states[:, -1].astype(np.float64) + shift
    # z - m with |z|, |m| of the size of the motion: nothing cancels that is larger than that.
    away2 = square - 2 * towards + np.vecdot(shift, shift).astype(np.float64)[:, None]
    projected = None
    if wanted.directions is not None:
        # Few directions from the left: twice as fast as from the right.
        projected = (wanted.directions @ states.reshape(-1, states.shape[-1]).T).T
        projected = projected.reshape(*states.shape[:2], -1)
    tail = None
    if wanted.points is not None:
        tail = _tail(states, norm2, square, length - wanted.points, wanted.skip)
    return Moments(
        rows=rows,
        scale=np.ones(len(rows)),
        d_model=states.shape[-1],
        limit_points=wanted.limit_points,
        norm2=norm2,
        step2=step2,
        radial=radial,
        limit=limit,
        limit2=np.vecdot(limit, limit),
        away2=np.maximum(away2, 0.0),
        projected=projected,
        tail=tail,
    )


def _tail(
    states: NDArray[np.floating], norm2: Floats, square: Floats, start: int, skip: int
) -> TailGram:
    from looplens.analysis import _passes as passes

    b, length, d_model = states.shape
    norm = np.sqrt(norm2)
    last = norm[:, -1]
    work = states.dtype
    before = start - skip
    radius = norm[:, skip:start]
    inverse = 1 / np.where(radius > 0, radius, 1.0)
    inverse_last = np.where(last > 0, 1 / np.where(last > 0, last, 1.0), 0.0)
    along = np.empty((b, length - skip))
    across = np.empty((b, length - start, d_model), dtype=work)
    mean, turned = np.empty((b, d_model), dtype=work), np.empty((b, d_model), dtype=work)
    weights = (inverse / max(before, 1)).astype(work)
    passes.across_the_last(
        states,
        work.type(0),
        inverse_last.astype(work),
        weights,
        skip,
        along,
        across,
        mean,
        turned,
    )
    gram = across @ np.swapaxes(across, 1, 2)
    none, nones = np.full(b, np.nan), np.full((b, length - start), np.nan)
    mean_square, mean_along, mean_across = none, none, nones
    unit_square, unit_along, unit_across = none, none, nones
    if before:
        early_along, early_square = along[:, :before], square[:, skip:start]
        mean_square, mean_along = early_square.mean(1), early_along.mean(1)
        mean_across = np.matvec(across, mean).astype(np.float64)
        unit_across = np.matvec(across, turned).astype(np.float64)
        sideways = np.maximum(early_square - early_along**2, 0.0)
        beta = unit_offset(early_along, sideways, radius, last[:, None])
        unit_square = (beta**2 + sideways * inverse**2).mean(1)
        unit_along = beta.mean(1)
    return TailGram(
        along=along[:, before:],
        across=gram,
        norm=norm[:, start:],
        last=last,
        before=before,
        before_square=mean_square,
        before_along=mean_along,
        before_across=mean_across,
        unit_square=unit_square,
        unit_along=unit_along,
        unit_across=unit_across,
    )
