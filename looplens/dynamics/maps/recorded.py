"""A trajectory together with the step that made it: where every question of the lab begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from looplens.dynamics.maps.loop_step import LoopStep, loop_step
from looplens.dynamics.maps.step_checks import (
    FAR,
    check_sizes,
    check_weights,
    is_causal,
    largest_mismatch,
    step_mismatch,
    steps_between,
)
from looplens.errors import AnalysisError, InputError
from looplens.models.native import as_looped
from looplens.recording.tracing import trace
from looplens.store.reading.selection import checked_index
from looplens.store.reading.stored import StoredRun


@dataclass(frozen=True, kw_only=True, slots=True)
class Recorded:
    """One prompt's trajectory from one start, and the step of the loop.

    Attributes
    ----------
    step : LoopStep
        The map.
    states : Float[Tensor, "iteration pos d_model"]
        Recorded states, in the dtype of the step.
    iterations : tuple of int
        Their numbers; 0 is the initial state.
    tokens : slice
        Numbers of the positions in the run; of the prompt itself where there is no run.
    prompt, restart : int
        Which ones of the run; 0 without one.
    run : StoredRun or None
        The run.
    causal : bool
        Whether a position sees itself and earlier ones only. The Jacobian of the sequence is then
        block triangular: its eigenvalues are those of the blocks of the tokens.
    mismatch : float
        Largest relative difference between the step and the recording, where need be over several
        steps from one kept state to the next; NaN where these lie too far apart.
    """

    step: LoopStep
    states: Float[Tensor, "iteration pos d_model"]
    iterations: tuple[int, ...]
    tokens: slice
    prompt: int
    restart: int
    run: StoredRun | None
    causal: bool
    mismatch: float

    @property
    def n_pos(self) -> int:
        """Positions of the prompt."""
        return self.states.shape[1]

    def at(self, iteration: int | None = None) -> Float[Tensor, "pos d_model"]:
        """Return the states of an iteration, by default of the last; negative ones count back.

        Raises
        ------
        InputError
            If that iteration was not recorded.
        """
        return self.states[self.iterations.index(self.iteration(iteration))]

    def iteration(self, iteration: int | None = None) -> int:
        """Return the number of a recorded iteration; None is the last, negative ones count back.

        Raises
        ------
        InputError
            If that iteration was not recorded.
        """
        if iteration is None:
            return self.iterations[-1]
        wanted = iteration + self.iterations[-1] + 1 if iteration < 0 else int(iteration)
        if wanted not in self.iterations:
            raise InputError(
                f"iteration={iteration} was not recorded: there are {self.iterations[0]} to "
                f"{self.iterations[-1]} ({len(self.iterations)} of them)"
            )
        return wanted

    def positions(self, tokens: int | Sequence[int] | None = None) -> list[int]:
        """Return positions of the prompt; None means all, negative ones count back.

        Raises
        ------
        InputError
            If one is out of range or named twice.
        """
        if tokens is None:
            return list(range(self.n_pos))
        wanted = np.atleast_1d(np.asarray(tokens))
        is_whole = np.issubdtype(wanted.dtype, np.integer) and wanted.ndim == 1
        if (
            not is_whole
            or not wanted.size
            or not -self.n_pos <= wanted.min() <= wanted.max() < self.n_pos
        ):
            raise InputError(
                f"tokens={tokens!r} must be a position of the prompt or several, from 0 to "
                f"{self.n_pos - 1}; -1 is the last"
            )
        found = [int(token) % self.n_pos for token in wanted]
        if len(set(found)) < len(found):
            raise InputError(f"tokens={tokens!r} names a position twice")
        return found

    def numbers(self, positions: Sequence[int]) -> list[int]:
        """Return the token numbers in the run of positions of the prompt."""
        return [self.tokens.start + position for position in positions]

    @torch.no_grad()
    def steps_of_others(
        self, context: Float[Tensor, "pos d_model"], positions: Sequence[int]
    ) -> Float[np.ndarray, " token"]:
        """Return, for every token, the largest step of another that it sees, over that one's norm.

        It is what holding the others still leaves out.
        """
        steps = (self.step(context[None])[0] - context).norm(dim=-1)
        steps = (steps / context.norm(dim=-1).clamp(min=1e-30)).double().cpu().numpy()
        seen = [
            [other for other in range(self.n_pos) if other < p or (other > p and not self.causal)]
            for p in positions
        ]
        return np.array([steps[others].max(initial=0.0) for others in seen])


def recorded(
    model: Any,
    source: Any,
    *,
    prompt: int = 0,
    restart: int = 0,
    iterations: int | None = None,
    initial_state: Any = None,
    dtype: torch.dtype | None = None,
) -> Recorded:
    """Return a trajectory with its step: out of a run, or of a prompt that is run now.

    Parameters
    ----------
    model : LoopedTransformer or LoopedModel
        The model that was recorded, or that is to be run.
    source : Run, str, sequence of int or tensor
        A run, or one prompt.
    prompt, restart : int
        Of a run.
    iterations, initial_state : optional
        Of a prompt that is run now.
    dtype : torch.dtype, optional
        See :func:`loop_step`.

    Raises
    ------
    InputError
        If the model is not the one of the recording, its loop has no step, or a choice is out of
        range.
    AnalysisError
        If the run does not hold whole states of all tokens of the prompt, or they are not finite.
    """
    if isinstance(source, StoredRun):
        if iterations is not None or initial_state is not None:
            raise InputError(
                "iterations= and initial_state= are for a prompt that is run now; a run has its own"
            )
        return _from_run(model, source, prompt, restart, dtype)
    looped = as_looped(model)
    ids = looped.to_tokens(source)
    if prompt or restart:
        raise InputError("prompt= and restart= choose a part of a run, and no run was given")
    step = loop_step(model, ids, dtype, iterations=looped.check_iterations(iterations))
    try:
        traced = trace(step.looped, ids, iterations, initial_state=initial_state)
    except RuntimeError as error:
        if step.looped.dtype == looped.dtype:
            raise
        raise InputError(
            f"{looped.model_name} cannot be computed in {step.looped.dtype} "
            f"({str(error).splitlines()[0][:160]}): leave dtype= out"
        ) from error
    return _checked(
        step, traced.states[:, 0], tuple(range(len(traced.states))), slice(0, ids.shape[1]), 0, 0
    )


def _from_run(
    model: Any, run: StoredRun, prompt: int, restart: int, dtype: torch.dtype | None
) -> Recorded:
    if run.is_reduced:
        raise AnalysisError(
            f"The step needs states in all {run.d_model} dimensions, and this run keeps "
            f"{run.width} components of them. Record without reduce=."
        )
    looped = as_looped(model)
    check_sizes(looped, run)
    prompt = _one(prompt, run.n_prompts, "prompt")
    restart = _one(restart, run.restarts, "restart")
    tokens = run.token_range(prompt)
    if tokens.stop - tokens.start < int(run.prompts["length"].values[prompt]):
        raise AnalysisError(
            "The step looks at all tokens of a prompt, and this run keeps some of them. Record "
            "with tokens='all'."
        )
    ids = torch.tensor(run.tokens["token_id"].values[tokens].astype(np.int64))[None]
    step = loop_step(model, ids, dtype, iterations=run.iterations)
    found = run.state(restart=restart, tokens=tokens)
    states = torch.tensor(found.values).to(device=step.looped.device, dtype=step.looped.dtype)
    numbers = tuple(int(number) for number in found["iteration"].values)
    ran = run.attrs.get("settings", {}).get("iterations_run")
    if ran is not None:  # the model left the loop by itself
        numbers = tuple(number for number in numbers if number <= ran[restart][prompt])
        states = states[:, : len(numbers)]
    if steps_between(numbers) > FAR:
        check_weights(looped, run)
    return _checked(step, states.movedim(1, 0), numbers, tokens, prompt, restart, run)


def _one(number: int, count: int, what: str) -> int:
    """Return the number of one prompt or restart; negative ones count back."""
    found = checked_index(number, count, what)
    if isinstance(found, slice):
        raise InputError(f"{what}={number!r}: one {what} at a time")
    return found % count


def _checked(
    step: LoopStep,
    states: Tensor,
    iterations: tuple[int, ...],
    tokens: slice,
    prompt: int,
    restart: int,
    run: StoredRun | None = None,
) -> Recorded:
    bad = (~states.isfinite()).any(-1).any(-1).nonzero()[:, 0].tolist()
    if bad:
        raise AnalysisError(
            f"The states are not finite from iteration {iterations[bad[0]]} on: there is no motion "
            "to explain. Take another prompt or restart, or fewer iterations."
        )
    mismatch, same = (
        step_mismatch(step, states, iterations),
        largest_mismatch(step, run, iterations),
    )
    if mismatch > same:
        raise InputError(
            f"one step of {step.looped.model_name} does not lead from one recorded state to the "
            f"next (relative difference {mismatch:.1e}, at most {same:.0e} is rounding). Pass the "
            "model that was recorded; of a wrapped model, declare step=function(module, state, "
            "token_ids) in its LoopSpec if a pass depends on more than the state and the prompt. A "
            "loop that draws random numbers has no step, and one that was recorded with "
            "interventions has that of the changed loop."
        )
    return Recorded(
        step=step,
        states=states,
        iterations=iterations,
        tokens=tokens,
        prompt=prompt,
        restart=restart,
        run=run,
        causal=is_causal(step, states[-1]),
        mismatch=mismatch,
    )
