"""One forward over prompts of equal length and all their restarts, captured in the store's axes.

Prompts of equal length share a batch, so nothing is ever padded and a prompt gives the same numbers
alone as in company. A model that leaves the loop by itself runs each prompt alone, since the whole
batch would leave together; so do prompts of one to three tokens, whose matrices are so small that
another kernel rounds them differently in company. This module knows sites and the axes of the
store, not the disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from looplens.loops.clock import FiringCounts
from looplens.models.protocol import INJECTED, STATE, Listener, LoopedModel, Site, StartLike
from looplens.prompts import Prompt
from looplens.recording.readout import readout_statistics

SMALLEST_BATCHED = 4  # tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class CapturePlan:
    """What to keep of a forward.

    Parameters
    ----------
    iterations : int
        Passes of the loop that are kept.
    asked : int
        Passes that the model is asked for; it may run fewer where it exits early.
    starts : tuple of StartLike
        One a restart, with its seed.
    sites : tuple of str
        Recordable sites, e.g. ``("resid_post",)``.
    top_k : int
        Tokens kept of each readout; 0 for no readout.
    """

    iterations: int
    asked: int
    starts: tuple[StartLike, ...]
    sites: tuple[str, ...]
    top_k: int


@torch.no_grad()
def capture(
    model: LoopedModel, prompts: Sequence[Prompt], plan: CapturePlan, *, attention: bool
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Run prompts of one length from every start.

    Parameters
    ----------
    model : LoopedModel
        The model.
    prompts : sequence of Prompt
        All of the same length.
    plan : CapturePlan
        What to keep.
    attention : bool
        Keep the attention patterns of these prompts too.

    Returns
    -------
    arrays : dict of str to ndarray
        By variable of the store, e.g. ``loop/state``, with axes (restart, prompt, pos, ...). NaN
        (-1 in token ids and ranks) stands in iterations that a model did not run.
    pattern : ndarray or None
        (restart, prompt, layer, iteration, head, query, key).

    Raises
    ------
    SiteError
        If a site fired another number of times than the loop declares.
    """
    ids = torch.tensor([prompt.token_ids for prompt in prompts], device=model.device)
    missing = [-1] * ids.shape[1]
    targets = torch.tensor([p.targets or missing for p in prompts], device=model.device)
    if model.exits_early or ids.shape[1] < SMALLEST_BATCHED:
        parts = [
            _forward(model, ids[i : i + 1], targets[i : i + 1], (start,), plan, attention)
            for start in plan.starts
            for i in range(len(prompts))
        ]
        kept = {path: torch.cat([part[path] for part in parts]) for path in parts[0]}
        if "loop/injected" in kept:  # the same from every start
            kept["loop/injected"] = kept["loop/injected"][: len(prompts)]
    else:
        kept = _forward(model, ids, targets, plan.starts, plan, attention)
    injected = kept.pop("loop/injected", None)
    shape = (len(plan.starts), len(prompts))
    arrays = {
        path: value.cpu().numpy().reshape(*shape, *value.shape[1:]) for path, value in kept.items()
    }
    pattern = arrays.pop("attention", None)
    if injected is not None:
        arrays["loop/injected"] = injected.cpu().numpy()
    return arrays, pattern


def _forward(
    model: LoopedModel,
    ids: Int[Tensor, "batch pos"],
    targets: Int[Tensor, "batch pos"],
    starts: tuple[StartLike, ...],
    plan: CapturePlan,
    attention: bool,
) -> dict[str, Tensor]:
    """Run one batch; rows are restart-major."""
    batch, pos = ids.shape
    buffers = _Buffers(model, rows=len(starts) * batch, pos=pos, iterations=plan.iterations)
    listen = buffers.listeners(plan.sites, attention=attention)
    ran = model.run_loop(ids, starts, plan.asked, listen)
    buffers.check(ran)
    kept = buffers.kept
    if plan.top_k:
        states = kept["loop/state"][:, :, : ran + 1].to(model.dtype)
        statistics = readout_statistics(
            model, states, targets.repeat(len(starts), 1), plan.top_k, iterations=plan.asked
        )
        kept |= {
            f"readout/{name}": _filled(value, plan.iterations) for name, value in statistics.items()
        }
    return kept


def _filled(value: Tensor, iterations: int) -> Tensor:
    """Fill (row, pos, iteration, ...) up with what says that there is nothing."""
    lacking = iterations - value.shape[2]
    if not lacking:
        return value
    nothing = torch.nan if value.is_floating_point() else -1
    shape = (*value.shape[:2], lacking, *value.shape[3:])
    return torch.cat([value, value.new_full(shape, nothing)], dim=2)


class _Buffers:
    """Tensors with the axes of the store, each made when its first value comes in."""

    def __init__(self, model: LoopedModel, *, rows: int, pos: int, iterations: int) -> None:
        self.model, self.rows, self.pos, self.iterations = model, rows, pos, iterations
        self.kept: dict[str, Tensor] = {}
        self.fired = FiringCounts()
        self.names: list[str] = []

    def listeners(self, sites: Sequence[str], *, attention: bool) -> dict[Site, Listener]:
        """Return what copies each firing to its place."""
        listen: dict[Site, Listener] = {STATE: self._state}
        if self.model.injects:
            listen[INJECTED] = self._injected
        for layer in range(self.model.n_layers):
            for site in sites:
                listen[Site(site, layer)] = self._layer(site, layer)
            if attention:
                listen[Site("pattern", layer)] = self._layer("pattern", layer)
        return listen

    def check(self, ran: int) -> None:
        """Compare the firings heard with the iterations that ran."""
        self.fired.check(dict.fromkeys(self.names, ran))

    def _injected(self, iteration: int, value: Tensor) -> None:
        self.kept["loop/injected"] = value.float()

    def _state(self, iteration: int, value: Tensor) -> None:
        shape = (self.rows, self.pos, self.iterations + 1, self.model.d_model)
        self._buffer("loop/state", shape)[:, :, iteration] = value

    def _layer(self, site: str, layer: int) -> Listener:
        name = self.model.hook_name(site, layer)
        self.names.append(name)
        layers = self.model.n_layers

        def copy(iteration: int, value: Tensor) -> None:
            self.fired.fired(name)
            if site == "pattern":  # [row, head, query, key]
                shape = (self.rows, layers, self.iterations, *value.shape[1:])
                self._buffer("attention", shape)[:, layer, iteration - 1] = value
            else:  # [row, pos, ...]
                shape = (self.rows, self.pos, layers, self.iterations, *value.shape[2:])
                self._buffer(f"states/{site}", shape)[:, :, layer, iteration - 1] = value

        return copy

    def _buffer(self, path: str, shape: tuple[int, ...]) -> Tensor:
        if path not in self.kept:
            empty = torch.empty(shape, device=self.model.device)
            self.kept[path] = empty.fill_(torch.nan) if self.model.exits_early else empty
        return self.kept[path]
