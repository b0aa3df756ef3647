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

from looplens.analysis.algebra.gram import Floats
from looplens.analysis.algebra.products import (
    Moments,
    TailGram,
    WideGram,
    chosen,
    divided,
    unit_offset,
)
from looplens.analysis.algebra.threads import in_threads
from looplens.analysis.algebra.trajectories import tail_points

_BYTES_PER_GROUP = 2**21  # of Gram matrices
_BYTES_OF_STATES = 2**24
# Squares of states of this size and their differences are normal numbers of the dtype.
_RANGE = {"float32": (1e-12, 1e18, 1e-20), "float64": (1e-100, 1e200, 1e-140)}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wanted:
    """What `moments_of` was asked for."""

    points: int | None
    wide: int
    skip: int
    limit_points: int
    directions: Floats | None
    origin: Floats


def moments_of(
    flat: NDArray[np.floating],
    *,
    points: int | None = None,
    wide: int = 0,
    skip: int = 0,
    limit_points: int | None = None,
    directions: NDArray[np.floating] | None = None,
    origin: NDArray[np.floating] | None = None,
) -> list[Moments]:
    """Take the products of trajectories, in groups.

    Parameters
    ----------
    flat : ndarray, shape (count, N, d_model)
        Trajectories. float64 is multiplied in float64, all else in float32.
    points : int, optional
        Length of the window at the end whose Gram matrix is wanted.
    wide : int
        States at the end whose Gram matrix is wanted of trajectories whose last state came back
        (`_came_back`); fewer than 1.4 windows: none.
    skip : int
        States at the beginning that do not count as lying before the window.
    limit_points : int, optional
        States at the end whose mean is the limit; by default a quarter.
    directions : ndarray, optional, shape (k, d_model)
        Directions to project on, in float64.
    origin : ndarray, optional, shape (d_model,)
        What is subtracted before that; by default zero.

    Returns
    -------
    list of Moments
        Of the finite trajectories, in any order.
    """
    count, length, d_model = flat.shape
    work = np.dtype(np.float64 if flat.dtype == np.float64 else np.float32)
    # In a group of trajectories, calls of numpy are few and the Gram matrices still in the cache.
    group = min(
        _BYTES_PER_GROUP // (8 * max(points or 0, 8) ** 2),
        _BYTES_OF_STATES // (work.itemsize * length * d_model),
    )
    group = max(group, 1)
    wanted = _Wanted(
        points=points,
        wide=min(wide, length),
        skip=skip,
        limit_points=limit_points or tail_points(length),
        directions=None if directions is None else np.ascontiguousarray(directions, np.float64),
        origin=np.zeros(d_model) if origin is None else np.ascontiguousarray(origin, np.float64),
    )

    def of_group(start: int) -> list[Moments]:
        return _of_rows(flat, np.arange(start, min(start + group, count)), work, wanted)

    groups = in_threads(of_group, range(0, count, group))
    return [part for parts in groups for part in parts]


def _of_rows(
    flat: NDArray[np.floating],
    rows: NDArray[np.int64],
    work: np.dtype,
    wanted: _Wanted,
) -> list[Moments]:
    """Moments of a group; trajectories whose squares leave the dtype apart, in float64."""
    lowest, highest, tiny = _RANGE[work.name]
    states = np.ascontiguousarray(flat[rows[0] : rows[-1] + 1], dtype=work)
    with np.errstate(all="ignore"):  # some trajectories may not be finite
        part = _products(states, rows, wanted)
    norm2 = part.norm2
    top = norm2.max(1)
    plain = (top >= lowest) & (top <= highest)  # False where not finite
    # A zero at the beginning is a start from zero; later ones may be what is left of a small state.
    plain &= ~((norm2 < tiny) & (norm2 > 0)).any(1) & (norm2[:, 1:] > 0).all(1)
    found = []
    if plain.any():
        part = part if plain.all() else chosen(part, plain)
        _, exponent = np.frexp(np.sqrt(top[plain]))
        part = divided(part, np.ldexp(1.0, exponent))
        found.append(_placed(part, states, plain, wanted))
    odd = np.flatnonzero(~plain)
    odd = odd[np.isfinite(states[odd]).all((1, 2))]
    if len(odd):
        block = flat[rows[odd]].astype(np.float64)
        _, exponent = np.frexp(np.abs(block).max((1, 2)))
        exponent = np.clip(exponent, -1000, 1000)
        block = np.ldexp(block, -exponent[:, None, None])
        part = _products(block, rows[odd], wanted)
        part = dataclasses.replace(part, scale=np.ldexp(1.0, exponent))
        found.append(_placed(part, states, odd, wanted))
    return found


