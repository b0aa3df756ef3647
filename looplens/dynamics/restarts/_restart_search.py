"""Going through a loop with gradients, and down along them to an initial state that ends elsewhere.

Which states are compared, and what is reported, is in `looplens.dynamics.restarts.adversarial`.
"""

from __future__ import annotations

from math import inf, isfinite
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from looplens.errors import SiteError
from looplens.models.native import NativeLoop
from looplens.models.protocol import STATE, LoopedModel

STAGES = (8, 4, 2, 1)  # the iterations are divided by these


class Runs:
    """Runs of one prompt from different initial states, compared with the reference."""

    def __init__(
        self, looped: LoopedModel, ids: Int[Tensor, "1 pos"], aim: list[Tensor], iterations: int
    ) -> None:
        self.looped, self.ids, self.aim, self.iterations = looped, ids, aim, iterations
        self.target = limit_of(aim[: iterations + 1])

    def alignment(self, state: Tensor, iterations: int) -> Tensor:
        """Return the cosine of the end after some iterations and the limit of the reference.

        With a gradient where the state has one.
        """
        states = states_from(self.looped, self.ids, state, iterations)
        found = limit_of(states)
        if state.requires_grad and not found.requires_grad:
            raise SiteError(
                f"no gradient comes through the loop of {self.looped.model_name}: its code turns "
                "gradients off, or does not start from the state that it is given. Use a model "
                "that can be trained through its initial state."
            )
        return F.cosine_similarity(found.flatten(), self.target.flatten(), dim=0)

    def compare(self, state: Tensor, iterations: int) -> tuple[float, Tensor, float | None]:
        """Return alignment, that of every position, and agreement of the predictions."""
        states = states_from(self.looped, self.ids, state, iterations)
        found, target = limit_of(states), limit_of(self.aim[: iterations + 1])
        whole = float(F.cosine_similarity(found.flatten(), target.flatten(), dim=0))
        each = F.cosine_similarity(found[0], target[0], dim=-1)
        if not self.looped.has_readout:
            return whole, each, None
        said, aimed = (
            self.looped.readout(last, iterations, iterations).argmax(-1)
            for last in (states[-1], self.aim[iterations])
        )
        return whole, each, float((said == aimed).double().mean())


def search(
    runs: Runs, start: Tensor, method: str, steps: int, learning_rate: float | None
) -> tuple[Tensor, list[float]]:
    """Minimise the alignment, stage by stage; return the worst state of all stages."""
    count = runs.iterations
    history: list[float] = []
    found = [start]
    for horizon in sorted({runs.looped.check_iterations(max(1, count // n)) for n in STAGES}):
        found.append(_stage(runs, found[-1], horizon, method, steps, learning_rate, history))
    with torch.no_grad():
        ends = [float(runs.alignment(state, count)) for state in found]
    # A state from which the loop is not finite has no limit, and is not what is looked for.
    known = [end if isfinite(end) else inf for end in ends]
    return found[known.index(min(known))], history


def _stage(
    runs: Runs,
    start: Tensor,
    horizon: int,
    method: str,
    steps: int,
    learning_rate: float | None,
    history: list[float],
) -> Tensor:
    """Minimise the alignment after some iterations over directions of the initial state."""
    norm = start.norm(dim=-1, keepdim=True)
    # In units of its norm, so that one learning rate serves all models.
    free = (start / norm).clone().requires_grad_(True)
    worst, least, scale = start, float("inf"), 0.0

    def evaluate() -> Tensor:
        nonlocal worst, least, scale
        with torch.enable_grad():
            state = free / free.norm(dim=-1, keepdim=True) * norm
            alignment = runs.alignment(state, horizon)
            (gradient,) = torch.autograd.grad(alignment, free)
        # A contracting loop leaves a tiny gradient: in units of the first one, it is followed.
        size = float(gradient.norm())
        scale = scale or (1 / size if size > 0 else 0.0)
        free.grad = gradient * scale
        history.append(float(alignment.detach()))
        if history[-1] < least:
            worst, least = state.detach().clone(), history[-1]
        return alignment.detach() * scale

    if method == "lbfgs":
        optimiser = torch.optim.LBFGS(
            [free],
            lr=1.0 if learning_rate is None else learning_rate,
            max_iter=steps,
            tolerance_change=1e-12,
            line_search_fn="strong_wolfe",
        )
        optimiser.step(evaluate)
    else:
        rate = 0.05 if learning_rate is None else learning_rate
        adam = torch.optim.Adam([free], lr=rate, eps=1e-12)
        for _ in range(steps):
            adam.step(evaluate)
        evaluate()
    return worst


def states_from(
    looped: LoopedModel, ids: Int[Tensor, "1 pos"], start: Any, iterations: int
) -> list[Tensor]:
    """Run one prompt and return the states of iterations 0..T, with their gradients."""
    states: dict[int, Tensor] = {}
    hooked: Any = looped.model if isinstance(looped, NativeLoop) else looped

    def first(iteration: int, value: Tensor) -> None:
        if iteration == 0:
            states[0] = value.clone()

    def keep(value: Tensor, hook: Any) -> None:
        # Listeners of a wrapped model get states without their gradients; hooks get them as they
        # are. Foreign code may go on to write into a tensor, hence the copy.
        states[max(states) + 1] = value.clone()

    with hooked.hooks(fwd_hooks=[("hook_state", keep)]):
        ran = looped.run_loop(ids, (start,), iterations, {STATE: first})
    if ran != iterations:
        raise SiteError(
            f"{looped.model_name} left the loop after {ran} of {iterations} iterations; limits can "
            "be compared only where it runs all of them. Turn its early exit off."
        )
    return [states[iteration] for iteration in range(iterations + 1)]


def limit_of(states: list[Tensor]) -> Float[Tensor, "1 pos d_model"]:
    """Return the mean of the last quarter of the states."""
    last = max(1, len(states) // 4)
    return torch.stack(states[-last:]).mean(0).float()
