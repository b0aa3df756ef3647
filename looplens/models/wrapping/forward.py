"""One run of a module that is not ours, with a counter on everything that is declared.

Hooks, the depth and dropout are as they were when the run is over. This module knows the
declaration and the module, not what is asked of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from typing import Any

from jaxtyping import Int
from torch import Tensor, nn

from looplens.errors import SiteError
from looplens.loops import LoopClock
from looplens.loops.schedule import Schedule
from looplens.loops.spec import LoopSpec, Start, Tap
from looplens.models.protocol import STATE, Listener, Site
from looplens.models.wrapping.counting import FiringCounter
from looplens.models.wrapping.depth import depth, written_out_attention
from looplens.models.wrapping.hooks import HookFunction, NamedPoint, passed_through
from looplens.models.wrapping.sizes import Sizes
from looplens.models.wrapping.taps import see

_IN_LAYER = {"resid_pre": Tap(side="input"), "resid_post": Tap()}
_HEADS = {"q": "n_heads", "z": "n_heads", "k": "n_kv_heads", "v": "n_kv_heads"}


class Forward:
    """Runs of a module.

    Parameters
    ----------
    module : nn.Module
        The module.
    spec : LoopSpec
        Where it loops.
    sizes : Sizes
        How many heads it has, for sites that are split into heads.

    Attributes
    ----------
    inside : dict of str to Tap
        What can be recorded of a layer, relative to it.
    paths : tuple of str
        The declared layers, each once.
    """

    def __init__(self, module: nn.Module, spec: LoopSpec, sizes: Sizes) -> None:
        self.module, self.spec, self.sizes = module, spec, sizes
        self.schedule = Schedule(spec)
        self.clock = LoopClock()
        self.inside: dict[str, Tap] = {**_IN_LAYER, **spec.sites}  # type: ignore[dict-item]
        if isinstance(spec.pattern, Tap):
            self.inside["pattern"] = spec.pattern
        layers: Mapping[str, Sequence[str]] = spec.layers  # type: ignore[assignment]
        self.paths = tuple(dict.fromkeys(path for paths in layers.values() for path in paths))

    def run(
        self,
        rows: Int[Tensor, "row pos"],
        given: Tensor | None,
        iterations: int,
        listen: Mapping[Site, Listener],
        hooked: Mapping[Site, Sequence[tuple[NamedPoint, HookFunction]]] = MappingProxyType({}),
    ) -> tuple[int, Any]:
        """Run the module once.

        Parameters
        ----------
        rows : Int[Tensor, "row pos"]
            Token ids.
        given : Float[Tensor, "row pos d_model"] or None
            The states to start from; None leaves the module alone.
        iterations : int
            Passes of the axis.
        listen : mapping of Site to Listener
            What to report.
        hooked : mapping of Site to sequence
            Functions that may change what passes through a site; reports come after them.

        Returns
        -------
        ran : int
            Iterations that ran.
        output : object
            What the module returned.

        Raises
        ------
        SiteError
            If the module did not loop as declared.
        """
        outer = self.schedule.outer_count(iterations)
        keywords = dict(self.spec.keywords)
        with ExitStack() as stack:
            stack.enter_context(evaluating(self.module))
            keywords |= stack.enter_context(depth(self.module, self.spec, outer))
            stack.enter_context(self.clock.forward(iterations))
            if any(site.name == "pattern" for site in (*listen, *hooked)):
                stack.enter_context(written_out_attention(self.module))
            began = self._watch_start(stack, given, keywords, listen)
            counters = self._count(stack, outer, listen, hooked, began)
            call = self.spec.call
            output = call(self.module, rows, **keywords) if call else self.module(rows, **keywords)
        ran = self.schedule.outer_passes_run(
            {counter.name: counter.seen for counter in counters},
            {counter.name: counter.per_pass for counter in counters},
            outer,
        )
        return ran * self.schedule.per_outer_pass, output

    def _watch_start(
        self,
        stack: ExitStack,
        given: Tensor | None,
        keywords: dict[str, Any],
        listen: Mapping[Site, Listener],
    ) -> list[Tensor]:
        """See, or replace, the state that the loop begins with; returns a list that it fills."""
        start = own_start(self.spec)
        at, keyword, scale = start.at, start.keyword, start.scale
        began: list[Tensor] = []
        if given is not None and keyword:
            keywords[keyword] = given
        if at is None and not keyword:
            first = next(iter(self.schedule.first_layers()))
            at = Tap(first, "input")

        def first_state(value: Tensor) -> Tensor | None:
            if began:
                return None
            if start.read is not None:
                began.append(start.read(self.module, value))
            else:
                began.append(value if scale == 1 else value * scale)
            if STATE in listen:
                listen[STATE](0, began[0] if given is None else given)
            return None if given is None or keyword else (given / scale).to(value)

        if at is not None:
            stack.callback(see(self.module, at, first_state).remove)
        elif given is not None:
            began.append(given)
            if STATE in listen:
                listen[STATE](0, given)
        return began

    def _count(
        self,
        stack: ExitStack,
        outer: int,
        listen: Mapping[Site, Listener],
        hooked: Mapping[Site, Sequence[tuple[NamedPoint, HookFunction]]],
        began: Sequence[Tensor],
    ) -> list[FiringCounter]:
        """Put a counter on every layer and state, and on what is listened to inside layers."""
        counters: list[FiringCounter] = []

        def put(tap: Tap, firings: list, hear: Any = None) -> None:
            counter = FiringCounter(str(tap), firings, self.schedule.per_outer_pass, outer, hear)
            counters.append(counter)
            stack.callback(see(self.module, tap, counter).remove)

        taps: Mapping[str, Tap] = self.spec.state  # type: ignore[assignment]
        loops_of: dict[Tap, list[str]] = {}
        for name, tap in taps.items():
            loops_of.setdefault(tap, []).append(name)
        report = listen.get(STATE)

        def state(iteration: int, _: int, value: Tensor) -> Tensor | None:
            if not began:
                raise SiteError(
                    "the first iteration ended before the initial state was seen: declare start= "
                    "at a place that runs before the loop, or at the input of its first layer"
                )
            changed = passed_through(value, iteration, self.clock, hooked.get(STATE, ()))
            if report is not None:
                report(iteration, (value if changed is None else changed).detach())
            return changed

        sites = {site.name: None for site in (*listen, *hooked) if site.layer is not None}
        for path in self.paths:
            firings = self.schedule.of_layer(path)
            put(Tap(path), firings)
            for site in sites if any(firings) else ():
                put(self.inside[site].under(path), firings, self._hear(site, listen, hooked))
        # After the layers, whose hooks may change what comes out of them.
        for tap, loops in loops_of.items():
            hear = state if tap == self.spec.axis_state else None
            put(tap, self.schedule.of_state(tap, loops), hear)
        return counters

    def _hear(
        self,
        site: str,
        listen: Mapping[Site, Listener],
        hooked: Mapping[Site, Sequence[tuple[NamedPoint, HookFunction]]],
    ) -> Any:
        heads = getattr(self.sizes, _HEADS[site]) if site in _HEADS else None

        def hear(iteration: int, layer: int, value: Tensor) -> Tensor | None:
            flat = bool(heads) and value.ndim == 3
            if flat:
                value = value.unflatten(-1, (heads, -1))
            key = Site(site, layer)
            changed = passed_through(value, iteration, self.clock, hooked.get(key, ()))
            if (listener := listen.get(key)) is not None:
                listener(iteration, (value if changed is None else changed).detach())
            return changed.flatten(-2) if changed is not None and flat else changed

        return hear


def own_start(spec: LoopSpec) -> Start:
    """Return where the state begins."""
    assert isinstance(spec.start, Start)  # made one on construction
    return spec.start


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Switch dropout off, and back to how it was."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True
