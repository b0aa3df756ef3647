"""The description of a transformer whose layers loop by themselves: one frozen dataclass."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from looplens.errors import InputError
from looplens.models.config import LoopedConfig, check_keys

MemoryGate = Literal["elementwise", "scalar"]
Halting = Literal["router", "change"]


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaptiveConfig:
    """Shape and arithmetic of an :class:`~looplens.models.adaptive.AdaptiveTransformer`.

    Parameters
    ----------
    d_model, n_heads, d_mlp, d_vocab, n_ctx, n_layers : int
        Width, heads, hidden width of the gated MLP, vocabulary, longest sequence, layers.
    n_kv_heads : int, optional
        Key/value heads; by default ``n_heads``.
    max_steps : int
        How often each layer runs at the most.
    local_slots, global_slots : int
        Memory slots of each layer, and of all together; 0 for no such bank.
    memory_gate : {"elementwise", "scalar"}
        ``sigmoid(W h + c)`` for each channel, or one learned factor.
    halting : {"router", "change"}
        What makes the halting probability: a linear router on the new state and the fraction of
        steps done, or the relative change of the state, ``exp(-change / tau)``.
    halt_threshold : float
        A layer may stop once the largest mass left in the batch is below this.
    scale_start : float
        Where the step scales start, before the softplus. -7 makes an untrained layer nearly the
        identity (about 9e-4); short trainings need a larger one.
    qk_norm : bool
        Normalise queries and keys, without weight, after the rotation.
    rope_theta, norm_eps : float
        Base of the rotary angles; epsilon of RMSNorm.
    tie_embeddings : bool
        The head is the embedding matrix.
    family : str
        Where the architecture comes from.

    Raises
    ------
    InputError
        If the values do not describe a model; the message names the field.
    """

    d_model: int
    n_heads: int
    d_mlp: int
    d_vocab: int
    n_ctx: int
    n_layers: int
    n_kv_heads: int = 0
    max_steps: int = 3
    local_slots: int = 1024
    global_slots: int = 512
    memory_gate: MemoryGate = "elementwise"
    halting: Halting = "router"
    halt_threshold: float = 0.01
    scale_start: float = -7.0
    qk_norm: bool = False
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    tie_embeddings: bool = False
    family: str = "frey"

    def __post_init__(self) -> None:
        for name in ("n_layers", "max_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("local_slots", "global_slots", "halt_threshold"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must not be negative, got {getattr(self, name)}")
        for name, kind in (("memory_gate", MemoryGate), ("halting", Halting)):
            if getattr(self, name) not in get_args(kind):
                raise InputError(
                    f"{name} must be one of {', '.join(get_args(kind))}, got "
                    f"{getattr(self, name)!r}"
                )
        if not self.n_kv_heads:
            object.__setattr__(self, "n_kv_heads", self.n_heads)
        self.layer()  # checks the rest

    @property
    def default_iterations(self) -> int:
        """Steps that a layer runs unless it stops earlier."""
        return self.max_steps

    def layer(self) -> LoopedConfig:
        """Return the description of what one layer is made of."""
        return LoopedConfig(
            d_model=self.d_model,
            n_heads=self.n_heads,
            n_kv_heads=self.n_kv_heads,
            d_mlp=self.d_mlp,
            d_vocab=self.d_vocab,
            n_ctx=self.n_ctx,
            n_core=self.n_layers,
            norm="pre",
            injection="none",
            qk_norm="rotated" if self.qk_norm else "none",
            rope_theta=self.rope_theta,
            norm_eps=self.norm_eps,
            tie_embeddings=self.tie_embeddings,
            default_iterations=self.max_steps,
            family=self.family,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dictionary."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AdaptiveConfig:
        """Build from a plain dictionary.

        Raises
        ------
        InputError
            If a key is unknown or a required one is missing.
        """
        check_keys(cls, values)
        return cls(**values)
