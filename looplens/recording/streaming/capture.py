"""One forward over prompts of equal length and all their restarts, captured into given buffers.

Prompts of equal length share a batch, so nothing is ever padded and a prompt gives the same numbers
alone as in company. A model that leaves the loop by itself runs each prompt alone, since the whole
batch would leave together; so do prompts of one to three tokens, whose matrices are so small that
another kernel rounds them differently in company. This module knows sites and the axes of the
store, not the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from looplens.models.protocol import LoopedModel, StartLike
from looplens.prompts import Prompt
from looplens.recording.streaming.hearing import CapturePlan, Hearing, Patterns, slot_after
from looplens.recording.streaming.places import Places
from looplens.recording.streaming.readout import READOUTS, readout_statistics
from looplens.recording.streaming.staging import Staging

SMALLEST_BATCHED = 4  # tokens
EXIT_GATE = "readout/exit_gate"


@torch.no_grad()
def capture(
    model: LoopedModel,
    prompts: Sequence[Prompt],
    plan: CapturePlan,
    staging: Staging,
    tokens: Int[np.ndarray, " kept"],
    rows: Int[np.ndarray, " kept"],
    *,
    attention: bool,
) -> Float[Tensor, "restart prompt layer iteration head query key"] | None:
    """Run prompts of one length from every start, into the buffers.

    NaN (-1 in token ids and ranks) stands in iterations that a model did not run.

    Parameters
    ----------
    model : LoopedModel
        The model.
    prompts : sequence of Prompt
        All of the same length.
    plan : CapturePlan
        What to keep.
    staging : Staging
        Where to.
    tokens, rows : array of int
        The tokens to keep: where on the token axis of the buffers, and which ones, counted
        through the prompts laid end to end.
    attention : bool
        Keep the attention patterns of these prompts too.

    Returns
    -------
    pattern : Tensor or None
        On the host.

    Raises
    ------
    SiteError
        If a site fired another number of times than the loop declares.
    """
    ids = torch.tensor([prompt.token_ids for prompt in prompts], device=model.device)
    batch, pos = ids.shape
    missing = [-1] * pos
    targets = torch.tensor([p.targets or missing for p in prompts], device=model.device)
    patterns = Patterns(model, plan, rows=len(plan.starts) * batch) if attention else None

    def places(first: int, stop: int, restarts: slice) -> Places:
        inside = (rows >= first * pos) & (rows < stop * pos)
        here, total = rows[inside] - first * pos, (stop - first) * pos
        return Places(staging, tokens[inside], here, total, restarts)

    if model.exits_early or pos < SMALLEST_BATCHED:
        for restart, start in enumerate(plan.starts):
            for i in range(batch):
                part = slice(i, i + 1)
                here = places(i, i + 1, slice(restart, restart + 1))
                row = restart * batch + i
                maps = patterns.of(slice(row, row + 1)) if patterns else None
                _forward(model, ids[part], targets[part], (start,), plan, here, maps)
    else:
        everything = places(0, batch, slice(None))
        maps = patterns.of(slice(None)) if patterns else None
        _forward(model, ids, targets, plan.starts, plan, everything, maps)
    if patterns is None or patterns.kept is None:
        return None
    return patterns.kept.unflatten(0, (len(plan.starts), batch)).cpu()


def _forward(
    model: LoopedModel,
    ids: Int[Tensor, "batch pos"],
    targets: Int[Tensor, "batch pos"],
    starts: tuple[StartLike, ...],
    plan: CapturePlan,
    places: Places,
    maps: Callable[[Tensor], Tensor] | None,
) -> None:
    """Run one batch; rows are restart-major."""
    hearing = Hearing(model, plan, places, maps)
    ran = model.run_loop(ids, starts, plan.asked, hearing.listeners())
    hearing.finish(ran)
    if not plan.top_k:
        return
    rows = len(starts) * len(ids)

    def state(t: int) -> Tensor:
        if hearing.states is not None:
            return hearing.states[t]
        return places.take(places.of("loop/state")[:, :, t]).reshape(rows, *ids.shape[1:], -1)

    def logits(t: int) -> Tensor:
        # The layers behind the loop need every position, whichever ones are kept.
        return places.pick(model.readout(state(t).to(ids.device, model.dtype), t, plan.asked))

    for t, statistics in readout_statistics(
        logits,
        places.pick(targets.repeat(len(starts), 1)),
        plan.top_k,
        ran=ran,
        kept=plan.kept,
    ):
        for name, value in statistics.items():
            places.put_picked(places.of(f"readout/{name}")[:, :, plan.kept.index(t)], value)
        if EXIT_GATE in places.staging:
            gate = model.gate(state(t).to(ids.device, model.dtype))
            assert gate is not None  # the run has one because the model has
            put_in = places.of(EXIT_GATE)[:, :, plan.kept.index(t)]
            places.put_picked(put_in, places.pick(gate))
    for name in (*READOUTS, "exit_gate"):
        places.fill_from(f"readout/{name}", slot_after(plan.kept, ran))
