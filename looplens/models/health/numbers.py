"""Numbers that tell whether a loop is healthy, each a function of states or logits.

Training logs them and :func:`looplens.health` reports them; which value is too much
is decided in :mod:`looplens.models.health.signs`.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from looplens.models.norms import at_least_float32

States: TypeAlias = Float[Tensor, "*axes pos d_model"]


def token_correlation(
    state: States, real: Bool[Tensor, "*axes pos"] | None = None
) -> Float[Tensor, "*axes"]:
    """Return the mean cosine between the states of two different positions of a sequence.

    NaN for a single position. Where ``real`` is given, only its positions count: no pads.

    References
    ----------
    Geiping et al., arXiv:2502.05171, section 4.3: it went to 1 in a failed run.
    """
    direction = F.normalize(at_least_float32(state), dim=-1)  # [..., pos, d_model]
    positions = direction.new_tensor(state.shape[-2])
    if real is not None:
        direction, positions = direction * real[..., None], real.sum(-1).to(direction.dtype)
    # The squared length of the sum of unit vectors is n plus the sum of all pairwise cosines.
    squared = direction.sum(dim=-2).square().sum(dim=-1)
    pairs = positions * (positions - 1)
    return torch.where(pairs > 0, (squared - positions) / pairs, torch.nan)


def relative_step(state: States, previous: States) -> Float[Tensor, "*axes pos"]:
    """Return the length of a step over the length of the state that it leads to."""
    return at_least_float32(state - previous).norm(dim=-1) / at_least_float32(state).norm(dim=-1)


def radial_share(state: States, previous: States) -> Float[Tensor, "*axes pos"]:
    r"""Return the share of a step that only changes the length of the state.

    With the step :math:`\Delta = s_t - s_{t-1}` and :math:`u = s_{t-1} / |s_{t-1}|` this is
    :math:`\langle \Delta, u \rangle^2 / |\Delta|^2`: 0 for a turn, 1 for growing or shrinking in
    place, ``1 / d_model`` on average for a step in a random direction. NaN without a step, or from
    a state that is zero.

    References
    ----------
    Sharma and Vu, arXiv:2606.24898: a readout that divides by the norm does not see the radial
    part, and a state that grows seems to settle.
    """
    step = at_least_float32(state - previous)
    along = (step * at_least_float32(previous)).sum(-1).square()
    return along / (step.square().sum(-1) * at_least_float32(previous).square().sum(-1))


def masked_loss(
    logits: Float[Tensor, "batch pos d_vocab"], targets: Int[Tensor, "batch pos"]
) -> tuple[Tensor, Tensor]:
    """Return mean cross-entropy (nats) and accuracy over the positions with a target.

    Parameters
    ----------
    logits : Tensor, shape (batch, position, vocabulary)
        Unnormalised log-probabilities.
    targets : Tensor of int64, shape (batch, position)
        The token to predict at each position, -1 for none.
    """
    labelled = targets >= 0
    chosen, wanted = logits[labelled], targets[labelled]
    accuracy = (chosen.argmax(dim=-1) == wanted).float().mean()
    return F.cross_entropy(chosen, wanted), accuracy


def mean_kl(
    logits: Float[Tensor, "batch pos d_vocab"], other: Float[Tensor, "batch pos d_vocab"]
) -> Tensor:
    """Return KL(p || q) in nats, mean over positions, of ``p`` from ``logits`` and ``q``."""
    p, q = at_least_float32(logits).log_softmax(-1), at_least_float32(other).log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).mean()
