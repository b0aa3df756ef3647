"""What products of trajectories there are, and what can be done with them without the states.

`moments` takes them from states. Nothing is judged here.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from looplens.analysis.algebra.gram import TINY, Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class TailGram:
    """Products within the last n states, and with the mean of the states before them.

    With z_t the state less the last one, e the direction of the last state and w_t what is left of
    z_t across e. All arrays are float64, as long as they
    were divided (`divided`); b trajectories.

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
    across: NDArray[np.floating]
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
class WideGram:
    """Products within the last m states of the trajectories whose last state came back.

    Attributes
    ----------
    rows : ndarray of int, shape (k,)
        Which of the b trajectories these are.
    gram : ndarray, shape (k, m, m)
        Gram matrix of z, the states less the last one.
    before : int
        How many states lie before; 0 leaves the next two meaningless.
    before_square, before_dot : ndarray, shape (k,), (k, m)
        Over those states: mean |z|^2, and (mean z) . z.
    """

    rows: NDArray[np.int64]
    gram: NDArray[np.floating]
    before: int
    before_square: Floats
    before_dot: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class Moments:
    """Products of b trajectories of N states, in float64.

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
    bend2 : ndarray, shape (b, N - 2)
        |(s_t - s_{t-1}) - (s_{t-1} - s_{t-2})|^2, from which the angle between steps follows
        without cancellation.
    last : ndarray, shape (b, d_model)
        The last state, in the dtype of the products.
    from_last2 : ndarray, shape (b, N)
        |s_t - s_N|^2.
    limit_points : int
        How many states at the end the limit is the mean of: a quarter, unless asked otherwise.
    limit : ndarray, shape (b, d_model)
        s*, that mean.
    limit2 : ndarray, shape (b,)
        |s*|^2.
    away2 : ndarray, shape (b, N)
        |s_t - s*|^2.
    projected : ndarray or None, shape (b, N, k)
        s_t less the origin (neither scaled) in the directions that were asked for.
    from_origin2 : ndarray or None, shape (b, N)
        The square of that difference.
    tail : TailGram or None
        Products within the window, where one was asked for.
    wide : WideGram or None
        Products within more states, of some trajectories, where they were asked for.
    """

    rows: NDArray[np.int64]
    scale: Floats
    d_model: int
    limit_points: int
    norm2: Floats
    step2: Floats
    radial: Floats
    bend2: Floats
    last: NDArray[np.floating]
    from_last2: Floats
    limit: Floats
    limit2: Floats
    away2: Floats
    projected: Floats | None
    from_origin2: Floats | None
    tail: TailGram | None
    wide: WideGram | None


def chosen(part: Moments, rows: NDArray[np.bool_]) -> Moments:
    """Return the products of some of the trajectories."""
    tail = part.tail
    if tail is not None:
        names = [name for name in TailGram.__slots__ if name != "before"]
        tail = dataclasses.replace(tail, **{name: getattr(tail, name)[rows] for name in names})
    wide = part.wide
    if wide is not None:
        kept = rows[wide.rows]
        wide = WideGram(
            rows=(np.cumsum(rows) - 1)[wide.rows[kept]],
            gram=wide.gram[kept],
            before=wide.before,
            before_square=wide.before_square[kept],
            before_dot=wide.before_dot[kept],
        )
    names = ["rows", "scale", "norm2", "step2", "radial", "bend2", "last", "from_last2"]
    names += ["limit", "limit2", "away2"]
    return dataclasses.replace(
        part,
        tail=tail,
        wide=wide,
        projected=None if part.projected is None else part.projected[rows],
        from_origin2=None if part.from_origin2 is None else part.from_origin2[rows],
        **{name: getattr(part, name)[rows] for name in names},
    )


def divided(part: Moments, scale: Floats) -> Moments:
    """Return the products of states over powers of two (b,), so that they stay near 1."""
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
    wide = part.wide
    if wide is not None:
        less = down[wide.rows, 0] ** 2
        wide = dataclasses.replace(
            wide,
            gram=wide.gram * less[:, None, None],
            before_square=wide.before_square * less,
            before_dot=wide.before_dot * less[:, None],
        )
    return dataclasses.replace(
        part,
        scale=scale,
        norm2=part.norm2 * down**2,
        step2=part.step2 * down**2,
        radial=part.radial * down**2,
        bend2=part.bend2 * down**2,
        last=part.last * down.astype(part.last.dtype),
        from_last2=part.from_last2 * down**2,
        limit=part.limit * down,
        limit2=part.limit2 * down[:, 0] ** 2,
        away2=part.away2 * down**2,
        tail=tail,
        wide=wide,
    )


def unit_offset(along: Floats, sideways: Floats, norm: Floats, last: Floats) -> Floats:
    """(s / |s| - e) . e, where s . e is last + along and `sideways` the square across e.

    Written so that states close to e lose no digits; a zero state has no direction: -1.
    """
    forward = last + along
    near = -sideways / np.maximum(norm * (norm + forward), TINY)
    far = forward / np.maximum(norm, TINY) - 1.0
    # Of a zero state rounding makes `forward` anything about 0, and both quotients huge.
    return np.where(norm > 0, np.where(forward > 0, near, far), -1.0)
