"""Learned exit rules: a cumulative exit probability (Ouro), a router that adds up (ETD).

Both add up, iteration after iteration, what a small linear map says of the state, and leave when
the sum reaches a threshold. Training them is not done here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from looplens.errors import InputError
from looplens.thinking.gates import check_quantile, first_true, reaches
from looplens.thinking.rules import ExitRule, Observation, Reads

ROUND_OFF = 1e-6


@dataclass(frozen=True, kw_only=True)
class GateThreshold(ExitRule):
    """Leave when the cumulative exit probability ``1 - S_t`` reaches ``q`` (Ouro's Q-exit).

    Its values are ``log S_t``. Equal to :func:`~looplens.thinking.gates.threshold_exit`, step by
    step.

    References
    ----------
    Zhu et al., arXiv:2510.25741, section 3.2.
    """

    q: float
    reads: ClassVar[Reads] = "gate_logits"

    def __post_init__(self) -> None:
        check_quantile(self.q)

    def begin(self, initial_state: Tensor) -> Tensor:
        """Everything is still inside."""
        return torch.zeros(
            initial_state.shape[:-1], dtype=torch.float64, device=initial_state.device
        )

    def advance(self, memory: Tensor, seen: Observation) -> tuple[Tensor, Tensor]:
        """Let the gate's share leave."""
        if seen.gate_logits is None:
            raise InputError("this exit rule reads the gate: pass Observation(gate_logits=...)")
        left = memory + F.logsigmoid(-seen.gate_logits.double())
        return left, left

    def fires(self, value: Float[Tensor, ...]) -> Bool[Tensor, ...]:
        """Tell where enough has left."""
        return reaches(value, self.q)


class ActRouter(nn.Module):
    """A router in the manner of Adaptive Computation Time: a linear map and a sigmoid.

    Parameters
    ----------
    d_model : int
        Width of the state.
    bias : float
        What the bias starts from; negative values begin with many iterations.

    Notes
    -----
    The weights of the ETD paper were never published: a router is trained, or set by hand.

    References
    ----------
    .. [1] "Encode, Think, Decode", arXiv:2510.07358 (adaptive version).
    .. [2] Graves, "Adaptive Computation Time for Recurrent Neural Networks", arXiv:1603.08983.
    """

    def __init__(self, d_model: int, bias: float = 0.0) -> None:
        super().__init__()
        self.linear = nn.Linear(d_model, 1)
        nn.init.constant_(self.linear.bias, bias)

    def forward(self, state: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch"]:
        """Return the halting weight ``w_t`` of a state, between 0 and 1."""
        return torch.sigmoid(self.linear(state)[..., 0])


def act_exit(
    weights: Float[Tensor, "iteration batch pos"], *, epsilon: float = 0.01, limit: int = 10
) -> Int[Tensor, "batch pos"]:
    """Return the first iteration with ``H_t = w_1 + ... + w_t >= 1 - epsilon``.

    Parameters
    ----------
    weights : Float[Tensor, "iteration batch pos"]
        What :class:`ActRouter` said after each iteration.
    epsilon : float
        What may be missing to 1.
    limit : int
        Iterations after which a token leaves in any case.

    Returns
    -------
    Int[Tensor, "batch pos"]
        Counted from 1. The last state goes on to the decoder, not a weighted sum.

    References
    ----------
    arXiv:2510.07358 (epsilon 0.01, at most 10 iterations).
    """
    _check_halting(epsilon, limit)
    total = weights.double().cumsum(0)[:limit]
    return first_true(_enough(total, epsilon))


@dataclass(frozen=True, kw_only=True)
class ActHalting(ExitRule):
    """Leave when the router's weights add up to ``1 - epsilon``, or after ``limit`` iterations.

    References
    ----------
    arXiv:2510.07358; see :class:`ActRouter` and :func:`act_exit`.
    """

    router: ActRouter
    epsilon: float = 0.01
    limit: int = 10
    reads: ClassVar[Reads] = "state"

    def __post_init__(self) -> None:
        _check_halting(self.epsilon, self.limit)

    def begin(self, initial_state: Tensor) -> tuple[int, Tensor]:
        """Nothing has been added up."""
        zero = torch.zeros(
            initial_state.shape[:-1], dtype=torch.float64, device=initial_state.device
        )
        return 0, zero

    def advance(
        self, memory: tuple[int, Tensor], seen: Observation
    ) -> tuple[tuple[int, Tensor], Tensor]:
        """Add this iteration's weight; at the limit the sum counts as infinite."""
        passes, total = memory[0] + 1, memory[1] + self.router(seen.state).detach().double()
        value = total if passes < self.limit else torch.full_like(total, torch.inf)
        return (passes, total), value

    def fires(self, value: Float[Tensor, ...]) -> Bool[Tensor, ...]:
        """Tell where the sum is reached."""
        return _enough(value, self.epsilon)


def _enough(total: Tensor, epsilon: float) -> Tensor:
    # Weights come in float32: 0.33 three times must reach 0.99.
    return total >= 1 - epsilon - ROUND_OFF


def _check_halting(epsilon: float, limit: int) -> None:
    if not 0 <= epsilon < 1:
        raise InputError(f"epsilon must lie in 0 <= epsilon < 1, got {epsilon}")
    if limit < 1:
        raise InputError(f"limit must be at least 1, got {limit}")
