"""How fast the recorded motion came to rest, of the same loop run again in more digits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from looplens import analysis
from looplens.dynamics.eigen.running import FLOOR_STEPS, at_rest, run_on
from looplens.dynamics.maps.recorded import Recorded

_MOST, _AT_ONCE = 1024, 64  # iterations in all, and between two looks
_BYTES = 2**28  # of states that are kept
_FEWEST = 7  # steps that a linear map is fitted to
_SKIPPED = 1 / 3  # share of the steps in which the fastest parts die out
_KEPT = 0.9999  # share of the squares of the steps that the fitted modes hold


def replayed_rates(
    found: Recorded, positions: Sequence[int], period: Float[np.ndarray, " pos"]
) -> Float[np.ndarray, " row"]:
    r"""Fit the rate of the slowest mode to the steps of a loop that comes to rest.

    The loop is run again from the first recorded state, in the dtype of the step, and nothing is
    brought back to its length: what is fitted is a recording, with as many digits as there are. The
    steps of a token and all before it, over the line through their logarithms, are taken for a
    linear motion (:func:`looplens.analysis.dmd`); its largest eigenvalue is the rate. So parts that
    die out faster, and complex pairs, are told from the slowest part, as far as the steps above
    rounding show them.

    Parameters
    ----------
    found : Recorded
        The trajectory and its step.
    positions : sequence of int
        Tokens.
    period : Float[ndarray, "pos"]
        Iterations after which a token and those before it return; only those with 1 have a rate.

    Returns
    -------
    Float[ndarray, "row"]
        Rates; NaN where there are fewer than seven steps above rounding.
    """
    rates = np.full(len(positions), np.nan)
    n_pos = found.n_pos
    # All before a token that rests do, and in a model that is not causal either all or none.
    resting = [position for position in positions if (period[: position + 1] == 1).all()]
    if not resting or not (found.causal or (period == 1).all()):
        return rates
    last = max(resting) if found.causal else n_pos - 1
    path = _replayed(found, last + 1).double().cpu().numpy()
    steps, floor = np.diff(path, axis=0), FLOOR_STEPS * torch.finfo(found.states.dtype).eps
    products, squared = np.zeros((len(steps), len(steps))), 0.0
    by_position = {}
    for position in range(last + 1):
        products += steps[:, position] @ steps[:, position].T
        squared += float(path[-1, position] @ path[-1, position])
        if position in resting or position == last:
            by_position[position] = _slowest(products, floor * squared**0.5)
    for row, position in enumerate(positions):
        if position in resting:
            rates[row] = by_position[position if found.causal else last]
    return rates


def _replayed(found: Recorded, count: int) -> Float[Tensor, "time pos d_model"]:
    """Run the loop again until the first `count` tokens rest; the first pass may be another map."""
    first = next((i for i, number in enumerate(found.iterations) if number > 0), 0)
    most = max(_AT_ONCE, min(_MOST, _BYTES // (found.states[0].nbytes)))
    parts = [found.states[first][None]]
    while sum(map(len, parts)) <= most:
        path, _ = run_on(found.step, parts[-1][-1:], _AT_ONCE, keep=_AT_ONCE)
        parts.append(path[:, 0])
        if bool(at_rest(path[-2, 0, :count], path[-1, 0, :count]).all()):
            break
    return torch.cat(parts)[:, :count]


def _slowest(products: Float[np.ndarray, "step step"], floor: float) -> float:
    """Return the largest modulus among the modes of steps whose inner products are given."""
    size = np.sqrt(np.diag(products))
    above = np.flatnonzero(size > floor)
    end = above[-1] + 1 if len(above) else 0
    first = max(0, min(int(end * _SKIPPED), end - _FEWEST))
    if end - first < _FEWEST:
        return float("nan")
    slope = (size[end - 1] / size[first]) ** (1 / (end - 1 - first))
    # Over their line all steps weigh alike; what was J is J / slope then.
    scale = size[first] * slope ** np.arange(end - first)
    balanced = products[first:end, first:end] / scale[:, None] / scale
    squares, vectors = np.linalg.eigh(balanced)
    places = vectors * np.sqrt(np.maximum(squares, 0.0))  # steps in axes of their own
    modes = analysis.dmd(places, rank=_KEPT, on="states", whole=True)
    return float(slope * np.nanmax(np.abs(modes.eigenvalues)))
