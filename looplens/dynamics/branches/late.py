"""Where the loop goes at many gains: late states and the regime that the detector sees in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from looplens.analysis import classify
from looplens.dynamics.branches.families import Family, OfTokens
from looplens.dynamics.branches.gains import Knob
from looplens.dynamics.maps.labelled import Progress

_NUMBERS = 2**24  # of all states that run together, which bounds the memory


@dataclass(frozen=True, kw_only=True, slots=True)
class Late:
    """Late states of runs.

    Attributes
    ----------
    states : Float[ndarray, "token run late d_model"]
        The last ones.
    regime, kind : ndarray of str, shape (token, run)
        Of those; see `looplens.analysis.classify`.
    period, amplitude : Float[ndarray, "token run"]
        Of orbits, in iterations and relative to the norm.
    """

    states: Float[np.ndarray, "token run late d_model"]
    regime: np.ndarray
    kind: np.ndarray
    period: Float[np.ndarray, "token run"]
    amplitude: Float[np.ndarray, "token run"]


def run_sequence(
    knob: Knob,
    start: Float[Tensor, "pos d_model"],
    tokens: list[int],
    gains: Float[np.ndarray, " run"],
    iterations: int,
    keep: int,
) -> Late:
    """Run all tokens of the prompt together at every gain, and look at some of them."""
    most = max(1, _NUMBERS // start.numel())
    parts = []
    for first in range(0, len(gains), most):
        some = torch.as_tensor(gains[first : first + most]).to(start)
        x = start.expand(len(some), -1, -1)
        parts.append(_late(knob, x, some, iterations, keep, tokens))
    states = torch.cat(parts, dim=1)  # late run token d_model
    return _judged(states.permute(2, 1, 0, 3))


def run_tokens(
    family: OfTokens,
    start: Float[Tensor, "token d_model"],
    gains: Float[np.ndarray, " run"],
    iterations: int,
    keep: int,
    progress: Progress = None,
) -> Late:
    """Run every token by itself, the others held still, at every gain."""
    found = []
    for number in range(len(start)):
        rows: Int[Tensor, " run"] = torch.full((len(gains),), number, device=start.device)
        some = torch.as_tensor(gains).to(start)
        x = start[rows]
        found.append(_late(family.rows(rows), x, some, iterations, keep).movedim(0, 1))
        if progress is not None:
            progress(number + 1, len(start))
    return _judged(torch.stack(found))


@torch.no_grad()
def _late(
    moving: Knob | Family,
    x: Tensor,
    gains: Tensor,
    iterations: int,
    keep: int,
    tokens: list[int] | None = None,
) -> Float[Tensor, "late run ..."]:
    move = moving.move if isinstance(moving, Family) else moving
    kept = []
    for left in range(iterations, 0, -1):
        x = move(x, gains)
        if left <= keep:
            kept.append(x if tokens is None else x[:, tokens])
    return torch.stack(kept)


def _judged(states: Float[Tensor, "token run late d_model"]) -> Late:
    values = states.cpu().numpy()
    found = classify(values, source_dtype=str(values.dtype), unit=False, surrogates=0)
    return Late(
        states=values,
        regime=found.regime,
        kind=found.kind,
        period=found.period,
        amplitude=found.amplitude,
    )
