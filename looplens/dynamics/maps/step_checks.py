"""Whether a step is the one that made a recording, and which positions see which."""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float
from torch import Tensor

from looplens.dynamics.maps.loop_step import LoopStep
from looplens.errors import InputError
from looplens.models.protocol import LoopedModel
from looplens.recording.streaming.weights import weights_digest
from looplens.store.reading.stored import StoredRun

# Largest |R(s_{t-1}) - s_t| / |s_t| of a step that made the recording, by the coarsest dtype.
_SAME = {"float64": 1e-4, "float32": 1e-4, "float16": 2e-2, "bfloat16": 0.15}
_SAME_LATER = 0.05  # over several steps
_MOVED = 6  # positions that are moved to see whether earlier ones notice
FAR = 16  # steps over which another model can be told from rounding that has grown


def check_sizes(looped: LoopedModel, run: StoredRun) -> None:
    """Check that a model has the width and the layers of the one that was recorded.

    Raises
    ------
    InputError
        If it has not.
    """
    for what in ("d_model", "n_layers"):
        seen, expected = getattr(looped, what), getattr(run, what)
        if seen != expected:
            raise InputError(
                f"{looped.model_name} has {what}={seen}, and the run {run.path} was recorded of "
                f"{run.model_name} with {what}={expected}. Pass the model that was recorded."
            )


def steps_between(iterations: tuple[int, ...]) -> int:
    """Return the fewest steps from one kept state to the next."""
    return min((b - a for a, b in itertools.pairwise(iterations)), default=FAR + 1)


def largest_mismatch(step: LoopStep, run: StoredRun | None, iterations: tuple[int, ...]) -> float:
    """Return the mismatch that rounding may leave, of a trajectory or of one of a run."""
    dtypes = [str(step.looped.dtype).removeprefix("torch.")]
    if run is not None:
        dtypes += [str(run.attrs.get("store_dtype") or run.source_dtype), run.source_dtype]
    same = max(_SAME.get(dtype, 1e-4) for dtype in dtypes)
    # Over several steps differences may grow.
    return max(same, _SAME_LATER) if steps_between(iterations) > 1 else same


@torch.no_grad()
def step_mismatch(step: LoopStep, states: Tensor, iterations: tuple[int, ...]) -> float:
    """Return the largest relative difference over a few pairs of states that lie near."""
    gap = steps_between(iterations)
    if gap > FAR:
        return float("nan")
    pairs = [i for i in range(1, len(states)) if iterations[i] == iterations[i - 1] + gap]
    # The first pass may do something else (no injection yet), so it is left out where it can be.
    pairs = [i for i in pairs if iterations[i - 1] > 0] or pairs
    worst = 0.0
    for i in sorted({pairs[0], pairs[len(pairs) // 2], pairs[-1]}):
        found = states[i - 1 : i]
        for _ in range(gap):
            found = step(found)
        found = found[0]
        size = states[i].norm(dim=-1).clamp(min=torch.finfo(states.dtype).tiny)
        differs = ((found - states[i]).norm(dim=-1) / size).nan_to_num(torch.inf, torch.inf)
        worst = max(worst, float(differs.max()))
    return worst


def check_weights(looped: LoopedModel, run: StoredRun) -> None:
    """Check that a model is that of a run, by its weights; where it shows none, they may be.

    Raises
    ------
    InputError
        If the run knows other weights.
    """
    seen, recorded_of = weights_digest(looped), run.model.get("weights_digest")
    if None not in (seen, recorded_of) and seen != recorded_of:
        raise InputError(
            f"The weights of {looped.model_name} (digest {seen}) are not those that {run.path} was "
            f"recorded with ({run.model_name}, digest {recorded_of}). Pass the model that was "
            f"recorded (--model), in the dtype that it ran in ({run.source_dtype})."
        )


@torch.no_grad()
def is_causal(step: LoopStep, states: Float[Tensor, "pos d_model"]) -> bool:
    """Return whether no position sees a later one, told by moving a few of them, one at a time."""
    n_pos = len(states)
    moved = sorted({n_pos - 1, 1, *range(1, n_pos, max(1, n_pos // _MOVED))})
    moved = [position for position in moved if 0 < position < n_pos]
    if not moved:
        return True
    still = step(states[None])[0]
    for position in moved:
        other = states.clone()
        other[position] = other[position].flip(-1) + other[position].norm().clamp(min=1.0)
        before = still[:position]
        change = (step(other[None])[0, :position] - before).norm(dim=-1)
        if not bool((change <= 1e-4 * before.norm(dim=-1)).all()):
            return False
    return True
