"""What exit rules look at after every iteration: steps of states, changes of predictions, gates.

When a rule leaves, and with which threshold, is in :mod:`looplens.analysis.measures.exits`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from looplens.analysis.algebra.gram import Floats
from looplens.analysis.algebra.inputs import as_array
from looplens.analysis.algebra.moments import moments_of
from looplens.analysis.algebra.products import Moments
from looplens.analysis.algebra.trajectories import as_trajectories
from looplens.errors import InputError

STATE_SIGNALS = ("latent-diff", "cosine", "acceleration")


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
        float64; NaN from the first state on that is not finite, and where a state is zero.

    Raises
    ------
    InputError
        For fewer than two states, or values that are not real numbers.
    """
    flat, leading = as_trajectories(states)
    count, length, _ = flat.shape
    if length < 2:
        raise InputError(
            "Exit rules compare states of successive iterations: expected (..., iteration, "
            f"d_model) with at least 2 iterations, got an array of shape {np.shape(states)}."
        )
    found = {name: np.full((count, length - 1), np.nan) for name in STATE_SIGNALS}
    # Products are of finite trajectories: those that cease to be are cut where they do.
    ran = np.isfinite(flat).all(-1).cumprod(-1).sum(-1)
    for stop in np.unique(ran[ran > 1]):
        rows = np.flatnonzero(ran == stop)
        for part in moments_of(np.ascontiguousarray(flat[rows, :stop])):
            for name, values in signals_of(part).items():
                found[name][rows[part.rows], : stop - 1] = values
    return {name: values.reshape(*leading, length - 1) for name, values in found.items()}


def signals_of(part: Moments) -> dict[str, Floats]:
    """Return what `state_signals` does, of trajectories whose products are known, (b, T)."""
    norm, step = np.sqrt(part.norm2), np.sqrt(part.step2)
    now, before = norm[:, 1:], norm[:, :-1]
    acceleration = np.full(step.shape, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):  # states may be zero
        bent = np.sqrt(part.bend2) / norm[:, 2:]
        acceleration[:, 2:] = np.maximum(bent[:, 1:], bent[:, :-1])
        # 1 - cos from the step: the inner product of nearly equal states loses all digits.
        longer = (2 * part.radial + part.step2) / (now + before)
        cosine = np.maximum(part.step2 - longer**2, 0) / (2 * now * before)
        latent = step / now
    found = {"latent-diff": latent, "cosine": cosine, "acceleration": acceleration}
    return {name: np.where(np.isfinite(values), values, np.nan) for name, values in found.items()}


def readout_signals(
    kl_to_previous: ArrayLike, entropy: ArrayLike, predicted: ArrayLike
) -> dict[str, Floats]:
    """Return what the rules on predictions look at after every iteration.

    Parameters
    ----------
    kl_to_previous, entropy : array_like, shape (..., iteration 1..T)
        KL(p[t-1] || p[t]), NaN at iteration 1, and the entropy of p[t], in nats.
    predicted : array_like of int, shape (..., iteration 1..T)
        The most probable token.

    Returns
    -------
    dict of str to ndarray, shape (..., iteration 1..T)
        ``kl``, ``entropy-diff`` (absolute change, NaN at iteration 1) and ``argmax-stability``
        (how many iterations in a row have brought no other token).

    Notes
    -----
    No prediction comes before iteration 1, so no rule leaves there. The public code of ``kl`` sets
    p[0] to the uniform distribution, and so does :class:`looplens.thinking.OutputKL`. That
    divergence is minus the mean of all log-probabilities, which neither the entropy nor the best
    tokens determine. By Pinsker's inequality it is below a threshold only where the best token has
    at most a probability of ``1 / d_vocab + sqrt(threshold / 2)``: the model says next to nothing.
    """
    kl = as_array(kl_to_previous, ("iteration",), name="kl_to_previous").astype(np.float64)
    bits = as_array(entropy, ("iteration",), name="entropy").astype(np.float64)
    best = np.asarray(predicted)
    if not kl.shape == bits.shape == best.shape:
        raise InputError(
            "kl_to_previous, entropy and predicted must have one shape (..., iteration); got "
            f"{kl.shape}, {bits.shape} and {best.shape}."
        )
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
    logits = as_array(gate_logits, ("iteration",), name="gate_logits").astype(np.float64)
    # log(1 - sigmoid(g)) = -log(1 + e^g), which does not round to zero.
    with np.errstate(invalid="ignore"):  # NaN where nothing ran
        inside = -np.logaddexp(0, logits)
        leaving = np.exp(-np.logaddexp(0, -logits))
    return {
        "gate": np.cumsum(inside, axis=-1),
        "act": np.cumsum(leaving, axis=-1),
    }
