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

from looplens.analysis._gram import TINY, Floats
from looplens.analysis._threads import in_threads
from looplens.analysis._trajectories import tail_points

# States of a sub-block: its few copies together stay in the cache of a core.
_BYTES_PER_SUBBLOCK = 2**20
# Trajectories of a group: enough to make calls of numpy cheap, few enough for the cache.
_BYTES_PER_GROUP = 2**20
# Squares of states of this size and their differences are normal numbers of the dtype.
_RANGE = {"float32": (1e-12, 1e18, 1e-20), "float64": (1e-100, 1e200, 1e-140)}


@dataclass(frozen=True, kw_only=True, slots=True)
class TailGram:
    """Products within the last n states, and with the mean of the states before them.

    With z_t the state less the last one, e the direction of the last state and w_t what is left of
    z_t across e. All arrays are float64; b trajectories.

    Attributes
    ----------
    along : ndarray, shape (b, n)
        z . e.
    across : ndarray, shape (b, n, n)
        Gram matrix of w.
    norm : ndarray, shape (b, n)
        |s_t|.
    last : ndarray, shape (b,)
        Norm of the last state.
    before : int
        How many states lie before the window; 0 leaves the next six meaningless.
    before_square, before_along, before_across : ndarray, shape (b,), (b,), (b, n)
        Over those states: mean |z|^2, mean z . e, and (mean z) . w.
    unit_square, unit_along, unit_across : ndarray, shape (b,), (b,), (b, n)
        The same for z = s / |s| - e.
    """

    along: Floats
    across: Floats
    norm: Floats
    last: Floats
    before: int
    before_square: Floats
    before_along: Floats
    before_across: Floats
    unit_square: Floats
    unit_along: Floats
    unit_across: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class Moments:
    """Products of b trajectories of N states; float64 but for `projected`.

    Attributes
    ----------
    rows : ndarray of int, shape (b,)
        Which of the trajectories that were given these are: those that are finite.
    scale : ndarray, shape (b,)
        Power of two that the states were divided by.
    d_model : int
        Dimensions of the states.
    norm2 : ndarray, shape (b, N)
        |s_t|^2.
    step2, radial : ndarray, shape (b, N - 1)
        |s_t - s_{t-1}|^2, and (s_t - s_{t-1}) . s_{t-1}.
    limit_points : int
        How many states at the end the limit is the mean of: a quarter, unless asked otherwise.
    limit : ndarray, shape (b, d_model)
        s*, that mean.
    limit2 : ndarray, shape (b,)
        |s*|^2.
    away2 : ndarray, shape (b, N)
        |s_t - s*|^2.
    projected : ndarray or None, shape (b, N, k)
        s_t (not scaled) in the directions that were asked for.
    tail : TailGram or None
        Products within the window, where one was asked for.
    """

    rows: NDArray[np.int64]
    scale: Floats
    d_model: int
    limit_points: int
    norm2: Floats
    step2: Floats
    radial: Floats
    limit: Floats
    limit2: Floats
    away2: Floats
    projected: NDArray[np.floating] | None
    tail: TailGram | None


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


def joined(parts: list[Moments]) -> list[Moments]:
    """Join the parts of one group: a list of one, or of none."""
    if len(parts) < 2:
        return parts
    first = parts[0]
    tail = None
    if first.tail is not None:
        tails = [part.tail for part in parts if part.tail is not None]
        tail = TailGram(
            before=tails[0].before,
            **{
                name: np.concatenate([getattr(one, name) for one in tails])
                for name in TailGram.__slots__
                if name != "before"
            },
        )
    projected = None
    if first.projected is not None:
        projected = np.concatenate([p.projected for p in parts if p.projected is not None])
    names = ("rows", "scale", "norm2", "step2", "radial", "limit", "limit2", "away2")
    return [
        Moments(
            d_model=first.d_model,
            limit_points=first.limit_points,
            projected=projected,
            tail=tail,
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names},
        )
    ]


