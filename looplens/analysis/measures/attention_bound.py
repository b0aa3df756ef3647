r"""Both sides of the bound on the change of attention by the change of what attention sees.

With X the input of attention (token by d_model), W_Q and W_K a head's weights, R the rotations of
the positions and A = X W_Q R W_K^T X^T / sqrt(d_head):

    |softmax A_t - softmax A_{t-1}|_F <= L 2 B kappa / sqrt(d_head) |X_t - X_{t-1}|_F

where L = 1/2 is the Lipschitz constant of softmax, B the larger of |X_t|_F and |X_{t-1}|_F, and
kappa >= |W_Q R W_K^T|_2 for every rotation. Proof: the difference of one score is
dx_i M x_j + x_i M dx_j over sqrt(d_head), so the Frobenius norm of all of them is at most
kappa (|dX| |X_t| + |X_{t-1}| |dX|) over it; each row of softmax shrinks its own by L. Rotations
differ from pair to pair, so that the spectral norm of X would not do for B.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from looplens.analysis.algebra.gram import Floats
from looplens.analysis.algebra.inputs import as_array, whole_number
from looplens.errors import InputError

SOFTMAX_LIPSCHITZ = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionBound:
    """What `attention_bound` measures; ``...`` are the leading axes. Entry i is of iteration i + 2.

    Attributes
    ----------
    measured : ndarray, shape (..., T - 1, head)
        Frobenius norm of the change of the attention map.
    bound : ndarray, shape (..., T - 1, head)
        What it cannot exceed.
    slack : ndarray, shape (..., T - 1, head)
        Bound over measured: 1 where the bound is reached; infinite where only the input moves, NaN
        where nothing does.
    input_step : ndarray, shape (..., T - 1)
        |X_t - X_{t-1}|_F.
    input_norm : ndarray, shape (..., T - 1)
        B, the larger of |X_t|_F and |X_{t-1}|_F; with biases the constant input counts.
    """

    measured: Floats
    bound: Floats
    slack: Floats
    input_step: Floats
    input_norm: Floats


def attention_bound(
    inputs: ArrayLike,
    patterns: ArrayLike,
    kappa: ArrayLike,
    *,
    d_head: int,
    biased: bool = False,
) -> AttentionBound:
    """Compare the change of attention with the most that the change of its input allows.

    Parameters
    ----------
    inputs : array_like, shape (..., iteration, token, d_model)
        What attention sees: after the norm in front of it, where there is one. The norm's weight
        may be left out here if it was counted to the weights in `kappa`.
    patterns : array_like, shape (..., iteration, head, query, key)
        Attention weights of the same iterations, of all tokens.
    kappa : array_like, shape (head,)
        |W_Q R W_K^T|_2 for the worst rotation R, or anything above it such as |W_Q|_2 |W_K|_2.
    d_head : int
        Width of a head.
    biased : bool
        Whether `kappa` counts biases as weights on a constant input of 1.

    Returns
    -------
    AttentionBound
        Both sides, and their ratio.

    Raises
    ------
    InputError
        If the shapes do not fit, there are fewer than two iterations, or `d_head` is no width.

    References
    ----------
    Blayney et al. 2026, arXiv:2604.11791, proposition 4.2, with L = 1/2 by Nair, as summarised in
    public notes; paper text not read. Which norms are meant is our reading (see the top of this
    file), for which the inequality is proved here.
    """
    x = as_array(inputs, ("iteration", "token", "d_model"), name="inputs")
    maps = as_array(patterns, ("iteration", "head", "query", "key"), name="patterns")
    constants = as_array(kappa, ("head",), name="kappa").astype(np.float64)
    iterations, heads = maps.shape[-4:-2]
    wanted = (iterations, maps.shape[-2])
    if x.shape[-3:-1] != wanted or x.shape[:-3] != maps.shape[:-4] or constants.shape != (heads,):
        raise InputError(
            "inputs (..., iteration, token, d_model), patterns (..., iteration, head, query, key) "
            f"and kappa (head,) must agree; got shapes {x.shape}, {maps.shape}, {constants.shape}."
        )
    if iterations < 2:
        raise InputError(f"A change of attention needs at least two iterations; got {iterations}.")
    whole_number(d_head, "d_head", least=1)
    lead = maps.shape[:-4]
    measured = np.empty((*lead, iterations - 1, heads))
    step = np.empty((*lead, iterations - 1))
    square = np.empty((*lead, iterations))
    for t in range(iterations):  # one at a time: patterns are the largest arrays of a run
        now = x[..., t, :, :].astype(np.float64)
        square[..., t] = (now**2).sum((-2, -1)) + (x.shape[-2] if biased else 0)
        if t:
            before = x[..., t - 1, :, :].astype(np.float64)
            step[..., t - 1] = np.sqrt(((now - before) ** 2).sum((-2, -1)))
            with np.errstate(invalid="ignore"):  # of maps that are not finite
                change = maps[..., t, :, :, :].astype(np.float64) - maps[..., t - 1, :, :, :]
            measured[..., t - 1, :] = np.sqrt((change**2).sum((-2, -1)))
    norm = np.sqrt(np.maximum(square[..., 1:], square[..., :-1]))
    gain = SOFTMAX_LIPSCHITZ * 2 * constants / np.sqrt(d_head)
    bound = (norm * step)[..., None] * gain
    with np.errstate(divide="ignore", invalid="ignore"):
        slack = bound / measured
    return AttentionBound(
        measured=measured, bound=bound, slack=slack, input_step=step, input_norm=norm
    )
