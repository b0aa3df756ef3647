"""What a training step minimises: losses over the iterations of a loop, and a regulariser.

Pure functions over cross-entropies of shape (iteration, target) and gate logits of the same shape,
and the two frozen values by which a recipe says which of them it uses. How a batch becomes such
arrays is in ``objective``; the distribution over exits in :mod:`looplens.thinking`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from looplens.errors import InputError
from looplens.models import LoopedTransformer
from looplens.thinking import exit_distribution

LossKind = Literal["last", "every", "expected", "gate"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """Which loss a recipe minimises.

    Attributes
    ----------
    kind : {"last", "every", "expected", "gate"}
        ``last``: cross-entropy after the last iteration. ``every``: its mean over the iterations
        that carry gradient. ``expected``: :func:`expected_exit_loss`, Ouro's first stage.
        ``gate``: :func:`adaptive_gate_loss` of a frozen model, Ouro's second stage.
    entropy : float
        Weight of the entropy of exits in ``expected`` (Ouro: 0.1, then 0.05), at least 0.
    slope, threshold : float
        How much an iteration must improve the cross-entropy, in nats, for ``gate`` to want it,
        and how sharply.

    References
    ----------
    Zhu et al., "Scaling Latent Reasoning via Looped Language Models", arXiv 2510.25741,
    section 3.2 and the training stages.
    """

    kind: LossKind = "last"
    entropy: float = 0.05
    slope: float = 50.0
    threshold: float = 0.005

    def __post_init__(self) -> None:
        if self.kind not in get_args(LossKind):
            raise InputError(
                f"The kind of a loss is one of {', '.join(get_args(LossKind))}; got {self.kind!r}."
            )
        if self.entropy < 0 or self.slope <= 0:
            raise InputError(
                f"A loss needs entropy >= 0 and slope > 0; got {self.entropy} and {self.slope}."
            )

    @property
    def needs_gate(self) -> bool:
        """Whether the model must have an exit gate."""
        return self.kind in ("expected", "gate")

    def __str__(self) -> str:
        return {
            "last": "cross-entropy after the last iteration",
            "every": "mean cross-entropy of the iterations with gradient",
            "expected": f"expected over exits, entropy weight {self.entropy:g}",
            "gate": f"exit gate alone, slope {self.slope:g}, threshold {self.threshold:g}",
        }[self.kind]


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopingRegulariser:
    """Pull layers one block apart towards each other, as if the block were looped.

    Attributes
    ----------
    block : int
        Layers of a block, at least 1.
    strength : float
        What :func:`block_similarity` is multiplied by before it is subtracted from the loss.

    References
    ----------
    Saunshi et al., "Reasoning with Latent Thoughts", arXiv 2502.17416, the looping-inspired
    regularisation (block 4, strengths 1 and 10).
    """

    block: int
    strength: float = 10.0

    def __post_init__(self) -> None:
        if self.block < 1 or self.strength < 0:
            raise InputError(
                f"The looping regulariser needs block >= 1 and strength >= 0; got {self.block} "
                f"and {self.strength}."
            )


def cross_entropies(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of every target after every iteration, in nats.

    Parameters
    ----------
    logits : Tensor, shape (iteration, batch, position, vocabulary)
        Readouts.
    targets : Tensor of int64, shape (batch, position) or (iteration, batch, position)
        The token to predict, -1 for none; the same positions at every iteration.

    Returns
    -------
    Tensor, shape (iteration, target)

    Raises
    ------
    InputError
        When other positions have targets at other iterations.
    """
    each = targets.expand(len(logits), *logits.shape[1:3])
    labelled = each[0] >= 0
    if not torch.equal(each >= 0, labelled.expand_as(each)):
        raise InputError("The same positions must have targets after every iteration.")
    chosen, wanted = logits[:, labelled], each[:, labelled]
    flat = F.cross_entropy(chosen.flatten(0, 1), wanted.flatten(), reduction="none")
    return flat.view(wanted.shape)


def exit_entropy(gate_logits: Tensor) -> Tensor:
    """Return the entropy of the distribution over exits, in nats, shape (target,).

    Between 0 (the gate has collapsed to one exit) and ``log T``.

    Parameters
    ----------
    gate_logits : Tensor, shape (iteration, target)
        Before the sigmoid.
    """
    share = exit_distribution(gate_logits)
    # At 0 the gradient of the entropy is infinite: a sure gate would turn the weights into NaN.
    return torch.special.entr(share.clamp(min=torch.finfo(share.dtype).tiny)).sum(0)


