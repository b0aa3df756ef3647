"""Rotary positions: frequencies, the table of angles, the rotation.

The table is kept in float32 whatever the dtype of the weights: rounded to bfloat16, angles of
distant positions would be off by whole radians.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from looplens.errors import InputError
from looplens.models.norms import at_least_float32

if TYPE_CHECKING:
    from looplens.models.config import LoopedConfig, RopeStyle


def rotary_frequencies(cfg: LoopedConfig) -> Float[Tensor, " half"]:
    r"""Return radians per position, :math:`f_i = \theta^{-2i/d_{head}}`, stretched if asked for.

    ``linear`` divides all by the factor. ``llama3`` keeps frequencies whose wavelength
    :math:`2\pi/f` is below ``C / high``, divides those above ``C / low`` by the factor, and
    interpolates in between, with the context length ``C`` before stretching.

    References
    ----------
    .. [1] Su et al., "RoFormer", arXiv:2104.09864, section 3.2.
    .. [2] Chen et al., "Extending Context Window of Large Language Models via Positional
       Interpolation", arXiv:2306.15595, section 2.3 (linear).
    .. [3] Grattafiori et al., "The Llama 3 Herd of Models", arXiv:2407.21783; formula as in the
       published Llama 3.1 code.
    """
    exponents = torch.arange(0, cfg.d_head, 2, dtype=torch.float64, device="cpu") / cfg.d_head
    frequency = cfg.rope_theta**-exponents
    if cfg.rope_scaling == "linear":
        return frequency / cfg.rope_factor
    if cfg.rope_scaling == "llama3":
        low, high = cfg.rope_low_freq_factor, cfg.rope_high_freq_factor
        turns = cfg.rope_original_n_ctx * frequency / (2 * math.pi)  # C / wavelength
        kept = ((turns - low) / (high - low)).clamp(0, 1)
        return (1 - kept) * frequency / cfg.rope_factor + kept * frequency
    return frequency


class Rotation(ABC):
    """The rotation of some positions; calling it rotates queries or keys."""

    @abstractmethod
    def _rotated(self, y: Tensor) -> Tensor:
        """Rotate in float32 or float64."""

    def __call__(
        self, x: Float[Tensor, "batch pos head d_head"]
    ) -> Float[Tensor, "batch pos head d_head"]:
        """Rotate every pair of components by the angle of its position."""
        return self._rotated(at_least_float32(x)).to(x.dtype)


class HalfSplitRotation(Rotation):
    """Pairs ``(i, i + d_head/2)``; cosines and sines are (pos, half) or (batch, pos, half).

    ``a cos - b sin`` and ``b cos + a sin`` are written as one sum over the whole vector: with its
    halves swapped, times sines whose first half is negative.
    """

    def __init__(self, cos: Tensor, sin: Tensor) -> None:
        self.cos = torch.cat((cos, cos), dim=-1)[..., None, :]  # [..., pos, 1, d_head]
        self.sin = torch.cat((-sin, sin), dim=-1)[..., None, :]

    def _rotated(self, y: Tensor) -> Tensor:
        swapped = y.roll(y.shape[-1] // 2, -1)
        return (y * self.cos).addcmul_(swapped, self.sin)


class AdjacentRotation(Rotation):
    """Pairs ``(2i, 2i + 1)``: complex numbers as they lie, turned by one multiplication."""

    def __init__(self, cos: Tensor, sin: Tensor) -> None:
        self.unit = torch.complex(cos, sin)[..., None, :]  # [..., pos, 1, half]

    def _rotated(self, y: Tensor) -> Tensor:
        pairs = torch.view_as_complex(y.unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * self.unit).flatten(-2)


class RotaryTable:
    """Cosines and sines of every position, moved to where they are asked for.

    Parameters
    ----------
    cos, sin : Float[Tensor, "n_ctx half"]
        The table, in float32.
    style : {"half_split", "adjacent"}
        Which components rotate together: ``(i, i + d_head/2)`` or ``(2i, 2i + 1)``.
    """

    def __init__(
        self,
        cos: Float[Tensor, "n_ctx half"],
        sin: Float[Tensor, "n_ctx half"],
        style: RopeStyle,
    ) -> None:
        self.cos, self.sin = cos, sin
        self.rotation = HalfSplitRotation if style == "half_split" else AdjacentRotation

    @classmethod
    def of(cls, cfg: LoopedConfig) -> RotaryTable:
        """Compute the table of a configuration."""
        positions = torch.arange(cfg.n_ctx, dtype=torch.float64, device="cpu")
        angle = positions[:, None] * rotary_frequencies(cfg)
        return cls(angle.cos().float(), angle.sin().float(), cfg.rope_style)

    @classmethod
    def stored(cls, table: Float[Tensor, "1 n_ctx 1 half 2"], cfg: LoopedConfig) -> RotaryTable:
        """Take the table that a checkpoint stores as (cosine, sine) pairs.

        Raises
        ------
        InputError
            If its shape does not fit the configuration.
        """
        expected = (1, cfg.n_ctx, 1, cfg.d_head // 2, 2)
        if tuple(table.shape) != expected:
            raise InputError(
                f"the stored rotary table has shape {tuple(table.shape)}, expected {expected}"
            )
        cos, sin = table[0, :, 0].float().unbind(-1)
        return cls(cos.contiguous(), sin.contiguous(), cfg.rope_style)

    def at(self, positions: slice | Tensor, device: torch.device) -> Rotation:
        """Return the rotation of these positions, a slice or (batch, pos)."""
        if self.cos.device != device:
            self.cos, self.sin = self.cos.to(device), self.sin.to(device)
        return self.rotation(self.cos[positions], self.sin[positions])
