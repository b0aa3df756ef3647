"""Root-mean-square norms, with and without a weight. They know nothing of layers or loops."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

MACHINE_EPS = torch.finfo(torch.float32).eps


class RMSNorm(nn.Module):
    """Root-mean-square norm: ``weight * x / sqrt(mean(x**2) + eps)`` over the last axis.

    The mean is taken in float32, or in float64 where the states are. Below float32 the order of
    casting matters: published code casts the normalised vector back and then scales it (Huginn,
    Llama), or scales first (OLMo-2).

    Parameters
    ----------
    d_model : int
        Length of the last axis.
    eps : float
        Added to the mean square.
    cast_last : bool
        Scale in float32 and cast afterwards.
    """

    def __init__(self, d_model: int, eps: float, *, cast_last: bool = False) -> None:
        super().__init__()
        self.eps = eps
        self.cast_last = cast_last
        self.weight = nn.Parameter(torch.ones(d_model))

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """Normalise the last axis."""
        if self.cast_last:
            return scaled(_normalised(x, self.eps), self.weight).to(x.dtype)
        return scaled(_normalised(x, self.eps).to(x.dtype), self.weight)


def at_least_float32(x: Tensor) -> Tensor:
    """Return x in float32, or in float64 where it is: its derivatives are asked for there."""
    return x if x.dtype == torch.float64 else x.float()


def unweighted_rms_norm(
    x: Float[Tensor, "... d"], eps: float = MACHINE_EPS
) -> Float[Tensor, "... d"]:
    """Normalise the last axis without a weight."""
    return _normalised(x, eps).to(x.dtype)


def scaled(fresh: Tensor, factor: Tensor) -> Tensor:
    """Return ``fresh * factor``, written into ``fresh`` where that changes nothing else.

    ``fresh`` must be the caller's own. At the sizes of a batch of prompts a new tensor costs more
    than the multiplication: its pages come from the kernel. Autograd needs both factors later.
    """
    if torch.is_grad_enabled() or fresh.dtype != factor.dtype:
        return fresh * factor
    return fresh.mul_(factor)


def _normalised(x: Tensor, eps: float) -> Tensor:
    y = at_least_float32(x)
    return y * y.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
