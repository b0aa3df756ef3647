"""How alike the layers of all iterations are: maps over virtual depth, and their diagonal bands.

Virtual depth counts every layer as often as it runs: with k layers, layer l of iteration t is at
v = k (t - 1) + l.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from looplens.analysis.algebra.gram import TINY, Floats
from looplens.analysis.algebra.inputs import as_array, whole_number
from looplens.errors import InputError

_NUMBERS_AT_ONCE = 2**23


@dataclass(frozen=True, kw_only=True, slots=True)
class DepthSimilarity:
    """What `depth_similarity` measures; V is the number of layers times that of iterations.

    Attributes
    ----------
    cosine : ndarray, shape (V, V)
        Cosine between the states of a token at two virtual depths, mean over tokens.
    distance : ndarray, shape (V, V)
        Frobenius norm of the difference between the states of all tokens, over the mean of the two
        norms.
    tokens : int
        How many tokens were finite; without any, the maps are NaN.
    """

    cosine: Floats
    distance: Floats
    tokens: int


def depth_similarity(states: ArrayLike) -> DepthSimilarity:
    """Compare the states after all layers of all iterations with each other.

    Parameters
    ----------
    states : array_like, shape (..., layer, iteration, d_model)
        The residual stream after each core layer. All leading axes are tokens.

    Returns
    -------
    DepthSimilarity
        Over all finite tokens.

    Raises
    ------
    InputError
        For fewer than three axes, an empty one of them, or values that are not real numbers.

    Notes
    -----
    The cosine counts every token alike. The distance counts tokens by the square of their norm: one
    token of a very large norm, such as the first one of many models, decides it.

    References
    ----------
    Blayney et al. 2026, arXiv:2604.11791, figures 19 and 20 (cosine over virtual depth), as
    summarised in public notes; paper text not read.
    """
    return depth_similarity_of([as_array(states, ("layer", "iteration", "d_model"))])


def depth_similarity_of(parts: Iterable[NDArray[np.floating]]) -> DepthSimilarity:
    """Compare states that come in parts, each as `depth_similarity` takes them."""
    cosine: Floats | None = None
    tokens = 0
    for part in parts:
        depths, width = part.shape[-3] * part.shape[-2], part.shape[-1]
        # (token, iteration, layer): virtual depth counts layers first.
        by_depth = np.moveaxis(part, -3, -2).reshape(-1, depths, width)
        if cosine is None:
            cosine, gram = np.zeros((depths, depths)), np.zeros((depths, depths))
            square = np.zeros(depths)
        step = max(1, _NUMBERS_AT_ONCE // (depths * width))
        for start in range(0, len(by_depth), step):
            some = by_depth[start : start + step].astype(np.float64)
            some = some[np.isfinite(some).all((1, 2))]
            tokens += len(some)
            norm = np.sqrt(np.vecdot(some, some))
            square += (norm**2).sum(0)
            unit = some / np.maximum(norm, TINY)[..., None]
            cosine += _product(unit)
            # About the mean, so that small distances keep their digits.
            gram += _product(some - some.mean(1, keepdims=True))
    if cosine is None or not tokens:
        nothing = np.full((0, 0) if cosine is None else cosine.shape, np.nan)
        return DepthSimilarity(cosine=nothing, distance=nothing.copy(), tokens=0)
    norms = np.sqrt(square)
    apart = np.sqrt(_squares(gram))
    scale = 0.5 * (norms[:, None] + norms)
    return DepthSimilarity(
        cosine=np.clip(cosine / tokens, -1.0, 1.0),
        distance=apart / np.maximum(scale, TINY),
        tokens=tokens,
    )


def attention_distance(patterns: ArrayLike) -> Floats:
    """Compare the attention maps of all layers and iterations with each other.

    Parameters
    ----------
    patterns : array_like, shape (..., layer, iteration, head, query, key)
        Attention weights; each row over keys sums to 1.

    Returns
    -------
    ndarray, shape (..., V, V)
        Frobenius norm of the difference between the maps of a head at two virtual depths, over
        sqrt(2 queries), mean over heads: 0 for the same maps, 1 where every query attends to one
        key of its own in each of the two. Heads are compared with heads of the same number. NaN for
        depths where a map is not finite.

    Raises
    ------
    InputError
        For fewer than five axes, an empty one of them, or values that are not real numbers.

    References
    ----------
    Blayney et al. 2026, arXiv:2604.11791, figures 2 and 21 (without the scale), as summarised in
    public notes; paper text not read.
    """
    axes = ("layer", "iteration", "head", "query", "key")
    array = as_array(patterns, axes, name="patterns")
    heads, queries = array.shape[-3:-1]
    depths = array.shape[-5] * array.shape[-4]
    by_depth = np.moveaxis(array, -5, -4).reshape(-1, depths, heads, queries * array.shape[-1])
    found = np.empty((len(by_depth), depths, depths))
    for place, maps in enumerate(by_depth):
        found[place] = sum(_apart(maps[:, head]) for head in range(heads)) / heads
    return found.reshape(*array.shape[:-5], depths, depths) / np.sqrt(2 * queries)


def band_contrast(distance: ArrayLike, layers: int) -> Floats:
    """How much closer a layer is to itself one iteration later than to the other layers.

    Parameters
    ----------
    distance : array_like, shape (..., V, V)
        Distances over virtual depth.
    layers : int
        k, how many layers there are; V must be a multiple of it.

    Returns
    -------
    ndarray, shape (..., V / k - 1)
        (o - b) / (o + b) for each iteration but the last: b is the mean distance at offset k, from
        each layer to itself one iteration on; o that at all other offsets 1 to 2k - 1. 1: the
        layers repeat themselves exactly and differ among each other; 0: nothing tells the band from
        what is beside it. NaN for one layer, and where nothing differs at all.

    Raises
    ------
    InputError
        If the map is not square, or its size is no multiple of the layers.
    """
    array = as_array(distance, ("depth", "other_depth"), name="distance").astype(np.float64)
    layers = whole_number(layers, "layers", least=1)
    depths = array.shape[-1]
    if array.shape[-2] != depths or depths % layers:
        raise InputError(
            f"distance must be square, with a multiple of {layers} rows (one a layer); got "
            f"{array.shape[-2]} by {depths}."
        )
    starts = range(0, depths - layers, layers)
    contrast = np.full((*array.shape[:-2], len(starts)), np.nan)
    for place, start in enumerate(starts if layers > 1 else ()):
        band: list[Floats] = []
        other: list[Floats] = []
        for row in range(start, start + layers):
            for column in range(row + 1, min(row + 2 * layers, depths)):
                (band if column - row == layers else other).append(array[..., row, column])
        near, far = np.mean(band, axis=0), np.mean(other, axis=0)
        total = near + far
        contrast[..., place] = np.divide(
            far - near, total, out=np.full_like(total, np.nan), where=total > 0
        )
    return contrast


def _apart(flat: NDArray[np.floating]) -> Floats:
    """Distances between rows (V, numbers); NaN to those that are not finite."""
    numbers = flat.astype(np.float64)
    unknown = ~np.isfinite(numbers).all(1)
    numbers[unknown] = 0.0
    numbers -= numbers.sum(0) / max(len(numbers) - unknown.sum(), 1)
    apart = np.sqrt(_squares(numbers @ numbers.T))
    apart[unknown], apart[:, unknown] = np.nan, np.nan
    return apart


def _product(some: Floats) -> Floats:
    """Inner products (V, V) of (token, V, width), summed over tokens."""
    flat = np.swapaxes(some, 0, 1).reshape(some.shape[1], -1)
    return flat @ flat.T


def _squares(gram: Floats) -> Floats:
    """Squared distances from inner products; what rounding leaves of equal ones is 0."""
    own = np.diagonal(gram)
    both = own[:, None] + own
    squares = both - 2 * gram
    squares[squares < 8 * np.finfo(np.float64).eps * both] = 0.0
    np.fill_diagonal(squares, 0.0)
    return squares
