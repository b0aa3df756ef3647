"""How far apart states are, in units of their norm."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def relative(
    gap: Float[Tensor, "*rows d_model"], base: Float[Tensor, "*rows d_model"]
) -> Float[Tensor, "*rows"]:
    """Return |gap| / |base|, in double precision; nothing over nothing is 0."""
    size = base.double().norm(dim=-1).clamp(min=torch.finfo(torch.float64).tiny)
    return gap.double().norm(dim=-1) / size
