"""Where the loop of a prompt goes and where its tokens rest, worked out once for all who ask.

`spectra` and `causes` of a prompt begin with the same long runs and the same fixed points. They are
kept for as long as the model lives, and taken again where the trajectory and the step are the same.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from looplens.dynamics.eigen.resting import Rest, resting
from looplens.dynamics.eigen.running import natural, returns
from looplens.dynamics.maps.labelled import Progress
from looplens.dynamics.maps.recorded import Recorded
from looplens.errors import AnalysisError

_BYTES = 2**28  # of states that are kept of a model


@dataclass(frozen=True, kw_only=True, slots=True)
class Motion:
    """What the loop of one prompt does from the end of the recording on.

    Attributes
    ----------
    path : Float[Tensor, "time pos d_model"]
        States at the end of the motion.
    period : Float[ndarray, "pos"]
        Iterations after which a token and those before it return; NaN where they do not.
    period_error : Float[ndarray, "pos"]
        How exactly.
    rest : Rest
        Fixed points.
    upto : int
        Last position that these were looked for at.
    """

    path: Float[Tensor, "time pos d_model"]
    period: Float[np.ndarray, " pos"]
    period_error: Float[np.ndarray, " pos"]
    rest: Rest
    upto: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kept:
    states: Float[Tensor, "iteration pos d_model"]
    mismatch: float
    motion: Motion

    @property
    def size(self) -> int:
        return self.states.nbytes + self.motion.path.nbytes + self.motion.rest.states.nbytes

    def is_of(self, found: Recorded) -> bool:
        """Return whether the trajectory and the step are the same: weights can have changed."""
        same = np.array_equal(self.mismatch, found.mismatch, equal_nan=True)
        return same and torch.equal(self.states, found.states)


_Memory = dict[tuple[Any, ...], _Kept]
_MEMORY: weakref.WeakKeyDictionary[nn.Module, _Memory] = weakref.WeakKeyDictionary()


def motion(
    found: Recorded,
    module: nn.Module | None,
    upto: int,
    *,
    settle: int,
    longest_cycle: int,
    starts: int,
    seed: int,
    progress: Progress,
) -> Motion:
    """Run on and solve, or take what is known of this model; see `spectra` for the arguments.

    Raises
    ------
    AnalysisError
        If the states leave the range of numbers.
    """
    prompt = tuple(found.step.ids[0].tolist())
    key = (prompt, found.restart, found.states.dtype, settle, longest_cycle, starts, seed)
    memory: _Memory = {} if module is None else _MEMORY.setdefault(module, {})
    kept = memory.pop(key, None)
    if kept is not None and kept.motion.upto >= upto and kept.is_of(found):
        memory[key] = kept  # the latest comes last
        if progress:
            progress(upto + 1, upto + 1)
        return kept.motion
    made = _made(found, upto, settle, longest_cycle, starts, seed, progress)
    memory[key] = _Kept(states=found.states, mismatch=found.mismatch, motion=made)
    while sum(one.size for one in memory.values()) > _BYTES:
        del memory[next(iter(memory))]
    return made


def _made(
    found: Recorded,
    upto: int,
    settle: int,
    longest_cycle: int,
    starts: int,
    seed: int,
    progress: Progress,
) -> Motion:
    path = natural(found.step, found.at(), settle, longest_cycle)
    if not bool(path[-1].isfinite().all()):
        raise AnalysisError(
            f"the states leave the range of {found.step.looped.dtype} within {settle} further "
            "iterations: there is nothing to linearise at"
        )
    period, error = returns(path, longest_cycle)
    rest = resting(
        found.step,
        path[-1],
        causal=found.causal,
        upto=upto,
        starts=starts,
        seed=seed,
        progress=progress,
    )
    return Motion(path=path, period=period, period_error=error, rest=rest, upto=upto)
