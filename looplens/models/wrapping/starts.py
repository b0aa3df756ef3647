"""The initial state of a loop that is not ours: the module's own, or one that we make.

It draws from the same seeded noise as our own models, so a restart can be repeated by its seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from looplens.errors import InputError
from looplens.loops.spec import OWN_START, Start
from looplens.models.initial_state import PERTURBATION, RANDOM_SCHEMES, InitialState, noise
from looplens.models.protocol import StartLike

SCHEMES = ("noise", "zeros", "perturbed")


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnStart:
    """Whatever the module starts from when it is left alone."""

    scheme: str = "own start"
    scale: float = 1.0
    seed: int = 0

    @property
    def is_random(self) -> bool:
        """Whether another seed gives another state."""
        return False


def parse_start(value: Any, declared: Start, *, seed: int = 0) -> StartLike:
    """Read ``None``, ``"own"``, a scheme name, ``"scheme:scale"``, a seed or an InitialState.

    Raises
    ------
    InputError
        If the value is none of these, a seed is given where nothing is drawn, or the declaration
        says of no place where a state could be put.
    """
    if isinstance(value, OwnStart):
        return value
    if isinstance(value, InitialState):
        parsed = value
    elif isinstance(value, bool) or not (value is None or isinstance(value, str | int)):
        raise InputError(
            f"initial_state must be a tensor, a seed, or one of own, {', '.join(SCHEMES)}; got "
            f"{type(value).__name__}"
        )
    else:
        if isinstance(value, int):
            if declared.scheme not in RANDOM_SCHEMES:
                raise InputError(
                    f"initial_state={value} is a seed, but this model starts from its own state, "
                    "which draws nothing here. Pass initial_state='perturbed' or 'noise' to start "
                    "from random states."
                )
            seed, value = value, None
        scheme, _, scale = (value or declared.scheme).partition(":")
        if scheme == OWN_START:
            return OwnStart()
        if scheme not in SCHEMES:
            raise InputError(
                f"unknown initial state {value!r} for a wrapped model: expected own, "
                f"{', '.join(SCHEMES)}, a seed or a tensor"
            )
        default = PERTURBATION if scheme == "perturbed" else declared.std
        try:
            number = float(scale) if scale else default
        except ValueError:
            raise InputError(f"expected a number behind ':' in initial_state={value!r}") from None
        parsed = InitialState(scheme=scheme, scale=number, seed=seed)
    if parsed.scheme not in SCHEMES:
        raise InputError(
            f"a wrapped model cannot start from {parsed.scheme!r}: expected {', '.join(SCHEMES)}"
        )
    return parsed


def make_start(
    spec: StartLike | Tensor,
    shape: tuple[int, int, int],
    own: Callable[[], Float[Tensor, "batch pos d_model"]],
    like: Tensor,
) -> Float[Tensor, "batch pos d_model"]:
    """Make the state that ``spec`` describes, the same draw in every row.

    Parameters
    ----------
    spec : StartLike or Tensor
        What the caller asked for.
    shape : tuple of int
        Rows, positions and width of the state.
    own : callable
        Returns the module's own start; called only where it is needed.
    like : Tensor
        Gives dtype and device.

    Raises
    ------
    InputError
        If a tensor does not broadcast to the shape.
    """
    if isinstance(spec, Tensor):
        try:
            return spec.to(like).expand(shape)
        except RuntimeError:
            raise InputError(
                f"initial_state of shape {tuple(spec.shape)} does not broadcast to {shape} "
                "(batch, pos, d_model)"
            ) from None
    if isinstance(spec, OwnStart):
        return own()
    if spec.scheme == "zeros":
        return torch.zeros(shape, dtype=like.dtype, device=like.device)
    draw = noise(spec.seed, shape[1], shape[2]).to(like)
    if spec.scheme == "noise":
        return (spec.scale * draw).expand(shape)
    start = own()
    return start + spec.scale * start.square().mean(-1, keepdim=True).sqrt() * draw
