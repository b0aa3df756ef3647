"""What the model says after each iteration, boiled down to a few numbers a token.

Storing the logits themselves would cost the vocabulary times the states; these are the statistics
that the analyses need. All logarithms are natural, all values in nats.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from looplens.models.protocol import LoopedModel


def readout_statistics(
    model: LoopedModel,
    states: Float[Tensor, "row pos iteration_and_initial d_model"],
    targets: Int[Tensor, "row pos"],
    top_k: int,
    *,
    iterations: int,
) -> dict[str, Tensor]:
    """Read out every state of the loop.

    Parameters
    ----------
    model : LoopedModel
        Its ``readout`` is applied to the states of iterations 1..T.
    states : Float[Tensor, "row pos iteration+1 d_model"]
        The loop state; index 0 is the initial state.
    targets : Int[Tensor, "row pos"]
        The token to predict at each position, -1 for none.
    top_k : int
        How many of the most probable tokens to keep.
    iterations : int
        Passes that the model was asked for.

    Returns
    -------
    dict of str to Tensor
        ``topk_ids``, ``topk_logprobs`` (row, pos, iteration, rank); ``entropy``,
        ``target_logprob`` (NaN without target), ``target_rank`` (0 is the best, -1 without target),
        ``kl_to_previous`` = KL(p_{t-1} || p_t) (NaN at iteration 1) and
        ``kl_to_last`` = KL(p_T || p_t), each (row, pos, iteration).
    """
    ran = states.shape[2] - 1
    shape = (*states.shape[:2], ran)
    device = states.device
    kept = {
        "topk_ids": torch.empty((*shape, top_k), dtype=torch.int32, device=device),
        "topk_logprobs": torch.empty((*shape, top_k), device=device),
        "entropy": torch.empty(shape, device=device),
        "target_logprob": torch.full(shape, torch.nan, device=device),
        "target_rank": torch.full(shape, -1, dtype=torch.int32, device=device),
        "kl_to_previous": torch.full(shape, torch.nan, device=device),
        "kl_to_last": torch.empty(shape, device=device),
    }
    has_target = targets >= 0
    target = targets.clamp(min=0)[..., None].long()

    def logprobs(t: int) -> Tensor:
        return model.readout(states[:, :, t], t, iterations).log_softmax(-1)

    last = logprobs(ran)
    previous = None
    for t in range(1, ran + 1):
        now = last if t == ran else logprobs(t)
        at = (slice(None), slice(None), t - 1)
        top = now.topk(top_k, dim=-1)
        kept["topk_ids"][at], kept["topk_logprobs"][at] = top.indices.int(), top.values
        kept["entropy"][at] = -_expectation(now, now)
        kept["kl_to_last"][at] = _kl(last, now)
        if previous is not None:
            kept["kl_to_previous"][at] = _kl(previous, now)
        score = now.gather(-1, target)
        kept["target_logprob"][at] = score[..., 0].where(has_target, torch.nan)
        rank = (now > score).sum(-1).int()
        kept["target_rank"][at] = rank.where(has_target, torch.full_like(rank, -1))
        previous = now
    return kept


def _expectation(logp: Tensor, values: Tensor) -> Tensor:
    # A token of probability zero contributes nothing, where 0 * -inf would be NaN.
    p = logp.exp()
    return torch.where(p > 0, p * values, torch.zeros_like(p)).sum(-1)


def _kl(logp: Tensor, logq: Tensor) -> Tensor:
    # Rounding can push a vanishing divergence below zero.
    return _expectation(logp, logp - logq).clamp(min=0)
