"""Put one prompt's loop into the state of another, and see whose end it reaches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr

from looplens.dynamics.maps.labelled import Progress, labelled, variable
from looplens.dynamics.maps.recorded import Recorded, recorded
from looplens.dynamics.pushing.donating import DonatedBy, number_of, other_sample
from looplens.dynamics.pushing.pushes import pass_of
from looplens.dynamics.pushing.returning import floor_of
from looplens.dynamics.pushing.two_prompts import Pair
from looplens.dynamics.pushing.variants import Loop
from looplens.errors import InputError
from looplens.models.inputs import whole_number

ENDS = {
    "own": "where the prompt's own run ends",
    "other": "where the other prompt's run ends",
    "both": "where both end",
    "neither": "at neither end by the last pass",
}
Swapped = Literal["all", "each"]


@torch.no_grad()
def swap_states(
    model: Any,
    source: Any,
    *,
    other: DonatedBy = None,
    prompt: int = 0,
    restart: int = 0,
    tokens: int | Sequence[int] | None = None,
    swapped: Swapped | Sequence[int] = "all",
    iteration: int | Sequence[int] | None = None,
    iterations: int = 64,
    dtype: torch.dtype | None = None,
    progress: Progress = None,
) -> xr.Dataset:
    r"""Give the loop of one prompt the states of another after some pass, and let it go on.

    What the loop is fed with stays that of its own prompt. If it ends where it would have ended
    anyway, the state carried nothing that the input does not restore; if it ends where the other
    prompt ended, the state carries it all.

    Parameters
    ----------
    model : LoopedTransformer or LoopedModel
        The model.
    source : Run, str, sequence of int or tensor
        A run of it, or one prompt.
    other : optional
        The other prompt: its number in the run (by default the next one that is as long), or a
        prompt that is run now. Both need the same number of tokens.
    prompt, restart : int
        Of a run.
    tokens : int or sequence of int, optional
        Positions that the result is about; by default all.
    swapped : {"all", "each"} or sequence of int
        Positions whose states are swapped: all of the prompt together, these together, or each of
        ``tokens`` in a run of its own.
    iteration : int or sequence of int, optional
        After which passes, each in a run of its own. By default 1, 2, 4, ... and the last one.
    iterations : int
        Passes to run after a swap.
    dtype : torch.dtype, optional
        See :func:`recorded`.
    progress : callable, optional
        Called with the swaps done and all of them.

    Returns
    -------
    Dataset
        Over ``token``, ``swapped_at`` and ``after`` (passes since the swap): ``distance`` from the
        prompt's own run and ``distance_other`` from the other's, over the norm of the own state.
        Over ``token`` and ``swapped_at``: ``ends`` (see :data:`ENDS`), ``final_distance``,
        ``final_cosine`` with the own end, and with a readout ``kl_own``, ``kl_other`` (nat; from
        the own and the other readout at the end) and ``says`` (``own``, ``other``, ``both`` or
        ``neither`` best token). Over ``token``: ``other_prompt`` (-1 for one that was run for
        this).

    Raises
    ------
    InputError, AnalysisError
        As :func:`recorded`; if there is no other prompt, it has another number of tokens, or a
        choice is out of range.

    References
    ----------
    .. [1] Anil et al., arXiv:2211.09961: their alignment score starts each input at another input's
       limit; ``final_cosine`` after a swap at a late pass is one term of it, by token.
    """
    passes = whole_number(iterations, "iterations", least=4)
    found = recorded(model, source, prompt=prompt, restart=restart, dtype=dtype)
    theirs = other_sample(model, found, other, dtype)
    positions = found.positions(tokens)
    groups = _groups(found, swapped, positions)
    at = _passes(found, iteration)
    pair = Pair(found, theirs, positions, passes)
    parts = []
    for done, t in enumerate(at, start=1):
        parts.append(pair.swap(t, groups))
        if progress is not None:
            progress(done, len(at))
    measured = {name: np.stack([part[name] for part in parts], axis=1) for name in parts[0]}
    return _dataset(found, theirs, positions, at, passes, measured).assign_attrs(
        swapped=swapped if isinstance(swapped, str) else [int(place) for place in swapped]
    )


def _groups(
    found: Recorded, swapped: Swapped | Sequence[int], positions: list[int]
) -> list[list[int]]:
    """Return the positions that are swapped in each run."""
    if isinstance(swapped, str):
        if swapped not in ("all", "each"):
            raise InputError(f"swapped must be 'all', 'each' or positions, got {swapped!r}")
        return [[place] for place in positions] if swapped == "each" else [found.positions()]
    return [found.positions(swapped)]


def _passes(found: Recorded, iteration: int | Sequence[int] | None) -> list[int]:
    last, first = found.iterations[-1], max(Loop(found.step).first, found.iterations[0] + 1)
    if iteration is None:
        powers = [2**i for i in range(last.bit_length())]
        return sorted({t for t in (*powers, last) if first <= t <= last})
    wanted = [iteration] if isinstance(iteration, int) else list(iteration)
    if not wanted:
        raise InputError("iteration is empty: name the passes after which states are swapped")
    return sorted({pass_of(found, t) for t in wanted})


def _dataset(
    found: Recorded,
    theirs: Recorded,
    positions: list[int],
    at: list[int],
    passes: int,
    measured: dict[str, np.ndarray],
) -> xr.Dataset:
    curve, number = ("token", "swapped_at", "after"), ("token", "swapped_at")
    distance = measured["distance"]
    data = {
        "distance": variable(curve, distance, "distance from the prompt's own run over its norm"),
        "distance_other": variable(
            curve, measured["distance_other"], "distance from the other run over the same norm"
        ),
        "ends": variable(
            number, _whose(measured["is_own"], measured["is_other"]), "whose end is reached"
        ),
        "final_distance": variable(number, distance[..., -1], "distance after the last pass"),
        "final_cosine": variable(number, measured["cosine"], "cosine with the own end"),
        "other_prompt": variable(
            ("token",),
            np.full(len(positions), number_of(theirs)),
            "prompt of the run that states are taken from; -1: run for this",
        ),
    }
    if "kl_own" in measured:
        for name, words in (("own", "prompt's own"), ("other", "other")):
            data[f"kl_{name}"] = variable(
                number,
                measured[f"kl_{name}"],
                f"KL of the readout from the {words} one at the end",
                "nat",
            )
        data["says"] = variable(
            number,
            _whose(measured["says_own"], measured["says_other"]),
            "whose best token is the best at the end",
        )
    coords = {
        "swapped_at": ("swapped_at", np.array(at), {"long_name": "pass of the swap"}),
        "after": ("after", np.arange(passes + 1), {"long_name": "passes since the swap"}),
    }
    return labelled(
        found,
        positions,
        data,
        coords=coords,
        method="states of another prompt put in, the input left alone",
        iterations=passes,
        floor=floor_of(found.states.dtype),
        ends=ENDS,
    )


def _whose(own: np.ndarray, other: np.ndarray) -> np.ndarray:
    names = np.where(own & other, "both", np.where(own, "own", np.where(other, "other", "neither")))
    return names.astype(object)
