"""How the prelude's output enters each pass of the loop."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class DiagonalInjection(nn.Module):
    r"""Decay the state channel by channel and add a mapped input.

    .. math:: x = a \odot s + dt \odot (B e), \quad dt = \mathrm{softplus}(dt_{bias}), \quad
              a = \exp(-dt \cdot \exp(A_{log}))

    Every decay lies in (0, 1). It starts at :math:`\sqrt{1/5}`, which with an input of the
    same variance as the rest keeps the variance of the state.

    Parameters
    ----------
    d_model : int
        Width.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        # softplus(dt_bias) = 1 and exp(-exp(A_log)) = sqrt(1/5).
        self.dt_bias = nn.Parameter(torch.full((d_model,), 1.0).expm1().log())
        self.A_log = nn.Parameter(torch.full((d_model,), 5.0).log().div(2).log())
        self.B = nn.Parameter(torch.eye(d_model))

    def decay(self) -> tuple[Float[Tensor, " d_model"], Float[Tensor, " d_model"]]:
        """Return ``a`` and ``dt``, computed in float32."""
        dt = F.softplus(self.dt_bias.float())
        return torch.exp(-dt * self.A_log.float().exp()), dt

    def forward(
        self,
        state: Float[Tensor, "batch pos d_model"],
        injected: Float[Tensor, "batch pos d_model"],
    ) -> Float[Tensor, "batch pos d_model"]:
        """Return what the first layer of the core reads."""
        a, dt = self.decay()
        return a.to(state.dtype) * state + dt.to(state.dtype) * F.linear(injected, self.B)
