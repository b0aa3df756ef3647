"""The two scales of Pappone: the jump from a layer to the next over its step between iterations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from looplens.analysis.algebra.gram import Floats
from looplens.analysis.algebra.inputs import as_array
from looplens.analysis.algebra.moments import moments_of
from looplens.analysis.algebra.products import Moments
from looplens.analysis.measures.steps import known_rounding, signal_end
from looplens.errors import InputError


def two_scale_ratio(layers: ArrayLike, *, rounding: float | None = None) -> Floats:
    """Jump from one layer to the next over the mean step of the layer between loops.

    r_l = |x_{l+1}(T) - x_l(T)| / mean over t of |x_l(t) - x_l(t-1)|, over the signal of the layer.
    In the source a group is a set of layers that is looped for itself, and the jump leads from its
    last loop to the next group. Here all layers are looped together, so a group is one layer: its
    loop is its own state from one iteration to the next, and the jump leads to the next layer.

    Parameters
    ----------
    layers : array_like, shape (..., layer, iteration 1..T, d_model)
        Residual stream after each layer.
    rounding : float, optional
        Relative step that rounding alone shows; by default that of the dtype of the array.

    Returns
    -------
    ndarray, shape (..., layer - 1)
        NaN where a layer never moves by more than rounding.

    Raises
    ------
    InputError
        For fewer than two layers or three iterations.

    References
    ----------
    Pappone, Crisostomi and Rodolà 2025, arXiv:2509.23314 (DLR), as summarised by others; its text
    was not read.
    """
    array = as_array(layers, ("layer", "iteration", "d_model"), name="layers")
    *leading, n_layers, length, d_model = array.shape
    if n_layers < 2 or length < 3:
        raise InputError(
            "The two-scale ratio needs at least two layers and three iterations; got "
            f"{n_layers} and {length}."
        )
    flat = array.reshape(-1, n_layers, length, d_model)
    smallest = known_rounding(flat.dtype, rounding)
    parts = [moments_of(np.ascontiguousarray(flat[:, layer])) for layer in range(n_layers)]
    return two_scale_of(parts, (len(flat), d_model), smallest).reshape(*leading, n_layers - 1)


def two_scale_of(
    layers: Sequence[list[Moments]], shape: tuple[int, int], rounding: float
) -> Floats:
    """Two-scale ratios (count, layer - 1) from the products of the layers of `count` trajectories.

    ``shape`` is (count, d_model); ``rounding`` the relative step that rounding alone shows.
    """
    count, d_model = shape
    last = np.full((len(layers), count, d_model), np.nan)
    step = np.full((len(layers), count), np.nan)
    for number, parts in enumerate(layers):
        for part in parts:
            last[number, part.rows] = part.last * part.scale[:, None]
            step[number, part.rows] = mean_step(part, rounding, first=1)
    return (np.linalg.norm(np.diff(last, axis=0), axis=-1) / step[:-1]).T


def mean_step(part: Moments, rounding: float, *, first: int) -> Floats:
    """Mean step norm over the signal, (b,); NaN without any.

    ``first`` is the first step that counts: 2 on a path from the random start, else 1.
    """
    size = np.sqrt(part.step2)
    end = signal_end(size, np.sqrt(part.norm2[:, -1]), rounding)
    number = np.arange(1, size.shape[1] + 1)
    inside = (number >= first) & (number <= end[:, None])
    count = inside.sum(1)
    total = np.where(inside, size, 0.0).sum(1) * part.scale
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
