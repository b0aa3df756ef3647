"""The state that a loop starts from, always explicit and always reproducible.

Noise depends on the seed and the position alone, so that a prompt sees the same draw on its own,
in a batch, as a prefix of a longer prompt, and on every device.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from looplens.errors import InputError, near_matches
from looplens.models.config import LoopedConfig
from looplens.models.inputs import whole_number

SCHEMES = ("noise", "embedding", "prelude", "zeros", "perturbed")
RANDOM_SCHEMES = ("noise", "perturbed")
PERTURBATION = 0.1
TRUNCATION = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class InitialState:
    """How to make the initial state.

    Parameters
    ----------
    scheme : str
        ``noise`` (truncated normal), ``zeros``, ``embedding`` (token embeddings), ``prelude`` (the
        prelude's output), or ``perturbed``: the model's own fixed start plus noise.
    scale : float
        For ``noise`` the standard deviation; for ``perturbed`` the root mean square of the
        noise relative to that of the start (each token's own).
    seed : int
        Seed of the draw; without effect on schemes that draw nothing.

    Raises
    ------
    InputError
        If the scheme is unknown or the scale not positive.
    """

    scheme: str
    scale: float
    seed: int = 0

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise InputError(
                f"unknown initial state {self.scheme!r}: expected one of {', '.join(SCHEMES)}."
                + near_matches(self.scheme, SCHEMES)
            )
        if not self.scale > 0:
            raise InputError(f"the scale of an initial state must be positive, got {self.scale}")
        object.__setattr__(self, "seed", whole_number(self.seed, "the seed", least=0))

    @property
    def is_random(self) -> bool:
        """Whether another seed gives another state."""
        return self.scheme in RANDOM_SCHEMES

    @classmethod
    def parse(
        cls, value: str | int | InitialState | None, cfg: LoopedConfig, *, seed: int = 0
    ) -> InitialState:
        """Read ``None`` (the model's own), a scheme name, ``"scheme:scale"`` or a seed.

        Raises
        ------
        InputError
            If the value is not one of these, or a seed is given to a model whose start is fixed.
        """
        if isinstance(value, InitialState):
            return value
        if isinstance(value, bool) or not (
            value is None or isinstance(value, str | int | np.integer)
        ):
            raise InputError(
                "initial_state must be a tensor, a seed, or one of "
                f"{', '.join(SCHEMES)}; got {type(value).__name__}"
            )
        if isinstance(value, int | np.integer):
            if cfg.initial_state not in RANDOM_SCHEMES:
                raise InputError(
                    f"initial_state={value} is a seed, but this model starts from its "
                    f"{cfg.initial_state}, which draws nothing. Pass initial_state='perturbed' or "
                    "'noise' to start from random states."
                )
            seed, value = int(value), None
        scheme, _, scale = (value or cfg.initial_state).partition(":")
        default = PERTURBATION if scheme == "perturbed" else cfg.initial_state_std
        try:
            return cls(scheme=scheme, scale=float(scale) if scale else default, seed=seed)
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"expected a number behind ':' in initial_state={value!r}") from None


def noise(seed: int, positions: int, d_model: int) -> Float[Tensor, "pos d_model"]:
    """Draw a standard normal truncated at three standard deviations.

    Row ``p`` depends on ``seed`` and ``p`` alone: a longer draw begins with the shorter one.
    """
    uniform = torch.from_numpy(np.random.default_rng(seed).random((positions, d_model)))
    edge = torch.special.ndtr(torch.tensor(-TRUNCATION, dtype=torch.float64))
    return torch.special.ndtri(edge + uniform * (1 - 2 * edge)).float()


def make_initial_state(
    spec: InitialState,
    default_scheme: str,
    *,
    embedding: Float[Tensor, "batch pos d_model"],
    injected: Float[Tensor, "batch pos d_model"],
    positions: Int[Tensor, "batch pos"] | None = None,
) -> Float[Tensor, "batch pos d_model"]:
    """Make the state that ``spec`` describes, for a batch.

    ``positions`` says which position of the draw each token takes; by default that of its place.
    Every row of the batch gets the same draw: restarts differ by seed, not by row.
    """
    if spec.scheme == "embedding":
        return embedding
    if spec.scheme == "prelude":
        return injected
    if spec.scheme == "zeros":
        return torch.zeros_like(injected)
    draw = noise(spec.seed, injected.shape[1], injected.shape[2]).to(injected)
    if positions is not None:
        draw = draw[positions]
    if spec.scheme == "noise":
        return (spec.scale * draw).expand_as(injected)
    # "perturbed": around the model's own start; a random or zero start has no scale of its own.
    start = embedding if default_scheme == "embedding" else injected
    size = start.square().mean(-1, keepdim=True).sqrt()
    if default_scheme == "zeros":
        return spec.scale * size * draw
    return start + spec.scale * size * draw


def as_given(
    state: Tensor, injected: Float[Tensor, "batch pos d_model"]
) -> Float[Tensor, "batch pos d_model"]:
    """Return a state that the caller made, broadcast over the batch.

    Raises
    ------
    InputError
        If its shape does not fit.
    """
    try:
        return state.to(injected).expand_as(injected)
    except RuntimeError:
        raise InputError(
            f"initial_state of shape {tuple(state.shape)} does not broadcast to "
            f"{tuple(injected.shape)} (batch, pos, d_model)"
        ) from None
