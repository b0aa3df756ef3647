"""Where the loop goes by itself, and where it goes when some tokens are held still."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from looplens.dynamics.maps.loop_step import LoopStep

FLOOR_STEPS = 64  # machine epsilons of its norm that a state at rest may move in an iteration

States = Float[Tensor, "row pos d_model"]
Path = Float[Tensor, "time row pos d_model"]


@torch.no_grad()
def run_on(
    step: LoopStep,
    start: States,
    iterations: int,
    *,
    keep: int,
    held: Bool[Tensor, "row pos"] | None = None,
) -> tuple[Path, Path]:
    """Iterate; tokens that are held stay where they start.

    Returns
    -------
    states : Float[Tensor, "keep row pos d_model"]
        The last states.
    mapped : Float[Tensor, "keep row pos d_model"]
        Where the map takes the states before them; differs from them in the held tokens only.
    """
    s, states, mapped = start, [], []
    for left in range(iterations, 0, -1):
        found = step(s)
        s = found if held is None else torch.where(held[..., None], start, found)
        if left <= keep:
            states.append(s)
            mapped.append(found)
    return torch.stack(states), torch.stack(mapped)


@torch.no_grad()
def natural(step: LoopStep, start: Float[Tensor, "pos d_model"], most: int, longest: int) -> Path:
    """Run the loop on until it returns, or for `most` iterations; the last 2 `longest` states.

    It has returned when every token comes back to where it was, but for rounding.
    """
    window, done, s = 2 * longest, 0, start[None]
    while True:
        states, _ = run_on(step, s, window, keep=window)
        done, s = done + window, states[-1]
        exact = FLOOR_STEPS * torch.finfo(s.dtype).eps
        if done >= most or np.isfinite(returns(states[:, 0], longest, exact)[0]).all():
            return states[:, 0]


def at_rest(
    before: Float[Tensor, "*row d_model"], after: Float[Tensor, "*row d_model"]
) -> Bool[Tensor, "*row"]:
    """Return which states an iteration moves by no more than rounding."""
    floor = FLOOR_STEPS * torch.finfo(after.dtype).eps * after.norm(dim=-1)
    return (after - before).norm(dim=-1) <= floor


def amplitude(states: Float[Tensor, "time *row d_model"]) -> Float[np.ndarray, "*row"]:
    """Root-mean-square distance from the mean over the root-mean-square norm."""
    spread = (states - states.mean(0)).square().sum(-1).mean(0).sqrt()
    size = states.square().sum(-1).mean(0).sqrt().clamp(min=torch.finfo(states.dtype).tiny)
    return (spread / size).cpu().numpy()


def still_moves(states: Float[Tensor, "time *row d_model"]) -> Bool[np.ndarray, "*row"]:
    """Return which rows move, and do not slow down to half within the second half of the record."""
    half = len(states) // 2
    moving = ~at_rest(states[-2], states[-1]).cpu().numpy()
    return moving & (amplitude(states[half:]) > 0.5 * amplitude(states[:half]))


def returns(
    states: Float[Tensor, "time pos d_model"], longest: int, close: float | None = None
) -> tuple[Float[np.ndarray, " pos"], Float[np.ndarray, " pos"]]:
    """Return after how many iterations a token and all before it are back, and how exactly.

    Parameters
    ----------
    states : Float[Tensor, "time pos d_model"]
        At least twice `longest` of them.
    longest : int
        Longest return that is looked for.
    close : float, optional
        Relative distance that is a return; by default the root of the machine epsilon over 16.

    Returns
    -------
    period : Float[ndarray, "pos"]
        The shortest; NaN without any.
    error : Float[ndarray, "pos"]
        Largest relative distance to the state that many iterations earlier; without a return, the
        smallest over all of them.
    """
    size = states[-1].norm(dim=-1).clamp(min=torch.finfo(states.dtype).tiny)
    if close is None:
        close = math.sqrt(torch.finfo(states.dtype).eps) / 16
    tail = states[longest:]
    apart = [
        ((tail - states[longest - p : -p]).norm(dim=-1).amax(0) / size).cummax(0).values
        for p in range(1, longest + 1)
    ]
    error = torch.stack(apart).cpu().numpy()  # period pos
    back = error <= close
    first: Int[np.ndarray, " pos"] = back.argmax(0)
    found = back.any(0)
    period = np.where(found, first + 1.0, np.nan)
    exact = np.where(found, np.take_along_axis(error, first[None], 0)[0], error.min(0))
    return period, exact
