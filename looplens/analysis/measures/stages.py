"""Stages of inference: how attention gathers and mixes, and how compressed the residual stream is.

The layers of a feed-forward transformer do different things from the first to the last. These
numbers, a few for each layer, make that visible, and tell whether every loop of a looped model goes
through the same stages again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from looplens.analysis.algebra.gram import Floats
from looplens.analysis.algebra.inputs import as_array
from looplens.errors import InputError

SINK_THRESHOLD = 0.3
LEAK = 1e-6  # attention to later keys that a mask may leave by rounding
STAGES = ("concentration", "sink_rate", "mixing", "matrix_entropy")


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionStages:
    """What attention patterns do; every array is (..., head).

    Attributes
    ----------
    concentration : ndarray
        ColSum concentration minus that of uniform attention of the same length: 0 is as
        concentrated as attending to everything alike, below 0 is more evenly spread over keys
        (as is attending to oneself), and the most is ``1 - concentration_baseline``.
    sink_score : ndarray
        Share of all attention that goes to the key with the most, between 0 and 1.
    sink_key : ndarray of int
        Position of that key; -1 where the pattern is not finite.
    mixing : ndarray
        Entropy of a query's row, mean over queries, in nats: 0 where every query reads one key.
    concentration_baseline, sink_baseline, mixing_baseline : float
        The same numbers of uniform attention (over all visible keys where patterns are causal).
    """

    concentration: Floats
    sink_score: Floats
    sink_key: NDArray[np.int64]
    mixing: Floats
    concentration_baseline: float
    sink_baseline: float
    mixing_baseline: float


def attention_stages(patterns: ArrayLike) -> AttentionStages:
    r"""Measure concentration, sinks and mixing of attention patterns.

    With A of T queries by T keys, :math:`\hat c_j = \frac1T \sum_i A_{ij}` is the share of all
    attention that key j gets, and

    .. math:: C = 1 + \frac{1}{\log T} \sum_j \hat c_j \log \hat c_j,

    1 for a pure sink, 0 where all keys get the same. Causal attention that treats all visible keys
    alike has C > 0, since early keys are visible to more queries; that value is subtracted.

    Parameters
    ----------
    patterns : array_like, shape (..., head, query, key)
        Attention weights; each row over keys sums to 1, queries and keys are the same positions.
        Patterns without weight on later keys (beyond 1e-6) count as causal.

    Returns
    -------
    AttentionStages
        NaN for patterns that are not finite; concentration also for a single token.

    Raises
    ------
    InputError
        For fewer than three axes, an empty one, or different numbers of queries and keys.

    References
    ----------
    Blayney et al. 2026, arXiv:2604.11791, section on stages of inference: ColSum concentration,
    sink score :math:`\frac1T\sum_i A_{ij}`, mixing score. The printed formula of C has no hats and
    then exceeds 1; it is read with them. The baseline is ours.
    """
    array = as_array(patterns, ("head", "query", "key"), name="patterns")
    queries, keys = array.shape[-2:]
    if queries != keys:
        raise InputError(
            f"patterns must be square, each token a query and a key; got {queries} queries and "
            f"{keys} keys. Pass the patterns of a whole prompt."
        )
    exact: Floats = array.astype(np.float64)
    finite = np.asarray(np.isfinite(exact).all((-2, -1)))
    later = np.triu(np.ones((keys, keys), dtype=bool), k=1)
    causal = not (np.abs(exact[finite]) * later > LEAK).any()
    exact = np.where(finite[..., None, None], exact, np.nan)
    concentration, sink, mixing = _of(exact)
    uniform = np.tril(np.ones((keys, keys))) if causal else np.ones((keys, keys))
    expected = _of(uniform / uniform.sum(-1, keepdims=True))
    return AttentionStages(
        concentration=concentration - expected[0],
        sink_score=sink,
        sink_key=np.where(finite, exact.mean(-2).argmax(-1), -1),
        mixing=mixing,
        concentration_baseline=float(expected[0]),
        sink_baseline=float(expected[1]),
        mixing_baseline=float(expected[2]),
    )


def _of(patterns: Floats) -> tuple[Floats, Floats, Floats]:
    """Return concentration, largest share of a key, and mean entropy of the rows."""
    share = patterns.mean(-2)
    length = patterns.shape[-1]
    entropy = _entropy(share)
    # A single key gets everything and nothing at once: there is no concentration to speak of.
    concentration = 1 - entropy / np.log(length) if length > 1 else np.full_like(entropy, np.nan)
    return concentration, share.max(-1), _entropy(patterns).mean(-1)


def sink_rate(
    sink_score: ArrayLike, sink_baseline: float, threshold: float = SINK_THRESHOLD
) -> Floats:
    """Share of heads whose strongest key gets at least `threshold` of all attention.

    Parameters
    ----------
    sink_score : array_like, shape (..., head)
        See `AttentionStages`.
    sink_baseline : float
        The score of uniform attention. Where it reaches the threshold itself, as it does for
        causal prompts of 9 tokens and fewer at 0.3, the prompt is too short to tell.
    threshold : float
        Between 0 and 1.

    Returns
    -------
    ndarray, shape (...)
        NaN where the prompt is too short, or a score is not finite.

    Raises
    ------
    InputError
        If the threshold is not between 0 and 1.

    References
    ----------
    Blayney et al. 2026, arXiv:2604.11791 (threshold 0.3, for one key k); here k is the key with
    the highest score of each head.
    """
    if not 0 < threshold < 1:
        raise InputError(f"threshold must lie between 0 and 1, got {threshold}.")
    scores = as_array(sink_score, ("head",), name="sink_score").astype(np.float64)
    rate = (scores >= threshold).mean(-1)
    known = np.isfinite(scores).all(-1) & (sink_baseline < threshold)
    return np.where(known, rate, np.nan)


def matrix_entropy(states: ArrayLike) -> Floats:
    r"""Entropy of the spectrum of the Gram matrix of the tokens of a prompt.

    With X the states of n tokens and :math:`\lambda_i` the eigenvalues of
    :math:`X X^\top / \mathrm{tr}(X X^\top)`,

    .. math:: H = -\sum_i \lambda_i \log \lambda_i .

    Parameters
    ----------
    states : array_like, shape (..., token, d_model)
        Residual stream of all tokens of a prompt. It is not centred.

    Returns
    -------
    ndarray, shape (...)
        In nats, from 0 (all tokens on one line, or one massive token) to log(min(token, d_model));
        NaN where states are not finite or all zero.

    Raises
    ------
    InputError
        For fewer than two axes, or an empty one of them.

    References
    ----------
    Skean et al. 2025, as used by Blayney et al. 2026, arXiv:2604.11791, for "residual compression"
    (the definition is by reference there; the text of Skean et al. was not read).
    """
    array = as_array(states, ("token", "d_model"), name="states")
    found = np.empty(array.shape[:-2])
    flat = array.reshape(-1, *array.shape[-2:])
    for place, one in enumerate(flat):
        found.flat[place] = _spectral_entropy(one.astype(np.float64))
    return found


def _spectral_entropy(states: Floats) -> float:
    size = np.abs(states).max()
    if not (np.isfinite(size) and size > 0):
        return float("nan")
    scaled = states / size  # first, so that massive states do not overflow when squared
    few = scaled if scaled.shape[0] <= scaled.shape[1] else scaled.T
    values = np.clip(np.linalg.eigvalsh(few @ few.T), 0, None)
    return float(_entropy(values / values.sum()))


def _entropy(shares: Floats) -> Floats:
    """Return -sum p log p over the last axis, where 0 log 0 is 0."""
    terms = shares * np.log(np.maximum(shares, np.finfo(np.float64).tiny))
    # Adding 0 turns the -0.0 of a certain choice into 0.
    return -terms.sum(-1) + 0.0


def profile_correlation(profiles: ArrayLike, reference: ArrayLike) -> Floats:
    """Pearson correlation over layers between profiles and a reference profile.

    Parameters
    ----------
    profiles : array_like, shape (..., layer)
        A stage metric by layer.
    reference : array_like, shape (..., layer)
        What it is compared with; leading axes broadcast.

    Returns
    -------
    ndarray, shape (...)
        NaN with fewer than three layers (two always correlate perfectly), for a profile that is
        flat up to rounding, or where one is not known.
    """
    one, other = np.broadcast_arrays(
        np.asarray(profiles, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    )
    if one.shape[-1] < 3:
        return np.full(one.shape[:-1], np.nan)
    sizes = np.abs(one).max(-1), np.abs(other).max(-1)
    one, other = one - one.mean(-1, keepdims=True), other - other.mean(-1, keepdims=True)
    norms = np.linalg.norm(one, axis=-1), np.linalg.norm(other, axis=-1)
    # Rounding alone gives a flat profile some direction, of no meaning.
    flat = [norm <= 1e-9 * size for norm, size in zip(norms, sizes, strict=True)]
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = (one * other).sum(-1) / (norms[0] * norms[1])
    return np.where(flat[0] | flat[1], np.nan, cosine)
