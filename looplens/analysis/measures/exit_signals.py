"""What exit rules look at after every iteration: steps of states, changes of predictions, gates.

When a rule leaves, and with which threshold, is in :mod:`looplens.analysis.measures.exits`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from looplens.analysis.algebra.gram import Floats
from looplens.errors import InputError


def state_signals(states: ArrayLike) -> dict[str, Floats]:
    r"""Return what the rules on states look at after every iteration.

    ``latent-diff`` is :math:`|s_t - s_{t-1}| / |s_t|`; ``cosine`` is
    :math:`1 - \cos(s_t, s_{t-1})`; ``acceleration`` is the larger of :math:`a_t` and
    :math:`a_{t-1}`, :math:`a_t = |s_t - 2 s_{t-1} + s_{t-2}| / |s_t|`, so that it is below a
    threshold where two in a row are (NaN at the first two iterations).

    Parameters
    ----------
    states : array_like, shape (..., iteration 0..T, d_model)
        Loop states with the initial one.

    Returns
    -------
    dict of str to ndarray, shape (..., iteration 1..T)
        float64; NaN where a state is not finite or zero.
    """
    array = np.asarray(states)
    if array.ndim < 2 or array.shape[-2] < 2:
        raise InputError(
            "Exit rules compare states of successive iterations: expected (..., iteration, "
            f"d_model) with at least 2 iterations, got an array of shape {array.shape}."
        )
    if array.dtype != np.float64:
        array = array.astype(np.float32, copy=False)
    with np.errstate(all="ignore"):  # some trajectories may not be finite
        norm = _norm(array)
        step = np.diff(array, axis=-2)
        size = _norm(step)
        bent = _norm(np.diff(step, axis=-2)) / norm[..., 2:]
        # 1 - cos from the step: the inner product of nearly equal states loses all digits.
        radial = np.vecdot(step.astype(np.float64), array[..., :-1, :])
        longer = (2 * radial + size**2) / (norm[..., 1:] + norm[..., :-1])
        cosine = np.maximum(size**2 - longer**2, 0) / (2 * norm[..., 1:] * norm[..., :-1])
        latent = size / norm[..., 1:]
    acceleration = np.full(latent.shape, np.nan)
    acceleration[..., 2:] = np.maximum(bent[..., 1:], bent[..., :-1])
    return {"latent-diff": latent, "cosine": cosine, "acceleration": acceleration}


def readout_signals(
    kl_to_previous: ArrayLike, entropy: ArrayLike, predicted: ArrayLike
) -> dict[str, Floats]:
    """Return what the rules on predictions look at after every iteration.

    Parameters
    ----------
    kl_to_previous, entropy : array_like, shape (..., iteration 1..T)
        KL(p[t-1] || p[t]) and the entropy of p[t], in nats.
    predicted : array_like of int, shape (..., iteration 1..T)
        The most probable token.

    Returns
    -------
    dict of str to ndarray, shape (..., iteration 1..T)
        ``kl``, ``entropy-diff`` (absolute change, NaN at iteration 1) and ``argmax-stability``
        (how many iterations in a row have brought no other token).
    """
    kl, bits = np.asarray(kl_to_previous, np.float64), np.asarray(entropy, np.float64)
    best = np.asarray(predicted)
    change = np.full(bits.shape, np.nan)
    change[..., 1:] = np.abs(np.diff(bits, axis=-1))
    stable = np.zeros(best.shape)
    for t in range(1, best.shape[-1]):
        same = best[..., t] == best[..., t - 1]
        stable[..., t] = np.where(same, stable[..., t - 1] + 1, 0)
    return {"kl": kl, "entropy-diff": change, "argmax-stability": stable}


def gate_signals(gate_logits: ArrayLike) -> dict[str, Floats]:
    r"""Return what the rules on an exit gate look at after every iteration.

    With :math:`\lambda_t` the sigmoid of the logit: ``gate`` is the logarithm of the probability to
    be still inside, :math:`\log S_t = \sum_{j \le t} \log(1 - \lambda_j)`; ``act`` is
    :math:`H_t = \sum_{j \le t} \lambda_j`.

    Parameters
    ----------
    gate_logits : array_like, shape (..., iteration 1..T)
        Before the sigmoid.

    Returns
    -------
    dict of str to ndarray, shape (..., iteration 1..T)
    """
    logits = np.asarray(gate_logits, dtype=np.float64)
    # log(1 - sigmoid(g)) = -log(1 + e^g), which does not round to zero.
    inside = -np.logaddexp(0, logits)
    return {
        "gate": np.cumsum(inside, axis=-1),
        "act": np.cumsum(np.exp(-np.logaddexp(0, -logits)), axis=-1),
    }


def _norm(vectors: NDArray[np.floating]) -> Floats:
    return np.sqrt(np.vecdot(vectors, vectors).astype(np.float64))
