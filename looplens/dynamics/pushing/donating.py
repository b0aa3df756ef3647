"""Which other sample a replaced activation is taken from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from looplens.dynamics.maps.loop_step import loop_step
from looplens.dynamics.maps.recorded import Recorded, recorded
from looplens.dynamics.pushing.reading import logits_at
from looplens.errors import InputError
from looplens.models import LoopCache
from looplens.recording.changing.interventions import Intervention
from looplens.recording.tracing import Trace, trace
from looplens.store.reading.stored import StoredRun

DonatedBy: TypeAlias = "int | str | Sequence[int] | Trace | LoopCache | StoredRun | None"


def donated(
    model: Any,
    found: Recorded,
    donor: DonatedBy | Tensor,
    site: str,
    at: int,
    until: int,
    positions: Sequence[int],
) -> tuple[Intervention, dict[str, Any]]:
    """Return a clamp to a donor, without tokens, and what the donor is.

    Parameters
    ----------
    model : LoopedTransformer or LoopedModel
        For a donor that is run now.
    found : Recorded
        The trajectory that is changed.
    donor : optional
        See :func:`looplens.dynamics.damage_cone`.
    site : str
        Without passes.
    at, until : int
        First and last pass that are replaced.
    positions : sequence of int
        Tokens that the donor must have.

    Raises
    ------
    InputError
        If there is no donor, or it lacks a position.
    """
    if "@" in site:
        raise InputError(f"site={site!r}: name the pass with iteration= instead")
    address, run = f"{site}@{at}:{until + 1}", found.run
    donor = _next(found, lambda n: n > max(positions)) if donor is None else donor
    if _is_number(donor):
        assert isinstance(donor, int)
        run = _run_with(found, donor)
        _check_length(_length(run, donor), positions)
        change = Intervention.clamp(address, run, prompt=donor, restart=found.restart)
    elif isinstance(donor, Trace | LoopCache | StoredRun):
        change = Intervention.clamp(address, donor)
    else:
        ids = found.step.looped.to_tokens(donor)
        _check_length(ids.shape[1], positions)
        traced = trace(found.step.looped, ids, until, initial_state=_start(found))
        change = Intervention.clamp(address, traced)
    return change, change.describe()["donor"]


def other_sample(
    model: Any,
    found: Recorded,
    other: DonatedBy,
    dtype: torch.dtype | None,
    answer: int | None = None,
) -> Recorded:
    """Return the trajectory of another prompt as long: of the run, or one that is run now.

    Parameters
    ----------
    model : LoopedTransformer or LoopedModel
        For a prompt that is run now.
    found : Recorded
        The trajectory of the one.
    other : optional
        The other: its number in the run, or a prompt; by default the next one of the run.
    dtype : torch.dtype, optional
        See :func:`recorded`.
    answer : int, optional
        Where both are read out: by default the next prompt with another best token there, if any.

    Raises
    ------
    InputError
        If there is none, or it has another number of tokens.
    """
    if other is None:
        other = _next(found, lambda n: n == found.n_pos, answer)
    if _is_number(other):
        assert isinstance(other, int)
        run = _run_with(found, other)
        _check_same(_length(run, other), found)
        return recorded(model, run, prompt=other, restart=found.restart, dtype=dtype)
    if isinstance(other, Trace | LoopCache | StoredRun):
        raise InputError(
            f"expected the number of a prompt of the run, or a prompt, got a {type(other).__name__}"
        )
    _check_same(found.step.looped.to_tokens(other).shape[1], found)
    last, start = found.iterations[-1], _start(found)
    return recorded(model, other, iterations=last, initial_state=start, dtype=dtype)


def number_of(sample: Recorded) -> int:
    """Return the number of a sample among the prompts of the run; -1 where it was run for this."""
    return -1 if sample.run is None else sample.prompt


def _start(found: Recorded) -> int | None:
    """Return the seed that the trajectory began with, for a prompt that is run beside it."""
    return None if found.run is None else found.run.restart_seeds[found.restart]


def _next(found: Recorded, fits: Callable[[int], bool], answer: int | None = None) -> int:
    """Return the next prompt of a length that fits; if it can be, one with another answer."""
    run = found.run
    if run is None or run.n_prompts < 2:
        raise InputError(
            "there is no other sample to take a state from: name one, such as another prompt"
        )
    others = [(found.prompt + i) % run.n_prompts for i in range(1, run.n_prompts)]
    fitting = [other for other in others if fits(_length(run, other))]
    if not fitting:
        raise InputError(
            f"no other prompt of the run has as many tokens as prompt {found.prompt}, which has "
            f"{found.n_pos}: name a sample, such as another prompt, or choose fewer tokens="
        )
    if answer is None or not found.step.looped.has_readout:
        return fitting[0]
    best = _best(found, found.at(), found.prompt, answer)
    for other in fitting:
        states = run.state(restart=found.restart, tokens=run.token_range(other))
        last = torch.as_tensor(states.isel(iteration=-1).values).to(found.states)
        if _best(found, last, other, answer) != best:
            return other
    return fitting[0]


def _best(found: Recorded, state: Tensor, prompt: int, position: int) -> int:
    """Return the best token of a prompt of the run at a position."""
    assert found.run is not None
    ids = found.run.tokens["token_id"].values[found.run.token_range(prompt)]
    step, last = loop_step(found.step.looped, torch.tensor(ids)[None]), found.iterations[-1]
    where = torch.tensor([[position]], device=state.device)
    return int(logits_at(step, state[None], where, last, last).argmax())


def _length(run: StoredRun, prompt: int) -> int:
    kept = run.token_range(prompt)
    return kept.stop - kept.start


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _run_with(found: Recorded, prompt: int) -> StoredRun:
    run = found.run
    if run is None or not 0 <= prompt < run.n_prompts or prompt == found.prompt:
        held = (
            "no run" if run is None else f"a run of {run.n_prompts}, of which {found.prompt} runs"
        )
        raise InputError(f"{prompt} must be the number of another prompt; there is {held}")
    return run


def _check_length(length: int, positions: Sequence[int]) -> None:
    if max(positions) >= length:
        raise InputError(
            f"the donor has {length} tokens and none at position {max(positions)}: choose tokens= "
            "that both have, or a longer donor"
        )


def _check_same(length: int, found: Recorded) -> None:
    if length != found.n_pos:
        raise InputError(
            f"the other prompt has {length} tokens and this one {found.n_pos}: states go from a "
            "position to the same position, so both need the same number of tokens"
        )
