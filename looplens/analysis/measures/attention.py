"""How much attention patterns still change from one iteration to the next."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from looplens.analysis.algebra.gram import Floats
from looplens.analysis.algebra.inputs import as_array


def attention_change(patterns: ArrayLike) -> Floats:
    """Total variation between attention patterns of successive iterations.

    Parameters
    ----------
    patterns : array_like, shape (..., iteration, head, query, key)
        Attention weights; each row over keys sums to 1.

    Returns
    -------
    ndarray, shape (..., iteration - 1, head)
        Half the sum of absolute differences over keys, mean over queries: 0 for the same pattern, 1
        for patterns without a key in common. Entry i compares iterations i + 1 and i + 2.

    Raises
    ------
    InputError
        For fewer than four axes, an empty one of them, or values that are not real numbers.

    References
    ----------
    What bounds it by the change of the states: Blayney et al. 2026, arXiv:2604.11791, proposition
    4.2.
    """
    array = as_array(patterns, ("iteration", "head", "query", "key"), name="patterns")
    iterations = array.shape[-4]
    change = np.empty((*array.shape[:-4], iterations - 1, array.shape[-3]))
    for step in range(iterations - 1):  # one at a time: patterns are the largest arrays of a run
        before = array[..., step, :, :, :].astype(np.float64)
        after = array[..., step + 1, :, :, :].astype(np.float64)
        change[..., step, :] = 0.5 * np.abs(after - before).sum(-1).mean(-1)
    return change