def _of_rows(
    flat: NDArray[np.floating],
    rows: NDArray[np.int64],
    work: np.dtype,
    wanted: _Wanted,
) -> list[Moments]:
    """Moments of a sub-block; trajectories whose squares leave the dtype apart, in float64."""
    lowest, highest, tiny = _RANGE[work.name]
    states = flat[rows[0] : rows[-1] + 1].astype(work, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        norm2 = np.vecdot(states, states).astype(np.float64)
    top = norm2.max(1)
    plain = (top >= lowest) & (top <= highest)  # False where not finite
    # A zero at the beginning is a start from zero; later ones may be what is left of a small state.
    plain &= ~((norm2 < tiny) & (norm2 > 0)).any(1) & (norm2[:, 1:] > 0).all(1)
    found = []
    if plain.any():
        kept = slice(None) if plain.all() else plain
        part = _products(states[kept], rows[kept], norm2[kept], wanted)
        _, exponent = np.frexp(np.sqrt(top[kept]))
        found.append(_divided(part, np.ldexp(1.0, exponent)))
    odd = np.flatnonzero(~plain)
    odd = odd[np.isfinite(states[odd]).all((1, 2))]
    if len(odd):
        block = flat[rows[odd]].astype(np.float64)
        _, exponent = np.frexp(np.abs(block).max((1, 2)))
        exponent = np.clip(exponent, -1000, 1000)
        block = np.ldexp(block, -exponent[:, None, None])
        part = _products(block, rows[odd], np.vecdot(block, block), wanted)
        scale = np.ldexp(1.0, exponent)
        if part.projected is not None:
            projected = part.projected * scale[:, None, None]
            part = dataclasses.replace(part, projected=projected.astype(work))
        found.append(dataclasses.replace(part, scale=scale))
    return found


def _products(
    states: NDArray[np.floating],
    rows: NDArray[np.int64],
    norm2: Floats,
    wanted: _Wanted,
) -> Moments:
    """Moments of a sub-block whose squares are all normal numbers."""
    change = states[:, 1:] - states[:, :-1]
    step2 = np.vecdot(change, change).astype(np.float64)
    radial = np.vecdot(change, states[:, :-1]).astype(np.float64)
    centre = states[:, -1]
    centred = np.subtract(states, centre[:, None])
    shift = centred[:, -wanted.limit_points :].mean(1)
    square = np.vecdot(centred, centred).astype(np.float64)
    limit = centre.astype(np.float64) + shift
    # z - m with |z|, |m| of the size of the motion: nothing cancels that is larger than that.
    away2 = square - 2 * np.matvec(centred, shift).astype(np.float64)
    away2 += np.vecdot(shift, shift).astype(np.float64)[:, None]
    projected = None
    if wanted.directions is not None:
        # Few directions from the left: twice as fast as from the right.
        projected = (wanted.directions @ states.reshape(-1, states.shape[-1]).T).T
        projected = projected.reshape(*states.shape[:2], -1)
    tail = None
    if wanted.points is not None:
        start = states.shape[1] - wanted.points
        tail = _tail(centred, centre, norm2, square, start, wanted.skip)
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


def _divided(part: Moments, scale: Floats) -> Moments:
    """Moments of states over powers of two (b,): products of huge and of tiny ones stay near 1."""
    down = 1 / scale[:, None]
    tail = part.tail
    if tail is not None:
        tail = dataclasses.replace(
            tail,
            along=tail.along * down,
            across=tail.across * down[:, :, None] ** 2,
            norm=tail.norm * down,
            last=tail.last * down[:, 0],
            before_square=tail.before_square * down[:, 0] ** 2,
            before_along=tail.before_along * down[:, 0],
            before_across=tail.before_across * down**2,
            unit_across=tail.unit_across * down,
        )
    return dataclasses.replace(
        part,
        scale=scale,
        norm2=part.norm2 * down**2,
        step2=part.step2 * down**2,
        radial=part.radial * down**2,
        limit=part.limit * down,
        limit2=part.limit2 * down[:, 0] ** 2,
        away2=part.away2 * down**2,
        tail=tail,
    )


def _tail(
    centred: NDArray[np.floating],
    centre: NDArray[np.floating],
    norm2: Floats,
    square: Floats,
    start: int,
    skip: int,
) -> TailGram:
    b, length, _ = centred.shape
    norm = np.sqrt(norm2)
    last = norm[:, -1]
    work = centred.dtype
    direction = centre / np.where(last > 0, last, 1.0).astype(work)[:, None]
    along = np.matvec(centred[:, skip:], direction)
    across = centred[:, start:] - along[:, start - skip :, None] * direction[:, None]
    gram = across @ np.swapaxes(across, 1, 2)
    along = along.astype(np.float64)
    before = start - skip
    none, nones = np.full(b, np.nan), np.full((b, length - start), np.nan)
    mean_square, mean_along, mean_across = none, none, nones
    unit_square, unit_along, unit_across = none, none, nones
    if before:
        early, early_along = centred[:, skip:start], along[:, :before]
        mean = early.mean(1)
        mean_square, mean_along = square[:, skip:start].mean(1), early_along.mean(1)
        mean_across = np.matvec(across, mean).astype(np.float64)
        radius = norm[:, skip:start]
        inverse = 1 / np.where(radius > 0, radius, 1.0)
        turned = np.vecmat((inverse / before).astype(work), early)
        unit_across = np.matvec(across, turned).astype(np.float64)
        sideways = np.maximum(square[:, skip:start] - early_along**2, 0.0)
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


def unit_offset(along: Floats, sideways: Floats, norm: Floats, last: Floats) -> Floats:
    """(s / |s| - e) . e, where s . e is last + along and `sideways` the square across e.

    Written so that states close to e lose no digits; a zero state has no direction: -1.
    """
    forward = last + along
    near = -sideways / np.maximum(norm * (norm + forward), TINY)
    far = forward / np.maximum(norm, TINY) - 1.0
    return np.where(forward > 0, near, far)
