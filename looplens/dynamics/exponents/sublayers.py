"""Where in a pass the state is stretched: the residual stream between the sublayers.

Only places that everything passes through part a step into factors. Those are the stream after the
injection, after attention, after the MLP, and after norms that stand in the stream. A norm on a
branch (before attention, or on its output) has the stream beside it and counts to its branch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from looplens.dynamics.maps.loop_maps import SequenceMap, TokenMap
from looplens.dynamics.maps.loop_step import LoopStep
from looplens.dynamics.maps.state_map import Rows, StateMap
from looplens.errors import SiteError
from looplens.models.native import NativeLoop

Heard = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Sublayers:
    """The places along a pass, in order; the last one is the next state.

    Attributes
    ----------
    names : tuple of str
        Of the sublayers; each one ends at its place.
    sites : tuple of str
        Hook points that have to be heard.
    places : tuple of callable
        Each takes what was heard and returns the stream, ``[row, pos, d_model]``.
    """

    names: tuple[str, ...]
    sites: tuple[str, ...]
    places: tuple[Callable[[Heard], Tensor], ...]


def sublayers_of(step: LoopStep) -> Sublayers | None:
    """Return the sublayers of a loop, or None where fewer than two can be told apart.

    Of a native model: injection, attention and MLP of every core layer, norms in the stream, the
    norm of the loop. Of a wrapped one: those of its layers whose output decides the next state.
    """
    found: list[tuple[str, Callable[[Heard], Tensor]]] = []
    sites: list[str] = []

    def place(name: str, *wanted: str) -> None:
        sites.extend(wanted)
        found.append((name, lambda heard: sum((heard[s] for s in wanted[1:]), heard[wanted[0]])))

    if isinstance(step.looped, NativeLoop):
        cfg = step.looped.model.cfg
        if cfg.injection != "none":
            place("injection", "core.0.hook_resid_pre")
        for layer in range(cfg.n_core):
            at = f"core.{layer}.hook_"
            if cfg.norm == "huginn":  # both norms stand in the stream
                place(f"attention {layer}", f"{at}resid_pre", f"{at}attn_out")
                place(f"norm {layer}.2", f"{at}resid_mid")
                place(f"MLP {layer}", f"{at}resid_mid", f"{at}mlp_out")
                place(f"norm {layer}.4", f"{at}resid_post")
            else:
                place(f"attention {layer}", f"{at}resid_mid")
                place(f"MLP {layer}", f"{at}resid_post")
        if cfg.loop_norm:
            place("loop norm", "hook_state")
    else:
        for layer in range(step.looped.n_layers):
            site = step.looped.hook_name("resid_post", layer)
            if "resid_post" in step.looped.recordable and _decides(step, site):
                place(f"layer {layer}", site)
        place("rest of the pass", "hook_state")
    names, places = zip(*found, strict=True)
    made = Sublayers(names, tuple(dict.fromkeys(sites)), places)
    return made if len(found) > 1 and _heard(step, made) else None


@torch.no_grad()
def _heard(step: LoopStep, sublayers: Sublayers) -> bool:
    """Tell whether all places show themselves in a step, as streams of the state's shape."""
    state = torch.zeros(1, *step.shape, dtype=step.looped.dtype, device=step.looped.device)
    heard: dict[str, Tensor] = {}
    try:
        with _listening(step, sublayers, heard):
            step(state)
    except SiteError:
        return False
    return all(site in heard and heard[site].shape == state.shape for site in sublayers.sites)


@torch.no_grad()
def _decides(step: LoopStep, site: str) -> bool:
    """Tell whether everything passes through a site, by putting another state's value there."""
    draw = torch.Generator().manual_seed(0)
    one, other = (
        torch.randn(1, *step.shape, generator=draw).to(step.looped.device, step.looped.dtype)
        for _ in range(2)
    )
    heard: list[Tensor] = []
    owner: Any = getattr(step.looped, "model", step.looped)
    try:
        with owner.hooks(fwd_hooks=[(site, lambda value, hook: heard.append(value.clone()))]):
            wanted = step(other)
        if len(heard) != 1:
            return False
        with owner.hooks(fwd_hooks=[(site, lambda value, hook: heard[0].clone())]):
            found = step(one)
    except SiteError:
        return False
    return bool((found - wanted).norm() <= 1e-4 * wanted.norm())


@contextmanager
def _listening(step: LoopStep, sublayers: Sublayers, heard: dict[str, Tensor]) -> Iterator[None]:
    """Keep what passes the places, from whatever runs the layers of the step's model."""

    def keep(value: Tensor, hook: Any) -> None:
        heard[hook.name] = value.clone()  # foreign code may go on to write into it

    owner: Any = getattr(step.looped, "model", step.looped)
    with owner.hooks(fwd_hooks=[(site, keep) for site in sublayers.sites]):
        yield


class Staged(StateMap):
    """A map that yields the stream at every place of a pass, one after the other, as one row.

    Parameters
    ----------
    inner : TokenMap or SequenceMap
        The map whose pass is parted. Tokens must see no later ones: only then is the stream of a
        token all that its own derivative passes through.
    sublayers : Sublayers
        Where.
    """

    def __init__(self, inner: TokenMap | SequenceMap, sublayers: Sublayers) -> None:
        self.inner, self.sublayers = inner, sublayers
        super().__init__(
            inner.function, inner.shape, dtype=inner.dtype, device=inner.device, ways=inner.ways
        )

    def each(self, times: int) -> Staged:
        """Return the map of rows of which each stands so many times in a row."""
        return Staged(self.inner.each(times), self.sublayers)  # type: ignore[arg-type]

    def rows(self, chosen: Tensor) -> Staged:
        """Return the map of some of the rows."""
        return Staged(self.inner.rows(chosen), self.sublayers)  # type: ignore[arg-type]

    def _note_ways(self) -> None:
        self.inner._note_ways()

    def _flat_function(self, x: Rows) -> Rows:
        inner = self.inner
        heard: dict[str, Tensor] = {}
        with _listening(inner.step, self.sublayers, heard):
            inner.function(x.reshape(-1, *inner.shape))
        streams = torch.stack([place(heard) for place in self.sublayers.places], dim=1)
        if isinstance(inner, TokenMap):  # row place pos d_model
            rows = torch.arange(len(x), device=x.device)
            # A token that runs alone is the only position of its pass.
            here = torch.zeros_like(inner.positions) if inner.is_alone else inner.positions
            streams = streams[rows, :, here]
        return streams.reshape(len(x), -1)
