"""Hooks and caches by site address on a module that is not ours.

Functions are called with the value and a named point, as by TransformerLens, and may return another
value; the clock stands at the pass meanwhile. This module knows addresses, not the module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from looplens.errors import SiteError
from looplens.loops import LoopClock
from looplens.models.addressing import Hook, add_addressed_hooks, caching_hooks
from looplens.models.loop_cache import LoopCache
from looplens.models.protocol import STATE, Site, core_hook_name

HookFunction = Callable[..., Any]
Entry: TypeAlias = "tuple[NamedPoint, HookFunction]"


@dataclass(frozen=True, slots=True)
class NamedPoint:
    """What a hook function is given to know where it is."""

    name: str


class AddressedHooks:
    """The part of a wrapped model that adds hooks.

    Attributes
    ----------
    clock : LoopClock
        The running pass, while hook functions run.
    hook_dict : dict of str to NamedPoint
        The loop state, and every site of every place on the layer axis.
    hooked : dict of Site to list
        The functions that are on now.
    """

    def __init__(self, recordable: Sequence[str], n_layers: int) -> None:
        self.clock = LoopClock()
        sites = [Site(site, layer) for layer in range(n_layers) for site in recordable]
        inside = {core_hook_name(s.name, s.layer or 0): s for s in sites}
        self._site_of = {"hook_state": STATE, **inside}
        self.hook_dict: Mapping[str, Any] = {name: NamedPoint(name) for name in self._site_of}
        self.hooked: dict[Site, list[tuple[NamedPoint, HookFunction]]] = {}

    @contextmanager
    def hooks(self, fwd_hooks: Sequence[Hook] = ()) -> Iterator[Any]:
        """Add hooks for the duration of a ``with`` block.

        Names may be site addresses: ``core.0.hook_resid_post@7``, ``core.*.hook_resid_post@4:``.

        Raises
        ------
        SiteError
            If an address matches no site, or none of the passes that ran.
        """
        with add_addressed_hooks(self, fwd_hooks, ()) as (forward, _):
            added: list[tuple[Site, tuple[NamedPoint, HookFunction]]] = []
            for target, function in forward:
                names = list(filter(target, self.hook_dict)) if callable(target) else [target]
                if not names:
                    raise SiteError("a hook filter matches no site")
                added += [(self._site_of[n], (self.hook_dict[n], function)) for n in names]
            for site, entry in added:
                self.hooked.setdefault(site, []).append(entry)
            try:
                yield self
            finally:
                for site, entry in added:
                    self.hooked[site].remove(entry)
                    if not self.hooked[site]:
                        del self.hooked[site]

    def run_with_hooks(self, *args: Any, fwd_hooks: Sequence[Hook] = (), **keywords: Any) -> Any:
        """Run the module with hooks; further arguments as for calling the model."""
        with self.hooks(fwd_hooks):
            return self(*args, **keywords)  # type: ignore[operator]

    def run_with_cache(
        self,
        *args: Any,
        names_filter: str | Sequence[str] | Callable[[str], bool] | None = None,
        device: str | torch.device | None = None,
        remove_batch_dim: bool = False,
        pos_slice: Any = None,
        **keywords: Any,
    ) -> tuple[Any, LoopCache]:
        """Run the module and keep the activations of every pass.

        Parameters
        ----------
        *args, **keywords
            As for calling the model.
        names_filter : str, sequence of str or callable, optional
            Site addresses; by default every site in every pass.
        device : optional
            Where the cache is kept.
        remove_batch_dim : bool
            Drop the batch axis of a single sequence.
        pos_slice : int, tuple, list or slice, optional
            Keep these positions only; an int drops their axis, ``(start, stop)`` is a slice.

        Returns
        -------
        output : object
            What the module returned.
        cache : LoopCache
            ``cache["resid_post", 2][7]`` is pass 7 of the third place on the layer axis.
        """
        cache = LoopCache()

        def copied(keep: HookFunction) -> HookFunction:
            # Code that is not ours may go on to write into the tensor.
            return lambda value, hook: keep(value.clone(), hook)

        kept = caching_hooks(self, cache, names_filter, device, pos_slice)
        output = self.run_with_hooks(
            *args, fwd_hooks=[(name, copied(keep)) for name, keep in kept], **keywords
        )
        return output, cache.remove_batch_dim() if remove_batch_dim else cache


def passed_through(
    value: Tensor,
    iteration: int,
    clock: LoopClock,
    entries: Sequence[Entry],
) -> Tensor | None:
    """Return what hook functions make of a value, or None where they leave it alone."""
    changed = None
    with clock.at(iteration):
        for point, function in entries:
            new = function(value if changed is None else changed, hook=point)
            if new is not None:
                changed = new
    return changed
