"""Huginn's exit criteria: leave when one more iteration no longer changes anything.

They need no training. Defaults are those of the public code [1]_; the paper's KL threshold is 5e-4
(section 6.1 of [2]_). The public code averages the two criteria on states over the positions of
a prompt and looks at the last position for the others; here every token is judged on its own, which
is the same while decoding token by token.

References
----------
.. [1] https://github.com/seal-rg/recurrent-pretraining, ``recpre/raven_modeling_minimal.py``,
   exit evaluators.
.. [2] Geiping et al., "Scaling up Test-Time Compute with Latent Reasoning: A Recurrent Depth
   Approach", arXiv:2502.05171.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from looplens.errors import InputError
from looplens.thinking.rules import ExitRule, Observation, Reads


class _Below(ExitRule):
    """Leave when the value falls below ``threshold``; NaN never does."""

    __slots__ = ()
    threshold: float

    def __post_init__(self) -> None:
        if not self.threshold > 0:
            raise InputError(f"the exit threshold must be positive, got {self.threshold}")

    def fires(self, value: Float[Tensor, ...]) -> Bool[Tensor, ...]:
        """Tell where the value is below the threshold."""
        return value < self.threshold


class _BetweenStates(_Below):
    """Compares each state with the one before, the first with the initial state."""

    __slots__ = ()
    reads: ClassVar[Reads] = "state"

    def begin(self, initial_state: Tensor) -> Tensor:
        """Remember the initial state."""
        return initial_state.float()

    def advance(self, memory: Tensor, seen: Observation) -> tuple[Tensor, Tensor]:
        """Compare with the state before."""
        state = seen.state.float()
        return state, self._change(memory, state)

    def _change(self, previous: Tensor, state: Tensor) -> Tensor:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class LatentDifference(_BetweenStates):
    """Leave when ``|s_t - s_{t-1}| / |s_t| < threshold`` (``latent-diff``)."""

    threshold: float = 0.03

    def _change(self, previous: Tensor, state: Tensor) -> Tensor:
        return (state - previous).norm(dim=-1) / state.norm(dim=-1)


@dataclass(frozen=True, kw_only=True)
class CosineDifference(_BetweenStates):
    """Leave when ``1 - cos(s_t, s_{t-1}) < threshold`` (``cosine``)."""

    threshold: float = 1e-3

    def _change(self, previous: Tensor, state: Tensor) -> Tensor:
        # |u - v|^2 / 2 of unit vectors: 1 less a float32 cosine knows no differences below 6e-8.
        one = state / state.norm(dim=-1, keepdim=True)
        other = previous / previous.norm(dim=-1, keepdim=True)
        return (one - other).square().sum(-1) / 2


@dataclass(frozen=True, kw_only=True)
class Acceleration(_Below):
    """Leave when ``|D_t - D_{t-1}| / |s_t| < threshold`` twice in a row (``acceleration``).

    ``D_t = s_t - s_{t-1}``. At the earliest after iteration 3. The published rule [3]_ does not
    divide by the norm of the state (as summarised elsewhere, paper text not read); here it does, as
    the public code of [2]_ does in its diffusion sampler, so that a threshold means the same for
    every model. Its values are the larger of the last two.

    References
    ----------
    .. [3] Pappone, Crisostomi, Rodola, arXiv:2509.23314.
    """

    threshold: float = 0.01
    reads: ClassVar[Reads] = "state"

    def begin(self, initial_state: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        """Remember the initial state, no step, and an acceleration that nothing is known of."""
        nothing = torch.full(initial_state.shape[:-1], torch.nan, device=initial_state.device)
        return initial_state.float(), None, nothing

    def advance(
        self, memory: tuple[Tensor, Tensor | None, Tensor], seen: Observation
    ) -> tuple[tuple[Tensor, Tensor | None, Tensor], Tensor]:
        """Compare this step with the one before."""
        previous, before, last = memory
        state = seen.state.float()
        step = state - previous
        if before is None:
            return (state, step, last), last
        bent = (step - before).norm(dim=-1) / state.norm(dim=-1)
        return (state, step, bent), torch.maximum(bent, last)  # NaN where either is


@dataclass(frozen=True, kw_only=True)
class OutputKL(_Below):
    """Leave when ``KL(p_{t-1} || p_t) < threshold`` nats (``kl``).

    ``p_0`` is uniform, as in the public code, so that a readout that stays uniform leaves at once.
    The paper uses 5e-4. Recordings hold no divergence from the uniform distribution, so the bench
    of :func:`looplens.analysis.exit_iteration` never leaves after iteration 1; the two differ only
    where the best token has at most a probability of ``1 / d_vocab + sqrt(threshold / 2)``.
    """

    threshold: float = 1e-3
    reads: ClassVar[Reads] = "logits"

    def begin(self, initial_state: Tensor) -> Tensor | None:
        """Remember nothing: the vocabulary is not known yet."""
        return None

    def advance(self, memory: Tensor | None, seen: Observation) -> tuple[Tensor, Tensor]:
        """Compare with the output before."""
        logp = self._log_probabilities(_logits(seen))
        if memory is None:
            memory = torch.full_like(logp, -math.log(logp.shape[-1]))
        p = memory.exp()
        # A token of probability zero contributes nothing, where 0 * -inf would be NaN; what is NaN
        # stays it.
        terms = torch.where(p == 0, torch.zeros_like(p), p * (memory - logp))
        return logp, terms.sum(-1)

    def _log_probabilities(self, logits: Tensor) -> Tensor:
        return logits.log_softmax(-1)


@dataclass(frozen=True, kw_only=True)
class MinPKL(OutputKL):
    """Leave when the KL divergence of the outputs that matter is below ``threshold`` (``minp-kl``).

    Probabilities below ``min_p`` times the greatest are replaced by ``1 / d_vocab``, then all are
    normalised again.
    """

    threshold: float = 1e-5
    min_p: float = 0.1

    def _log_probabilities(self, logits: Tensor) -> Tensor:
        p = logits.softmax(-1)
        small = p < self.min_p * p.amax(-1, keepdim=True)
        p = p.masked_fill(small, 1 / p.shape[-1])
        return (p / p.sum(-1, keepdim=True)).log()


@dataclass(frozen=True, kw_only=True)
class EntropyChange(_Below):
    """Leave when the entropy of the output changes by less than ``threshold`` nats.

    ``entropy-diff``; never after the first iteration, which has nothing to compare with.
    """

    threshold: float = 1e-3
    reads: ClassVar[Reads] = "logits"

    def begin(self, initial_state: Tensor) -> Tensor:
        """Remember an entropy that nothing is near."""
        return torch.full(initial_state.shape[:-1], torch.inf, device=initial_state.device)

    def advance(self, memory: Tensor, seen: Observation) -> tuple[Tensor, Tensor]:
        """Compare with the entropy before."""
        logp = _logits(seen).log_softmax(-1)
        p = logp.exp()
        entropy = -torch.where(p == 0, torch.zeros_like(p), p * logp).sum(-1)
        return entropy, (entropy - memory).abs()


@dataclass(frozen=True, kw_only=True)
class ArgmaxStability(ExitRule):
    """Leave when the most probable token has stayed the same ``steps`` times in a row.

    ``argmax-stability``; ``steps`` comparisons, so at the earliest after iteration ``steps + 1``.
    """

    steps: int = 5
    reads: ClassVar[Reads] = "logits"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"steps must be at least 1, got {self.steps}")

    def begin(self, initial_state: Tensor) -> tuple[Tensor, Tensor]:
        """Remember a token that does not exist, stable for no step."""
        nothing = torch.zeros(
            initial_state.shape[:-1], dtype=torch.long, device=initial_state.device
        )
        return nothing - 1, nothing

    def advance(
        self, memory: tuple[Tensor, Tensor], seen: Observation
    ) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Count the iterations without change."""
        previous, stable = memory
        score, best = _logits(seen).max(-1)
        same = (best == previous) & ~score.isnan()
        stable = torch.where(same, stable + 1, torch.zeros_like(stable))
        return (best, stable), stable

    def fires(self, value: Float[Tensor, ...]) -> Bool[Tensor, ...]:
        """Tell where the count is reached."""
        return value >= self.steps


def _logits(seen: Observation) -> Tensor:
    if seen.logits is None:
        raise InputError("this exit rule reads logits: pass Observation(logits=...)")
    return seen.logits.float()
