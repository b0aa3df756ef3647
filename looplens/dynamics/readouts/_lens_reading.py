"""What one lens shows of every state, boiled down to a few numbers a token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from looplens.dynamics.readouts._lens_input import LensInput
from looplens.recording.streaming.readout import divergence

# From residual streams, (batch, token, d_model), to logits or to loop states.
Reading = Callable[[Tensor], Tensor]

LOGIT_BYTES = 2**26  # of logits at once


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What one lens shows: (token, layer, iteration, ...), see `lens`."""

    topk_ids: np.ndarray
    topk_logprobs: np.ndarray
    entropy: np.ndarray
    kl_to_final: np.ndarray
    followed_rank: np.ndarray
    followed_logprob: np.ndarray


def read(
    given: LensInput, reading: Reading, final: Tensor, followed: dict[str, np.ndarray], top_k: int
) -> Part:
    """Hold one lens before every state.

    Parameters
    ----------
    given : LensInput
        The states.
    reading : callable
        The lens: logits of a batch of residual streams.
    final : Tensor, (token, vocabulary)
        Log-probabilities of the model's prediction at the end.
    followed : dict of str to ndarray (token,)
        Ids whose rank is followed, -1 for none.
    top_k : int
        How many of the most probable tokens to keep.
    """
    count, n_layers, n_iterations = given.streams.shape[:3]
    ids = torch.as_tensor(np.stack(list(followed.values())), device=final.device)
    shape = (count, n_layers, n_iterations)
    made = Part(
        topk_ids=np.empty((*shape, top_k), dtype=np.int32),
        topk_logprobs=np.empty((*shape, top_k), dtype=np.float32),
        entropy=np.empty(shape, dtype=np.float32),
        kl_to_final=np.empty(shape, dtype=np.float32),
        followed_rank=np.empty((len(ids), *shape), dtype=np.int32),
        followed_logprob=np.empty((len(ids), *shape), dtype=np.float32),
    )
    for layer, where, streams in given.batches(LOGIT_BYTES // (4 * final.shape[-1])):
        now = reading(streams).log_softmax(-1)  # (iteration, token, vocabulary)
        top = now.topk(top_k, dim=-1)
        made.topk_ids[:, layer, where] = _tokens_first(top.indices)
        made.topk_logprobs[:, layer, where] = _tokens_first(top.values)
        made.entropy[:, layer, where] = _tokens_first(torch.special.entr(now.exp()).sum(-1))
        made.kl_to_final[:, layer, where] = _tokens_first(divergence(final, now))
        for number, wanted in enumerate(ids):
            score = now.gather(-1, wanted.clamp(min=0).expand(len(now), -1)[..., None])
            has = (wanted >= 0) & score[..., 0].isfinite()
            rank = (now > score).sum(-1)
            made.followed_rank[number, :, layer, where] = _tokens_first(rank.where(has, -1))
            known = score[..., 0].where(has, torch.nan)
            made.followed_logprob[number, :, layer, where] = _tokens_first(known)
    return made


def _tokens_first(values: Tensor) -> np.ndarray:
    return values.transpose(0, 1).cpu().numpy()
