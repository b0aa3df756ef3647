"""How fast two trajectories meet or part, measured on the loop itself, without derivatives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from looplens.dynamics.maps.loop_step import LoopStep
from looplens.dynamics.maps.state_map import length

_PARTS = 4  # of the record, whose scatter gives the error
_BYTES = 2**28  # of the gaps that are followed together
_SKIPPED = 1 / 3  # share of the iterations in which the slowest direction takes over


@torch.no_grad()
def gap_rates(
    step: LoopStep,
    start: Float[Tensor, "pos d_model"],
    positions: Sequence[int],
    *,
    causal: bool,
    iterations: int = 200,
    seed: int = 0,
) -> tuple[Float[np.ndarray, " row"], Float[np.ndarray, " row"]]:
    """Measure the factor by which a small gap between two trajectories changes in an iteration.

    The second trajectory begins beside the first, in the token and those before it. After every
    iteration the gap is brought back to its length, so that it can be followed for ever: it is
    neither lost in rounding nor grows out of the neighbourhood.

    Parameters
    ----------
    step : LoopStep
        The loop.
    start : Float[Tensor, "pos d_model"]
        Where the first trajectory begins.
    positions : sequence of int
        Tokens; what comes after a token is no part of its gap. In a model that is not causal all
        tokens are a part of it, and there is one rate for all.
    causal : bool
        Whether a token sees itself and earlier ones only.
    iterations : int
        The first third is left out.
    seed : int
        Of the direction of the gap.

    Returns
    -------
    rate, error : Float[ndarray, "row"]
        Geometric mean over the iterations, and the standard error from four parts of them.

    References
    ----------
    Benettin, Galgani and Strelcyn, Phys. Rev. A 14 (1976): two neighbouring trajectories, rescaled.
    """
    n_pos = len(start)
    rows = list(positions) if causal else [n_pos - 1]
    size = max(1, _BYTES // (start.numel() * start.element_size()))
    parts = [rows[i : i + size] for i in range(0, len(rows), size)]
    growth = np.concatenate([_growth(step, start, part, iterations, seed) for part in parts], 1)
    means = np.stack([part.mean(0) for part in np.array_split(growth, _PARTS)])
    rate = np.exp(growth.mean(0))
    error = rate * means.std(0, ddof=1) / _PARTS**0.5
    if causal:
        return rate, error
    return np.repeat(rate, len(positions)), np.repeat(error, len(positions))


def _growth(
    step: LoopStep, start: Tensor, rows: list[int], iterations: int, seed: int
) -> Float[np.ndarray, "iteration row"]:
    """Return the logarithm of the growth of every gap."""
    here = torch.arange(len(start), device=start.device)
    seen = (here <= torch.tensor(rows, device=start.device)[:, None])[..., None].to(start)
    draw = torch.Generator().manual_seed(seed)
    gap = torch.randn(start.shape, generator=draw).to(start) * seen
    numbers = torch.finfo(start.dtype)
    near = length((start * seen).flatten(1))
    for other in (length(start.flatten()), torch.tensor(1.0)):  # what rests at zero has no size
        near = torch.where(near > numbers.tiny / numbers.eps, near, other.to(near))
    size = numbers.eps ** (1 / 3) * near
    x, logs, skipped = start[None], [], round(iterations * _SKIPPED)
    for iteration in range(iterations):
        gap = gap * (size / _norm(gap))[:, None, None]
        both = step(torch.cat([x, x + gap]))
        x, gap = both[:1], (both[1:] - both[:1]) * seen
        if iteration >= skipped:
            logs.append((_norm(gap) / size).log())
    return torch.stack(logs).double().cpu().numpy()


def _norm(gap: Tensor) -> Tensor:
    return length(gap.flatten(1)).clamp(min=torch.finfo(gap.dtype).tiny)
