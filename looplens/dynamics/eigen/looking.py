"""What questions about stability begin with: where tokens go, where they rest, what was seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor, nn

from looplens import analysis
from looplens.dynamics.eigen.motions import motion
from looplens.dynamics.eigen.resting import Rest
from looplens.dynamics.maps.labelled import Progress, labelled, variable
from looplens.dynamics.maps.recorded import Recorded, recorded
from looplens.errors import AnalysisError, InputError
from looplens.models.inputs import whole_number
from looplens.models.native import as_looped
from looplens.store.reading.stored import StoredRun

_LARGE = 2**27  # parameters, from which on a copy in float64 is too much to make unasked
_DETECTED = ("regime", "period", "rate", "amplitude")


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """One prompt's loop as it goes on from the end of the recording.

    Attributes
    ----------
    found : Recorded
        The trajectory and its step.
    positions : list of int
        Tokens that were asked for.
    upto : int
        Last position that anything depends on; what is known of later ones is not used.
    path : Float[Tensor, "time pos d_model"]
        States at the end of the motion.
    period : Float[ndarray, "pos"]
        Iterations after which a token and those before it return; NaN where they do not.
    period_error : Float[ndarray, "pos"]
        How exactly.
    rest : Rest
        Fixed points.
    detected : dict of str to ndarray, over ``positions``
        What ``classify`` says of the recording, and ``gap_rate`` of ``path_independence``.
    notes : list of str
        What a reader should know.
    """

    found: Recorded
    positions: list[int]
    upto: int
    path: Float[Tensor, "time pos d_model"]
    period: Float[np.ndarray, " pos"]
    period_error: Float[np.ndarray, " pos"]
    rest: Rest
    detected: dict[str, np.ndarray]
    notes: list[str]

    def only(self, chosen: np.ndarray) -> Look:
        """Return the same for some of the tokens that were asked for."""
        return replace(
            self,
            positions=[self.positions[row] for row in chosen],
            detected={name: values[chosen] for name, values in self.detected.items()},
        )

    def dataset(self, data: dict[str, Any], **attrs: Any) -> xr.Dataset:
        """Return a result over ``token``; `data` holds (dims, values, long_name, units)."""
        return labelled(
            self.found,
            self.positions,
            {name: variable(*parts) for name, parts in data.items()},
            iteration=self.found.iterations[-1],
            notes=self.notes,
            **attrs,
        )


def look(
    model: Any,
    source: Any,
    *,
    prompt: int,
    restart: int,
    tokens: int | Sequence[int] | None,
    iterations: int | None,
    settle: int,
    longest_cycle: int,
    starts: int,
    seed: int,
    dtype: torch.dtype | None,
    progress: Progress,
) -> Look:
    """Prepare one prompt; for the arguments see `spectra`."""
    settle = whole_number(settle, "settle", least=1)
    longest_cycle = whole_number(longest_cycle, "longest_cycle", least=2)
    starts = whole_number(starts, "starts", least=0)
    more = {} if isinstance(source, StoredRun) else {"iterations": iterations}
    if isinstance(source, StoredRun) and iterations is not None:
        raise InputError("iterations= is for a prompt that is run now; a run has its own")
    found = recorded(
        model, source, prompt=prompt, restart=restart, dtype=working_dtype(model, dtype), **more
    )
    positions = found.positions(tokens)
    upto = max(positions) if found.causal else found.n_pos - 1
    seen = motion(
        found,
        _module(model),
        upto,
        settle=settle,
        longest_cycle=longest_cycle,
        starts=starts,
        seed=seed,
        progress=progress,
    )
    notes: list[str] = []
    return Look(
        found=found,
        positions=positions,
        upto=upto,
        path=seen.path,
        period=seen.period,
        period_error=seen.period_error,
        rest=seen.rest,
        detected=_detected(found, positions, notes),
        notes=notes,
    )


def working_dtype(model: Any, dtype: torch.dtype | None) -> torch.dtype | None:
    """Return float64 unless something is asked for, or the model is large.

    In float32 a decay is over after seven digits, before the slowest part of it is alone.
    """
    if dtype is not None:
        return dtype
    module = _module(model)
    size = sum(p.numel() for p in module.parameters()) if module is not None else 0
    return torch.float64 if size < _LARGE else None


def _module(model: Any) -> nn.Module | None:
    """Return what holds the weights."""
    looped = as_looped(model)
    return getattr(looped, "model", None) or getattr(looped, "module", None)


def _detected(found: Recorded, positions: list[int], notes: list[str]) -> dict[str, np.ndarray]:
    """Return what was detected in the recording; unknown where it cannot be looked at."""
    count = len(positions)
    unknown: dict[str, np.ndarray] = {name: np.full(count, np.nan) for name in _DETECTED}
    unknown |= {"regime": np.full(count, "", dtype=object), "gap_rate": np.full(count, np.nan)}
    try:
        if found.run is None:
            states = found.states[1:].movedim(1, 0).double().cpu().numpy()
            words = analysis.classify(states)
            return unknown | {name: getattr(words, name)[positions] for name in _DETECTED}
        table = analysis.get(found.run, "classify").isel(restart=found.restart)
        numbers = found.numbers(positions)
        seen = unknown | {name: table[name].values[numbers] for name in _DETECTED}
        if found.run.restarts > 1:
            gaps = analysis.get(found.run, "path_independence")
            seen["gap_rate"] = gaps["gap_rate"].values[numbers]
        return seen
    except (AnalysisError, InputError) as error:
        notes.append(f"regimes are not known: {error}")
        return unknown
