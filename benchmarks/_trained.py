"""The detector on trained models: verdicts from the first iterations, truth from t = 1500 on.

The truth is a direct test that shares nothing with the detector: it looks at the states 1500 to
2048 themselves, and asks whether they stand still, return, or move away.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

import looplens
from looplens.models import LoopedTransformer

Floats = NDArray[np.float64]

LENGTHS = (128, 256, 512)  # iterations that the detector is shown
FIRST, LAST = 1500, 2048
# The bundled models, and the same with the state's half of the adapter times a gain: the same
# weights in other regimes. The model without an adapter is taken as it is.
VARIANTS = (
    ("affine-huginn-mini", "affine", 1.0),
    ("affine-huginn-mini", "affine", 2.5),
    ("affine-huginn-mini", "affine", -1.0),
    ("phop-huginn-mini", "phop", 1.0),
    ("phop-huginn-mini", "phop", 3.0),
    ("phop-huginn-mini", "phop", -1.0),
    ("phop-ouro-mini", "phop", 1.0),
)
STANDS_STILL = 2e-5  # of the norm: a hundred rounding steps of float32
# Of the largest distance from the last state. A tenth is 20 dB, so that a rotation whose period is
# no integer returns as well; over some hundred states chaos does not.
RETURNS = 0.1
DIRECTED = 0.5  # chord over path of a drift


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """States of a model's tokens, and what they do in the end.

    Attributes
    ----------
    name : str
        Model and gain.
    states : ndarray of float32, shape (token, iteration 0..512, d_model)
        What the detector sees, or a beginning of it.
    truth : ndarray of str, shape (token,)
        From iterations 1500 to 2048.
    period : ndarray of float64, shape (token,)
        Lag of the first return of an orbit; NaN elsewhere.
    """

    name: str
    states: NDArray[np.float32]
    truth: NDArray[np.str_]
    period: Floats


@torch.no_grad()
def states_of(
    model: LoopedTransformer, tokens: torch.Tensor, gain: float, *, seen: int, first: int, last: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the first states and the last ones, each of shape (token, iteration, d_model)."""
    if gain != 1:
        model.adapter.weight[:, : model.cfg.d_model] *= gain
    injected = model.embed_tokens(tokens)
    state = model.initial_state(injected, seed=0)
    early, late = [state], []
    for t, after in enumerate(model.iterate(state, injected, last), start=1):
        if t <= seen:
            early.append(after)
        if t >= first:
            late.append(after)
    width = model.cfg.d_model
    return tuple(
        torch.stack(kept, dim=2).float().flatten(0, 1).reshape(-1, len(kept), width).numpy()
        for kept in (early, late)
    )  # type: ignore[return-value]


def truth_of(late: NDArray[np.floating]) -> tuple[NDArray[np.str_], Floats]:
    """Say what long records of late states do, by looking at the states themselves.

    Parameters
    ----------
    late : ndarray, shape (token, iteration, d_model)
        Some hundred states in which no transient is left.

    Returns
    -------
    truth : ndarray of str, shape (token,)
        ``fixed_point`` where no state is further than `STANDS_STILL` of the norm from the last;
        ``orbit`` where at some lag, after having been away by more than half of the largest
        distance, *every* state comes back to within `RETURNS` of that distance; ``slider``
        where the path is straighter than `DIRECTED`; otherwise ``unresolved``.
    period : ndarray of float64, shape (token,)
        The smallest such lag; NaN where there is none.
    """
    found = [_truth(states.astype(np.float64)) for states in late]
    return np.array([truth for truth, _ in found]), np.array([period for _, period in found])


def _truth(states: Floats) -> tuple[str, float]:
    norm = np.linalg.norm(states, axis=-1).mean()
    diameter = np.linalg.norm(states - states[-1], axis=-1).max()
    if diameter < STANDS_STILL * norm:
        return "fixed_point", np.nan
    gone = False
    for lag in range(1, len(states) * 3 // 4):
        apart = np.linalg.norm(states[lag:] - states[:-lag], axis=-1).max()
        if gone and apart < RETURNS * diameter:
            return "orbit", float(lag)
        gone = gone or apart > 0.5 * diameter
    path = np.linalg.norm(np.diff(states, axis=0), axis=-1).sum()
    straight = np.linalg.norm(states[-1] - states[0]) / path
    return ("slider" if straight > DIRECTED else "unresolved"), np.nan


def has_repeated(states: NDArray[np.floating], period: Floats) -> NDArray[np.bool_]:
    """Whether what was seen ends in a turn that repeats the one before it; shape (token,).

    Parameters
    ----------
    states : ndarray, shape (token, iteration, d_model)
        The first states.
    period : ndarray, shape (token,)
        The true periods; of tokens without one the answer is True.

    Notes
    -----
    Before that, no look at the states can tell an orbit from a path on its way to one. The
    tolerance is that of the truth.
    """
    seen = np.ones(len(states), dtype=bool)
    for token in np.flatnonzero(np.isfinite(period)):
        lag = int(period[token])
        if 2 * lag > states.shape[1]:
            seen[token] = False
            continue
        turn, before = states[token, -lag:], states[token, -2 * lag : -lag]
        diameter = np.linalg.norm(turn - turn[-1], axis=-1).max()
        seen[token] = np.linalg.norm(turn - before, axis=-1).max() < RETURNS * diameter
    return seen


def trained(*, prompts: int = 8, seed: int = 11) -> Iterator[Trained]:
    """Run every variant over prompts of its task that it was not trained on."""
    for name, task, gain in VARIANTS:
        model = looplens.load_model(name)
        made = looplens.tasks.get_task(task).prompts(prompts, seed=seed)
        tokens = torch.tensor([prompt.token_ids for prompt in made])
        early, late = states_of(model, tokens, gain, seen=LENGTHS[-1], first=FIRST, last=LAST)
        label = name if gain == 1 else f"{name} x {gain:g}"
        truth, period = truth_of(late)
        yield Trained(name=label, states=early, truth=truth, period=period)