def _placed(
    part: Moments,
    states: NDArray[np.floating],
    rows: NDArray[np.bool_] | NDArray[np.int64],
    wanted: _Wanted,
) -> Moments:
    """Add what is asked for of the states about the origin; `rows` are those of the products."""
    from looplens.analysis.algebra import passes

    if wanted.directions is None:
        return part
    if len(part.rows) < len(states):
        states = states[rows]
    projected = np.empty((*states.shape[:2], len(wanted.directions)))
    square = np.empty(states.shape[:2])
    passes.about_an_origin(states, wanted.origin, wanted.directions, projected, square)
    return dataclasses.replace(part, projected=projected, from_origin2=square)


def _products(states: NDArray[np.floating], rows: NDArray[np.int64], wanted: _Wanted) -> Moments:
    """Moments of trajectories whose squares are all normal numbers."""
    from looplens.analysis.algebra import passes  # numba takes a while to load

    count, length, d_model = states.shape
    work = states.dtype
    points = wanted.points or 0
    norm2, square, away2 = (np.empty((count, length)) for _ in range(3))
    step2, radial = (np.empty((count, length - 1)) for _ in range(2))
    bend2 = np.empty((count, max(length - 2, 0)))
    shift, mean, turned = (np.empty((count, d_model), dtype=work) for _ in range(3))
    along = np.empty((count, length - wanted.skip))
    across = np.empty((count, points, d_model), dtype=work)
    start = length - points if points else -1
    passes.through(
        states,
        work.type(0),
        wanted.limit_points,
        wanted.skip,
        start,
        (norm2, step2, radial, bend2),
        (shift, square, away2),
        (along, across, mean, turned),
    )
    limit = states[:, -1].astype(np.float64) + shift
    tail = None
    if points:
        inside = (along, across, mean, turned)
        tail = _tail(inside, np.sqrt(norm2), square[:, wanted.skip : start], wanted.skip)
    wide = None
    if points and wanted.wide >= 1.4 * points:
        wide = _wide(states, square, _came_back(square, points, wanted.wide), wanted)
    return Moments(
        rows=rows,
        scale=np.ones(len(rows)),
        d_model=states.shape[-1],
        limit_points=wanted.limit_points,
        norm2=norm2,
        step2=step2,
        radial=radial,
        bend2=bend2,
        last=states[:, -1].copy(),
        from_last2=square,
        limit=limit,
        limit2=np.vecdot(limit, limit),
        away2=away2,
        projected=None,
        from_origin2=None,
        tail=tail,
        wide=wide,
    )


def _came_back(square: Floats, points: int, wide: int) -> NDArray[np.int64]:
    """Find trajectories whose last state comes near an earlier one for the first time long before.

    After having been away, and after a lag of more than a seventh of the window: shorter turns
    are seen within it. The states before the window lie about as far away as those in it.
    """
    away = square[:, ::-1][:, 1:wide]  # by lag
    most = np.maximum.accumulate(away, axis=1)
    near = (away[:, 1:] < 0.4 * most[:, :-1]) & (most[:, :-1] > 0.4 * most[:, wide // 2, None])
    lag = 2 + near.argmax(1)
    back = near.any(1) & (lag > points // 7) & (lag <= wide // 2)
    inside, outside = away[:, : points - 1].mean(1), away[:, points - 1 :].mean(1)
    return np.flatnonzero(back & (inside < 2.5 * outside) & (outside < 2.5 * inside))


def _wide(
    states: NDArray[np.floating], square: Floats, rows: NDArray[np.int64], wanted: _Wanted
) -> WideGram:
    """Products of some trajectories within more states than those of the window."""
    start = states.shape[1] - wanted.wide
    before = max(start - wanted.skip, 0)
    part = states[rows, start:] - states[rows, -1:]
    dot, mean_square = np.full(part.shape[:2], np.nan), np.full(len(rows), np.nan)
    if before:
        mean = states[rows, wanted.skip : start].mean(1) - states[rows, -1]
        dot = np.matvec(part, mean).astype(np.float64)
        mean_square = square[rows, wanted.skip : start].mean(1)
    return WideGram(
        rows=rows,
        gram=part @ np.swapaxes(part, 1, 2),
        before=before,
        before_square=mean_square,
        before_dot=dot,
    )


def _tail(
    inside: tuple[Floats, NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]],
    norm: Floats,
    early_square: Floats,
    skip: int,
) -> TailGram:
    """Products of the window from what `across_the_last` has left."""
    along, across, mean, turned = inside
    b, n, _ = across.shape
    start, last = norm.shape[1] - n, norm[:, -1]
    before = start - skip
    radius = norm[:, skip:start]
    inverse = 1 / np.where(radius > 0, radius, 1.0)
    gram = across @ np.swapaxes(across, 1, 2)
    none, nones = np.full(b, np.nan), np.full((b, n), np.nan)
    mean_square, mean_along, mean_across = none, none, nones
    unit_square, unit_along, unit_across = none, none, nones
    if before:
        early_along = along[:, :before]
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
