"""The cycle over the core layers: each layer settles at a point of its own, or they all share one.

Measures limits and the distances between them. Whether the trajectory settles at all is for
`classify`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from looplens.analysis.algebra.gram import TINY, Floats
from looplens.analysis.algebra.inputs import as_array
from looplens.analysis.algebra.moments import moments_of
from looplens.analysis.algebra.products import Moments
from looplens.analysis.algebra.trajectories import tail_points

_SMALLEST_MOVEMENT = float(np.finfo(np.float32).eps)  # movement below rounding is not known better


@dataclass(frozen=True, kw_only=True, slots=True)
class Cycle:
    """What `cycle` measures; ``...`` are the leading axes.

    Attributes
    ----------
    limits : ndarray, shape (..., layer, d_model)
        Mean over the last quarter of the iterations, for each layer.
    limit_norm : ndarray, shape (..., layer)
        Norm of each limit. With `distance` it gives every cosine between limits.
    distance : ndarray, shape (..., layer, layer)
        Distance between two limits relative to the mean of their norms.
    movement : ndarray, shape (..., layer)
        Root-mean-square distance from the limit over the last quarter, relative to the limit's
        norm.
    separation_ratio : ndarray, shape (...)
        Mean distance between limits over mean movement (at least float32 rounding): how far apart
        the layers' points lie in units of what still moves. NaN for one layer.
    degeneracy : ndarray, shape (...)
        Smallest cosine between the limit of layer 0 and that of another layer: 1 when all layers
        share one fixed point and the loop does nothing. NaN for one layer, and where a limit is
        zero: it has no direction.
    """

    limits: Floats
    limit_norm: Floats
    distance: Floats
    movement: Floats
    separation_ratio: Floats
    degeneracy: Floats

    def reshaped(self, leading: tuple[int, ...]) -> Cycle:
        """Return the same with other leading axes."""
        return Cycle(
            **{
                name: getattr(self, name).reshape((*leading, *getattr(self, name).shape[1:]))
                for name in Cycle.__slots__
            }
        )


def cycle(layer_states: ArrayLike) -> Cycle:
    """Measure the limits of every layer and how far apart they are.

    Parameters
    ----------
    layer_states : array_like, shape (..., layer, iteration, d_model)
        The residual stream after each core layer.

    Returns
    -------
    Cycle
        NaN for tokens that are not finite.

    Raises
    ------
    InputError
        For fewer than three axes, an empty one of them, or values that are not real numbers.

    References
    ----------
    Blayney et al. 2026, arXiv:2604.11791: proposition 4.1 (every cyclic rotation of the layers has
    a fixed point), figure 6 right (degeneracy), as summarised in public notes; paper text not read.
    """
    array = as_array(layer_states, ("layer", "iteration", "d_model"), name="layer_states")
    layers, length, d_model = array.shape[-3:]
    leading = array.shape[:-3]
    tail = array[..., -tail_points(length) :, :].reshape(-1, tail_points(length), d_model)
    # Of these few states the mean is the limit: the last quarter of one is that one.
    parts = moments_of(tail, limit_points=tail.shape[1])
    return cycle_of(parts, layers, len(tail) // layers, d_model).reshaped(leading)


def cycle_of(parts: list[Moments], layers: int, count: int, d_model: int) -> Cycle:
    """Measure limits of tokens whose products are known.

    Parameters
    ----------
    parts : list of Moments
        Products of all trajectories, token by token and in a token layer by layer.
    layers, count, d_model : int
        How many layers, tokens and dimensions there are.
    """
    limits = np.full((count * layers, d_model), np.nan)
    spreads, scales = np.full(count * layers, np.nan), np.full(count * layers, np.nan)
    for part in parts:
        quarter = part.limit_points
        limits[part.rows], scales[part.rows] = part.limit, part.scale
        spreads[part.rows] = np.sqrt(part.away2[:, -quarter:].mean(1))
    scale, spread = scales.reshape(count, layers), spreads.reshape(count, layers)
    known = np.isfinite(scale).all(1)
    largest = np.where(known, scale.max(1), 1.0)
    relative = np.where(known[:, None], scale / largest[:, None], 0.0)
    known_limits = np.where(known[:, None, None], limits.reshape(count, layers, d_model), 0.0)
    limits = known_limits * relative[..., None]
    spread = np.where(known[:, None], spread, 0.0) * relative
    norms = np.sqrt(np.vecdot(limits, limits))
    movement = np.where(spread == 0, 0.0, spread / np.maximum(norms, TINY))
    distance = np.zeros((*norms.shape, layers))
    for other in range(layers):  # one layer at a time: all pairs at once are layers times larger
        difference = limits - limits[..., other : other + 1, :]
        apart = np.sqrt(np.vecdot(difference, difference))
        distance[..., other] = apart / np.maximum(0.5 * (norms + norms[..., other, None]), TINY)
    separation = np.full(known.shape, np.nan)
    degeneracy = np.full(known.shape, np.nan)
    if layers > 1:
        between = distance.sum((-2, -1)) / (layers * (layers - 1))
        separation = between / np.maximum(movement.mean(-1), _SMALLEST_MOVEMENT)
        products = np.vecdot(limits[..., 1:, :], limits[..., :1, :])
        both = norms[..., 1:] * norms[..., :1]
        cosines = np.where(both > 0, products / np.maximum(both, TINY), np.nan)
        degeneracy = cosines.min(-1)  # NaN if one of them is
    return Cycle(
        limits=np.where(known[..., None, None], limits * largest[:, None, None], np.nan),
        limit_norm=np.where(known[..., None], norms * largest[:, None], np.nan),
        distance=np.where(known[..., None, None], distance, np.nan),
        movement=np.where(known[..., None], movement, np.nan),
        separation_ratio=np.where(known, separation, np.nan),
        degeneracy=np.where(known, degeneracy, np.nan),
    )
