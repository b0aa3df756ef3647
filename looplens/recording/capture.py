"""One forward over prompts of equal length and all their restarts, captured in the store's axes.

Prompts of equal length share a batch, so nothing is ever padded and a prompt gives the same numbers
alone as in company. This module knows hooks, the clock and the axes of the store, not the disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from looplens.loops.clock import FiringCounts
from looplens.models import InitialState, LoopedTransformer
from looplens.prompts import Prompt
from looplens.recording.readout import readout_statistics
from looplens.store.schema import HEAD_SITES


def hook_name(site: str, layer: int) -> str:
    """Return the hook point of a recordable site in a core layer."""
    return f"core.{layer}.{'attn.' if site in HEAD_SITES else ''}hook_{site}"


@dataclass(frozen=True, kw_only=True, slots=True)
class CapturePlan:
    """What to keep of a forward.

    Parameters
    ----------
    iterations : int
        Passes of the loop.
    starts : tuple of InitialState
        One a restart, with its seed.
    sites : tuple of str
        Recordable sites, e.g. ``("resid_post",)``.
    top_k : int
        Tokens kept of each readout; 0 for no readout.
    """

    iterations: int
    starts: tuple[InitialState, ...]
    sites: tuple[str, ...]
    top_k: int


@torch.no_grad()
def capture(
    model: LoopedTransformer, prompts: Sequence[Prompt], plan: CapturePlan, *, attention: bool
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Run prompts of one length from every start.

    Parameters
    ----------
    model : LoopedTransformer
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
        By variable of the store, e.g. ``loop/state``, with axes (restart, prompt, pos, ...).
    pattern : ndarray or None
        (restart, prompt, layer, iteration, head, query, key).

    Raises
    ------
    SiteError
        If a site fired another number of times than the loop declares.
    """
    restarts, batch, pos = len(plan.starts), len(prompts), len(prompts[0].token_ids)
    device = model.embed.weight.device
    ids = torch.tensor([prompt.token_ids for prompt in prompts], device=device)
    embedding = model.token_embedding(ids)
    injected = model.run_prelude(embedding)
    start = torch.cat(
        [model.initial_state(injected, spec, embedding=embedding) for spec in plan.starts]
    )
    rows = restarts * batch  # the restarts of all prompts run side by side, restart-major
    fed = injected.repeat(restarts, 1, 1)

    states = torch.empty(rows, pos, plan.iterations + 1, model.cfg.d_model, device=device)
    states[:, :, 0] = start
    listener = _Listener(model, plan, rows, pos, attention=attention)
    with model.hooks(fwd_hooks=listener.hooks), model.clock.forward(plan.iterations):
        for t, state in enumerate(model.iterate(start, fed, plan.iterations), start=1):
            states[:, :, t] = state
    listener.fired.check(dict.fromkeys(listener.names, plan.iterations))

    def split(value: Tensor) -> np.ndarray:
        return value.cpu().numpy().reshape(restarts, batch, *value.shape[1:])

    arrays = {"loop/state": split(states)}
    if model.cfg.injection != "none":
        arrays["loop/injected"] = injected.float().cpu().numpy()
    arrays |= {f"states/{site}": split(value) for site, value in listener.kept.items()}
    if plan.top_k:
        missing = [-1] * pos
        targets = torch.tensor([p.targets or missing for p in prompts], device=device)
        with model.clock.forward(plan.iterations):
            statistics = readout_statistics(
                model, states.to(model.dtype), targets.repeat(restarts, 1), plan.top_k
            )
        arrays |= {f"readout/{name}": split(value) for name, value in statistics.items()}
    return arrays, split(listener.pattern) if listener.pattern is not None else None


class _Listener:
    """Hooks that copy each firing to its place in a buffer with the axes of the store."""

    def __init__(
        self, model: LoopedTransformer, plan: CapturePlan, rows: int, pos: int, *, attention: bool
    ) -> None:
        cfg, device = model.cfg, model.embed.weight.device
        self.clock = model.clock
        self.fired = FiringCounts()
        self.kept: dict[str, Tensor] = {}
        self.pattern: Tensor | None = None
        self.hooks: list[tuple[Any, Any]] = []
        for site in plan.sites:
            heads = cfg.n_kv_heads if site in ("k", "v") else cfg.n_heads
            tail = (heads, cfg.d_head) if site in HEAD_SITES else (cfg.d_model,)
            buffer = torch.empty(rows, pos, cfg.n_core, plan.iterations, *tail, device=device)
            self.kept[site] = buffer
            for layer in range(cfg.n_core):
                self._listen(hook_name(site, layer), buffer[:, :, layer], axis=2)
        if attention:
            shape = (rows, cfg.n_core, plan.iterations, cfg.n_heads, pos, pos)
            self.pattern = torch.empty(shape, device=device)
            for layer in range(cfg.n_core):
                self._listen(f"core.{layer}.attn.hook_pattern", self.pattern[:, layer], axis=1)
        self.names = [name for name, _ in self.hooks]

    def _listen(self, name: str, buffer: Tensor, axis: int) -> None:
        def copy(value: Tensor, hook: Any) -> None:
            self.fired.fired(hook.name)
            assert self.clock.iteration is not None  # core sites fire inside the loop only
            buffer.select(axis, self.clock.iteration - 1).copy_(value)

        self.hooks.append((name, copy))
