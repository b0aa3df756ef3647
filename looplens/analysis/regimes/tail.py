"""The last states of trajectories as products, and how far they spread.

The same for states and for states divided by their norms, so that all that judges windows need not
know which it is given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from looplens.analysis.algebra.gram import TINY, Floats
from looplens.analysis.algebra.products import Moments, unit_offset


@dataclass(frozen=True, kw_only=True, slots=True)
class Tail:
    """The last n states of b trajectories as products, of the states or of their directions.

    Attributes
    ----------
    gram : ndarray, shape (b, n, n)
        Gram matrix of the states less some origin near them.
    square : ndarray, shape (b, n)
        Squared norms of the states themselves.
    step2 : ndarray, shape (b, n - 1)
        Squared steps.
    start : int
        Index of the first of them in the record.
    before_square, before_dot : ndarray, shape (b,), (b, n)
        Mean square of the states before the window about the origin, and the product of their mean
        with each state of the window; without meaning where `start` is 0.
    d_model : int
        Dimensions of the states.
    """

    gram: Floats
    square: Floats
    step2: Floats
    start: int
    before_square: Floats
    before_dot: Floats
    d_model: int

    def last(self, points: int) -> Tail:
        """Return the same for fewer states from the end."""
        n = self.square.shape[1]
        more = n - points
        if more == 0:
            return self
        square = np.trace(self.gram[:, :more, :more], axis1=1, axis2=2)
        dot = self.gram[:, :more, more:].sum(1)
        if self.start:
            square = square + self.start * self.before_square
            dot = dot + self.start * self.before_dot[:, more:]
        start = self.start + more
        return Tail(
            gram=np.ascontiguousarray(self.gram[:, more:, more:]),
            square=self.square[:, more:],
            step2=self.step2[:, more:],
            start=start,
            before_square=square / start,
            before_dot=dot / start,
            d_model=self.d_model,
        )

    def of(self, rows: NDArray[np.int64]) -> Tail:
        """Return the same for some of the trajectories."""
        if len(rows) == len(self.gram):
            return self
        return Tail(
            gram=self.gram[rows],
            square=self.square[rows],
            step2=self.step2[rows],
            start=self.start,
            before_square=self.before_square[rows],
            before_dot=self.before_dot[rows],
            d_model=self.d_model,
        )


def tail_of(moments: Moments) -> Tail:
    """Return the states of a window, about the last one."""
    products = moments.tail
    if products is None:
        raise ValueError("these products were taken without a window")
    along = products.along
    return Tail(
        gram=products.across + along[:, :, None] * along[:, None, :],
        square=products.norm**2,
        step2=moments.step2[:, -(products.norm.shape[1] - 1) :],
        start=products.before,
        before_square=products.before_square,
        before_dot=products.before_across + products.before_along[:, None] * along,
        d_model=moments.d_model,
    )


def wide_tail_of(moments: Moments, rows: NDArray[np.int64]) -> Tail:
    """Return more states than the window of some of the trajectories that there are more of.

    `rows` are places in the rows of `Moments.wide`.
    """
    wide = moments.wide
    if wide is None:
        raise ValueError("these products were taken of a window only")
    points, places = wide.gram.shape[1], wide.rows[rows]
    return Tail(
        gram=wide.gram[rows].astype(np.float64),
        square=moments.norm2[places, -points:],
        step2=moments.step2[places, 1 - points :],
        start=wide.before,
        before_square=wide.before_square[rows],
        before_dot=wide.before_dot[rows],
        d_model=moments.d_model,
    )


def unit_tail_of(moments: Moments) -> Tail:
    """Return the states of a window over their norms, about the direction of the last one."""
    products = moments.tail
    if products is None:
        raise ValueError("these products were taken without a window")
    step2 = moments.step2[:, -(products.norm.shape[1] - 1) :]
    radial = 2 * moments.radial[:, -step2.shape[1] :] + step2
    norm = products.norm
    moving = norm > 0
    inverse = np.where(moving, 1 / np.where(moving, norm, 1.0), 0.0)
    sideways = np.diagonal(products.across, axis1=1, axis2=2)
    offset = unit_offset(products.along, sideways, norm, products.last[:, None])
    gram = np.multiply(products.across, inverse[:, :, None], dtype=np.float64)
    gram *= inverse[:, None, :]
    gram += offset[:, :, None] * offset[:, None, :]
    # The part of a step that turns: its square less that of the change of norm.
    radial /= np.where(moving[:, 1:] | moving[:, :-1], norm[:, 1:] + norm[:, :-1], 1.0)
    turned = np.maximum(step2 - radial**2, 0.0) * inverse[:, 1:] * inverse[:, :-1]
    # A step from or to zero, which has no direction, has the length of the one direction there is.
    turned += moving[:, 1:] != moving[:, :-1]
    return Tail(
        gram=gram,
        square=moving.astype(np.float64),
        step2=turned,
        start=products.before,
        before_square=products.unit_square,
        before_dot=products.unit_across * inverse + products.unit_along[:, None] * offset,
        d_model=moments.d_model,
    )


def spread2(gram: Floats, points: int) -> Floats:
    """Mean square distance of the last `points` states from their mean, (b, n, n) to (b,)."""
    last = gram[:, -points:, -points:]
    mean_square = np.trace(last, axis1=1, axis2=2) / points
    return np.maximum(mean_square - last.sum((1, 2)) / points**2, 0.0)


def amplitude_of(tail: Tail) -> Floats:
    """Root-mean-square distance from the mean over the root-mean-square norm, shape (b,)."""
    scale = np.sqrt(tail.square.mean(1))
    return np.sqrt(spread2(tail.gram, tail.square.shape[1])) / np.maximum(scale, TINY)


def has_converged(tail: Tail, floor: float) -> NDArray[np.bool_]:
    """Whether the last third of each window spreads by no more than rounding, shape (b,).

    `floor` is the largest relative spread that is rounding.
    """
    n = tail.square.shape[1]
    scale = np.sqrt(tail.square.mean(1))
    return np.sqrt(spread2(tail.gram, max(4, n // 3))) <= scale * floor
