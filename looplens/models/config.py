"""The description of a looped transformer: one frozen dataclass, from which everything is built.

It holds what changes the arithmetic and nothing else; it knows no tensors and no file formats.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from looplens.errors import InputError, near_matches

Norm = Literal["pre", "post", "sandwich", "huginn"]
Injection = Literal["none", "add", "linear", "diagonal"]
InitialStateScheme = Literal["noise", "embedding", "prelude", "zeros"]
RopeStyle = Literal["half_split", "adjacent"]
RopeScaling = Literal["none", "linear", "llama3"]
QKNorm = Literal["none", "head", "projection", "rotated"]
MLPKind = Literal["swiglu", "relu2"]

_CHOICES = {
    "norm": Norm,
    "injection": Injection,
    "initial_state": InitialStateScheme,
    "rope_style": RopeStyle,
    "rope_scaling": RopeScaling,
    "qk_norm": QKNorm,
    "mlp": MLPKind,
}


def check_keys(config: type, values: Mapping[str, Any]) -> None:
    """Hold a plain dictionary against the fields of a configuration dataclass.

    Raises
    ------
    InputError
        If a key is unknown or a required one is missing; nothing is silently dropped.
    """
    fields = {field.name: field.default for field in dataclasses.fields(config)}
    for key in values:
        if key not in fields:
            raise InputError(f"unknown model configuration key {key!r}.{near_matches(key, fields)}")
    missing = [k for k, v in fields.items() if v is dataclasses.MISSING and k not in values]
    if missing:
        raise InputError(f"the model configuration lacks {', '.join(missing)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopedConfig:
    r"""The shape and the arithmetic of a :class:`~looplens.models.LoopedTransformer`.

    With ``P`` the prelude, ``R`` the core and ``C`` the coda::

        e = prelude_norm(P(embed(tokens)));   s_0 = initial state
        s_t = loop_norm(R(inject(s_{t-1}, e)))          for t = 1..T
        logits_t = unembed(final_norm(C(coda_norm(readout_map(s_t)))))

    Parameters
    ----------
    d_model, n_heads, d_mlp, d_vocab, n_ctx : int
        Width, query heads, hidden width of the MLP, vocabulary, longest sequence.
    n_kv_heads, d_head : int, optional
        Key/value heads (grouped-query attention) and head width; by default ``n_heads`` and
        ``d_model // n_heads``.
    n_prelude, n_core, n_coda : int
        Layers before, inside and after the loop.
    norm : {"pre", "post", "sandwich", "huginn"}
        Where RMSNorm sits. ``pre``: ``x + f(norm(x))``. ``post``: ``x + norm(f(x))``, as in
        OLMo-2. ``sandwich``: ``x + norm(f(norm(x)))``, on the branch, as in Ouro. ``huginn``:
        ``norm(x + f(norm(x)))``, outside the residual.
    injection : {"none", "add", "linear", "diagonal"}
        How ``e`` enters each iteration: not at all, ``s + e``, ``W [s; e]``, or with a learned
        decay per channel, ``a * s + dt * (B e)`` with ``dt = softplus(dt_bias)`` and
        ``a = exp(-dt * exp(A_log))``.
    first_injection : bool
        Inject in the first iteration too; otherwise that one runs the core on ``s_0`` as it is.
    initial_state : {"noise", "embedding", "prelude", "zeros"}
        What the loop starts from.
    initial_state_std : float
        Standard deviation of ``noise``, a normal truncated at three standard deviations.
    loop_norm : bool
        Normalise at the loop boundary; the normalised state is fed back (Ouro).
    coda_norm, final_norm : bool
        Normalise before the coda and before the head. All three share one weight vector, as in
        the published models.
    prelude_norm : bool
        Normalise what the prelude hands to the loop, with a weight vector of its own.
    readout_map : bool
        A learned square matrix in front of the coda.
    rope_style : {"half_split", "adjacent"}
        Which components rotate together: ``(i, i + d_head/2)`` or ``(2i, 2i + 1)``.
    rope_theta, norm_eps : float
        Base of the rotary angles; epsilon of RMSNorm.
    rope_scaling : {"none", "linear", "llama3"}
        How rotary frequencies are stretched for long contexts: see
        :func:`~looplens.models.rope.rotary_frequencies`.
    rope_factor, rope_low_freq_factor, rope_high_freq_factor : float
        Parameters of the stretching; the last two are those of ``llama3``.
    rope_original_n_ctx : int
        Context length before stretching, for ``llama3``.
    norm_cast_last : bool
        RMSNorm multiplies by its weight in float32 and casts afterwards (OLMo-2), instead of
        casting first (Huginn, Llama). Makes a difference below float32 only.
    qk_bias, qkv_bias : bool
        Learned bias on queries and keys, one per head; or on all three projections (Qwen2).
    qk_norm : {"none", "head", "projection", "rotated"}
        RMSNorm of queries and keys: none; per head, with a weight (Qwen3); over the whole
        projection, with a weight (OLMo-2); per head without weight, after the rotation and with
        the machine epsilon of float32 (Parcae).
    mlp : {"swiglu", "relu2"}
        ``W_down(silu(W_gate x) * (W_up x))``, or ``W_down(relu(W_up x)**2 / 2)``.
    value_embeddings : tuple of int
        Layers, counted through prelude, core and coda, whose attention values get a gated
        embedding of the token added: ``v + 2 sigmoid(W x[:width]) * E[token]`` with a gate a
        key/value head. In a core layer it enters in every iteration.
    value_gate_width : int
        How many leading channels of the normalised layer input that gate reads.
    exit_gate : bool
        A learned linear exit gate on the state (Ouro): ``model.gate(state)``.
    exit_threshold : float
        Cumulative exit probability at which the published model leaves the loop.
    logit_softcap : float
        ``c * tanh(logits / c)``; 0 for none.
    tie_embeddings : bool
        The head is the embedding matrix.
    embedding_scale : float
        Factor on the token embeddings.
    default_iterations : int
        Depth used when a call names none; for a trained model the recommended depth.
    family : str
        Where the architecture comes from.

    Raises
    ------
    InputError
        If the values do not describe a model; the message names the field.

    References
    ----------
    .. [1] Geiping et al., "Scaling up Test-Time Compute with Latent Reasoning: A Recurrent Depth
       Approach", arXiv:2502.05171, section 3 (prelude, core, coda; injection; sandwich blocks).
    .. [2] Zhu et al., "Scaling Latent Reasoning via Looped Language Models", arXiv:2510.25741,
       section 3 (Ouro: norm on the branch, normalised state fed back).
    .. [3] OLMo team, "2 OLMo 2 Furious", arXiv:2501.00656, section 3 (norm after the branch,
       norm of queries and keys).
    """

    d_model: int
    n_heads: int
    d_mlp: int
    d_vocab: int
    n_ctx: int
    n_kv_heads: int = 0
    d_head: int = 0
    n_prelude: int = 0
    n_core: int = 1
    n_coda: int = 0
    norm: Norm = "huginn"
    injection: Injection = "linear"
    initial_state: InitialStateScheme = "noise"
    initial_state_std: float = 1.0
    loop_norm: bool = False
    coda_norm: bool = True
    final_norm: bool = True
    rope_style: RopeStyle = "half_split"
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6
    qk_bias: bool = False
    tie_embeddings: bool = True
    embedding_scale: float = 1.0
    default_iterations: int = 8
    family: str = "looplens"
    first_injection: bool = True
    prelude_norm: bool = False
    readout_map: bool = False
    rope_scaling: RopeScaling = "none"
    rope_factor: float = 1.0
    rope_low_freq_factor: float = 1.0
    rope_high_freq_factor: float = 4.0
    rope_original_n_ctx: int = 8192
    norm_cast_last: bool = False
    qkv_bias: bool = False
    qk_norm: QKNorm = "none"
    mlp: MLPKind = "swiglu"
    value_embeddings: tuple[int, ...] = ()
    value_gate_width: int = 32
    exit_gate: bool = False
    exit_threshold: float = 1.0
    logit_softcap: float = 0.0

    def __post_init__(self) -> None:
        # JSON has no tuples.
        object.__setattr__(self, "value_embeddings", tuple(self.value_embeddings))
        # 0 stands for "derived", so that a stored config always holds the numbers in use.
        if not self.n_kv_heads:
            object.__setattr__(self, "n_kv_heads", self.n_heads)
        if not self.d_head and self.n_heads > 0:
            if self.d_model % self.n_heads:
                raise InputError(
                    f"d_model must be a multiple of n_heads when d_head is not given, got "
                    f"d_model={self.d_model}, n_heads={self.n_heads}"
                )
            object.__setattr__(self, "d_head", self.d_model // self.n_heads)
        self._check()

    def _check(self) -> None:
        positive = ("d_model", "n_heads", "n_kv_heads", "d_head", "d_mlp", "d_vocab", "n_ctx")
        for name in (*positive, "n_core", "default_iterations"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("n_prelude", "n_coda"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in (
            *("rope_theta", "norm_eps", "initial_state_std", "embedding_scale"),
            *("rope_factor", "rope_low_freq_factor", "rope_original_n_ctx"),
        ):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be positive, got {getattr(self, name)}")
        if self.logit_softcap < 0:
            raise InputError(f"logit_softcap must not be negative, got {self.logit_softcap}")
        if self.n_heads % self.n_kv_heads:
            raise InputError(
                f"n_heads must be a multiple of n_kv_heads, got {self.n_heads} and "
                f"{self.n_kv_heads}"
            )
        if self.d_head % 2:
            raise InputError(f"d_head must be even for rotary positions, got {self.d_head}")
        for name, kind in _CHOICES.items():
            options = get_args(kind)
            if getattr(self, name) not in options:
                raise InputError(
                    f"{name} must be one of {', '.join(options)}, got {getattr(self, name)!r}"
                )
        if (
            self.rope_scaling == "llama3"
            and self.rope_high_freq_factor <= self.rope_low_freq_factor
        ):
            raise InputError(
                "rope_high_freq_factor must be greater than rope_low_freq_factor, got "
                f"{self.rope_high_freq_factor} and {self.rope_low_freq_factor}"
            )
        self._check_value_embeddings()

    def _check_value_embeddings(self) -> None:
        outside = [layer for layer in self.value_embeddings if not 0 <= layer < self.n_layers]
        if outside:
            raise InputError(
                f"value_embeddings names layer {outside[0]}, but there are {self.n_layers} layers "
                "(counted from 0 through prelude, core and coda)"
            )
        if self.value_embeddings and not 1 <= self.value_gate_width <= self.d_model:
            raise InputError(
                f"value_gate_width must lie in 1..{self.d_model} (d_model), got "
                f"{self.value_gate_width}"
            )

    @property
    def n_layers(self) -> int:
        """Layers that exist, each counted once."""
        return self.n_prelude + self.n_core + self.n_coda

    @property
    def effective_depth(self) -> int:
        """Layers passed through at the default number of iterations."""
        return self.n_prelude + self.n_core * self.default_iterations + self.n_coda

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dictionary."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LoopedConfig:
        """Build from a plain dictionary.

        Raises
        ------
        InputError
            If a key is unknown or a required one is missing; nothing is silently dropped.
        """
        check_keys(cls, values)
        return cls(**values)
