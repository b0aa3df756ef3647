"""What is kept of a forward, and the listeners that copy each firing to its place.

This module knows sites, iterations and the axes of the store; not prompts, and not the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from looplens.loops.clock import FiringCounts
from looplens.models.protocol import INJECTED, STATE, Listener, LoopedModel, Site, StartLike
from looplens.recording.keeping.reductions import Projector
from looplens.recording.streaming.places import Places
from looplens.store.format.schema import RESIDUAL_SITES


@dataclass(frozen=True, kw_only=True, slots=True)
class CapturePlan:
    """What to keep of a forward.

    Parameters
    ----------
    iterations : int
        Passes of the loop that the run has.
    asked : int
        Passes that the model is asked for; it may run fewer where it exits early.
    starts : tuple of StartLike
        One a restart, with its seed.
    sites : tuple of str
        Recordable sites, e.g. ``("resid_post",)``.
    top_k : int
        Tokens kept of each readout; 0 for no readout.
    layers : tuple of int
        Core layers to keep, as on the layer axis of the store.
    state_iterations : tuple of int
        Iterations of the loop state to keep; with 0 only if all are kept.
    projector : Projector, optional
        What states are reduced by.
    """

    iterations: int
    asked: int
    starts: tuple[StartLike, ...]
    sites: tuple[str, ...]
    top_k: int
    layers: tuple[int, ...]
    state_iterations: tuple[int, ...]
    projector: Projector | None = None

    @property
    def kept(self) -> tuple[int, ...]:
        """Iterations of 1..T to keep: the axis of sites, readouts and patterns."""
        return tuple(t for t in self.state_iterations if t)

    @property
    def whole_states(self) -> bool:
        """Whether the loop state is kept as it is, in every iteration."""
        return self.projector is None and len(self.state_iterations) == self.iterations + 1


class Hearing:
    """What copies each firing to its place."""

    def __init__(
        self,
        model: LoopedModel,
        plan: CapturePlan,
        places: Places,
        maps: Callable[[Tensor], Tensor] | None,
    ) -> None:
        self.model, self.plan, self.places, self.maps = model, plan, places, maps
        self.fired = FiringCounts()
        self.names: list[str] = []
        # The readout reads the states in the buffers, unless these do not have all of them.
        whole = plan.whole_states and places.covers_all
        self.states: dict[int, Tensor] | None = None if whole or not plan.top_k else {}
        self._read = {plan.asked, *plan.kept, *(t - 1 for t in plan.kept)}

    def listeners(self) -> dict[Site, Listener]:
        """Return them by site."""
        plan = self.plan
        listen: dict[Site, Listener] = {STATE: self._state()}
        if self.model.injects:
            listen[INJECTED] = self._injected
        for place, layer in enumerate(plan.layers):
            for site in plan.sites:
                listen[Site(site, layer)] = self._layer(site, layer, place)
            if self.maps is not None:
                listen[Site("pattern", layer)] = self._pattern(layer, place)
        return listen

    def finish(self, ran: int) -> None:
        """Compare the firings heard with the iterations that ran, and fill up what did not."""
        self.fired.check(dict.fromkeys(self.names, ran))
        plan = self.plan
        self.places.fill_from("loop/state", slot_after(plan.state_iterations, ran))
        self.places.fill_from("discarded/state", slot_after(plan.state_iterations, ran))
        for group in ("states", "discarded"):
            for site in plan.sites:
                self.places.fill_from(f"{group}/{site}", slot_after(plan.kept, ran))
        if self.states is not None and ran < plan.asked:
            self.states[ran] = self._latest

    def _injected(self, iteration: int, value: Tensor) -> None:
        value = value if self.plan.projector is None else self.plan.projector.apply(value)[0]
        self.places.put_once("loop/injected", value)

    def _state(self) -> Listener:
        put = self._reduced("loop/state", "discarded/state")
        slots = {t: slot for slot, t in enumerate(self.plan.state_iterations)}

        def copy(iteration: int, value: Tensor) -> None:
            if iteration in slots:
                put(slots[iteration], value)
            if self.states is not None:
                # A copy, since code that is not ours may go on to write into the tensor; rounded as
                # in the buffers. Which one is the last, a model that exits early says only then.
                if iteration in self._read or self.model.exits_early:
                    self._latest = value.to(torch.float32, copy=True)
                if iteration in self._read:
                    self.states[iteration] = self._latest

        return copy

    def _layer(self, site: str, layer: int, place: int) -> Listener:
        name = self.model.hook_name(site, layer)
        self.names.append(name)
        if site in RESIDUAL_SITES:
            put = self._reduced(f"states/{site}", f"discarded/{site}", place)
        else:
            put = self._plain(f"states/{site}", place)
        return self._counted(name, put)

    def _pattern(self, layer: int, place: int) -> Listener:
        name = self.model.hook_name("pattern", layer)
        self.names.append(name)

        def put(slot: int, value: Tensor) -> None:
            assert self.maps is not None
            self.maps(value)[:, place, slot] = value

        return self._counted(name, put)

    def _counted(self, name: str, put: Callable[[int, Tensor], None]) -> Listener:
        slots = {t: slot for slot, t in enumerate(self.plan.kept)}

        def copy(iteration: int, value: Tensor) -> None:
            self.fired.fired(name)
            if iteration in slots:
                put(slots[iteration], value)

        return copy

    def _plain(self, path: str, place: int = 0) -> Callable[[int, Tensor], None]:
        buffer, places = self.places.of(path, place), self.places
        return lambda slot, value: places.put(buffer[:, :, slot], value)

    def _reduced(self, path: str, discarded: str, place: int = 0) -> Callable[[int, Tensor], None]:
        projector, plain = self.plan.projector, self._plain(path, place)
        if projector is None:
            return plain
        put_share = self._plain(discarded, place)

        def put(slot: int, value: Tensor) -> None:
            components, share = projector.apply(value)
            plain(slot, components)
            put_share(slot, share)

        return put


class Patterns:
    """Attention patterns of a batch; made when the first one tells how large they are."""

    def __init__(self, model: LoopedModel, plan: CapturePlan, *, rows: int) -> None:
        self.shape = (rows, len(plan.layers), len(plan.kept))
        self.device, self.fill = model.device, model.exits_early
        self.kept: Tensor | None = None

    def of(self, rows: slice) -> Callable[[Tensor], Tensor]:
        """Return what gives the place of these rows, when it is shown a pattern."""

        def place(value: Tensor) -> Tensor:
            if self.kept is None:
                shape = (*self.shape, *value.shape[1:])
                self.kept = torch.empty(shape, device=self.device)
                if self.fill:
                    self.kept.fill_(torch.nan)
            return self.kept[rows]

        return place


def slot_after(iterations: Sequence[int], ran: int) -> int:
    """Return the place of the first iteration that did not run."""
    return sum(t <= ran for t in iterations)