def expected_exit_loss(losses: Tensor, gate_logits: Tensor, entropy: float) -> Tensor:
    r"""Return the expected loss over exits with an entropy bonus, Ouro's first stage.

    .. math:: \frac 1 N \sum_i \Big( \sum_t p_i(t) L_i^{(t)} - \beta H(p_i) \Big)

    Up to a constant this is the negative evidence bound with a uniform prior over exits.

    Parameters
    ----------
    losses, gate_logits : Tensor, shape (iteration, target)
        Cross-entropies in nats, and the gate before its sigmoid.
    entropy : float
        The weight :math:`\beta`.

    References
    ----------
    Zhu et al., arXiv 2510.25741, section 3.2 (stage I).
    """
    expected = (exit_distribution(gate_logits) * losses).sum(0)
    return (expected - entropy * exit_entropy(gate_logits)).mean()


def adaptive_gate_loss(
    losses: Tensor, gate_logits: Tensor, *, slope: float = 50.0, threshold: float = 0.005
) -> Tensor:
    r"""Return the loss of the exit gate of a frozen model, Ouro's second stage.

    With the improvement :math:`I^{(t)} = \max(0, L^{(t-1)} - L^{(t)})`, which carries no gradient,
    and the wish to go on :math:`w = \sigma(k (I - \gamma))`:

    .. math:: - \frac 1 T \sum_{t=2}^{T} \frac 1 N \sum_i
              \big( w \log(1 - \lambda) + (1 - w) \log \lambda \big)

    Parameters
    ----------
    losses, gate_logits : Tensor, shape (iteration, target)
        Cross-entropies in nats, and the gate before its sigmoid.
    slope, threshold : float
        :math:`k` and :math:`\gamma`.

    Raises
    ------
    InputError
        For fewer than two iterations.

    Notes
    -----
    As printed. The gate at iteration 1 has no label of its own, and a wish of
    :math:`\sigma(-k \gamma) = 0.44` remains where an iteration brings nothing, so that a perfect
    gate leaves with at most 0.56 an iteration.

    References
    ----------
    Zhu et al., arXiv 2510.25741, section 3.2 (stage II).
    """
    if len(losses) < 2:
        raise InputError(f"The gate is trained on 2 iterations or more; got {len(losses)}.")
    values = losses.detach()
    improvement = (values[:-1] - values[1:]).clamp(min=0)
    go_on = torch.sigmoid(slope * (improvement - threshold))
    # The logit of going on is that of leaving, negated.
    each = F.binary_cross_entropy_with_logits(-gate_logits[1:], go_on, reduction="none")
    return each.mean(1).sum() / len(losses)


def block_similarity(model: LoopedTransformer, block: int) -> Tensor:
    r"""Return the mean cosine between the weights of layers one block apart, with gradient.

    :math:`R_G(k)` of :meth:`looplens.models.weight_cosine.WeightCosine.one_block_apart`, averaged
    over the groups :math:`G` of weight matrices. A loss subtracts it: similarity is to rise.

    Parameters
    ----------
    model : LoopedTransformer
        Its prelude, core and coda are taken in order.
    block : int
        Layers of a block; the number of layers is a larger multiple of it.

    Raises
    ------
    InputError
        When it is not.

    References
    ----------
    Saunshi et al., arXiv 2502.17416 (there added to the loss as printed; the sign must be this).
    """
    layers = [*model.prelude, *model.core, *model.coda]
    if len(layers) <= block or len(layers) % block:
        raise InputError(
            f"Blocks of {block} layers need a model of {2 * block}, {3 * block}, ... layers; this "
            f"one has {len(layers)}."
        )
    weights = [{n: p for n, p in layer.named_parameters() if p.ndim > 1} for layer in layers]
    groups = [name for name in weights[0] if all(name in other for other in weights)]
    cosines = [
        F.cosine_similarity(one[name].flatten(), other[name].flatten(), dim=0)
        for name in groups
        for one, other in zip(weights, weights[block:], strict=False)
    ]
    return torch.stack(cosines).mean()
