"""What the model says after each iteration, boiled down to a few numbers a token.

Storing the logits themselves would cost the vocabulary times the states; these are the statistics
that the analyses need. All logarithms are natural, all values in nats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

READOUTS = (
    "topk_ids",
    "topk_logprobs",
    "entropy",
    "target_logprob",
    "target_rank",
    "kl_to_previous",
    "kl_to_last",
)


def readout_statistics(
    logits: Callable[[int], Float[Tensor, "*rows d_vocab"]],
    targets: Int[Tensor, "*rows"],
    top_k: int,
    *,
    ran: int,
    kept: Sequence[int],
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Read out the kept states of the loop, one iteration after the other.

    Parameters
    ----------
    logits : callable
        Of an iteration of 1..ran; the logits of the state after it.
    targets : Int[Tensor, "*rows"]
        The token to predict at each position, -1 for none.
    top_k : int
        How many of the most probable tokens to keep.
    ran : int
        Passes that the model ran.
    kept : sequence of int
        The iterations to keep, ascending; those that did not run are left out.

    Yields
    ------
    iteration : int
        One that is kept.
    statistics : dict of str to Tensor
        ``topk_ids``, ``topk_logprobs`` (rows, rank); ``entropy``, ``target_logprob`` (NaN
        without target), ``target_rank`` (0 where it is the first of ``topk_ids``, also among equal
        ones; -1 without target), ``kl_to_previous`` = KL(p_{t-1} || p_t) (NaN at iteration 1) and
        ``kl_to_last`` = KL(p_T || p_t), each (rows). Of logits that are not finite, NaN and -1.
    """
    has_target = targets >= 0
    target = targets.clamp(min=0)[..., None].long()
    last = logits(ran).log_softmax(-1)
    before: tuple[int, Tensor] | None = None
    for t in (t for t in kept if t <= ran):
        previous = None
        if t > 1:
            known = before is not None and before[0] == t - 1
            previous = before[1] if before and known else logits(t - 1).log_softmax(-1)
        now = last if t == ran else logits(t).log_softmax(-1)
        top = now.topk(top_k, dim=-1)
        score = now.gather(-1, target)
        rank = (now > score).sum(-1).int()
        # Of equal scores one alone is the answer: half-precision logits have many.
        rank = rank.where(top.indices[..., 0] == target[..., 0], rank.clamp(min=1))
        ranked = has_target & ~now.isnan().any(-1)
        entropy = -_expectation(now, now)
        nothing = torch.full_like(entropy, torch.nan)
        yield (
            t,
            {
                "topk_ids": top.indices.int(),
                "topk_logprobs": top.values,
                "entropy": entropy,
                "target_logprob": score[..., 0].where(has_target, torch.nan),
                "target_rank": rank.where(ranked, torch.full_like(rank, -1)),
                "kl_to_previous": nothing if previous is None else divergence(previous, now),
                "kl_to_last": divergence(last, now),
            },
        )
        before = (t, now)


def _expectation(logp: Tensor, values: Tensor) -> Tensor:
    # A token of probability zero contributes nothing, where 0 * -inf would be NaN.
    p = logp.exp()
    return torch.where(p == 0, torch.zeros_like(p), p * values).sum(-1)


def divergence(logp: Tensor, logq: Tensor) -> Tensor:
    """Return KL(p || q) of log-probabilities (..., d_vocab), in nats; never below 0."""
    # Rounding can push a vanishing divergence below zero.
    return _expectation(logp, logp - logq).clamp(min=0)
