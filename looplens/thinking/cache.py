"""Keys and values of earlier positions, kept by (section, layer, iteration).

The same core layer runs once an iteration and attends to other keys each time. A cache without the
iteration in its index silently mixes them; here the coordinate comes from the model's loop clock,
and a core layer that runs while the clock stands still is an error. The layers themselves only
know the :class:`~looplens.models.layers.KeyValueCache` protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from looplens.errors import InputError, LoopLensError, near_matches
from looplens.models import LoopedTransformer
from looplens.models.layers import Attention

STRATEGIES = ("full", "latest", "last", "first", "average", "shared:K")


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheStrategy:
    """Which of an earlier position's iterations a position attends to.

    Parameters
    ----------
    slots : int, optional
        How many sets of keys and values a core layer keeps; iteration t reads and writes set
        ``t mod slots``. ``None``: one set an iteration.
    keep : {"last", "first", "average"}
        Whether a later iteration replaces what is in its slot, or joins the mean of a single slot.
    missing : {"error", "latest"}
        What stands in where an earlier position never came to a slot, because it left the loop
        before: nothing, or the entry of its latest iteration up to the running one.

    Notes
    -----
    ``shared:K`` counts iterations; the modulus in Huginn's public code counts layers, so that its
    ``compress-s16`` is ``shared:4`` for a core of four layers.

    References
    ----------
    .. [1] Geiping et al., arXiv:2502.05171, section 6.2 (sharing; the latest entry stands in).
    .. [2] Zhu et al., arXiv:2510.25741, table 14 (last, first and averaged reuse in decoding).
    """

    slots: int | None = None
    keep: Literal["last", "first", "average"] = "last"
    missing: Literal["error", "latest"] = "error"

    def __post_init__(self) -> None:
        if self.slots is not None and self.slots < 1:
            raise InputError(f"a cache needs at least 1 slot an iteration, got {self.slots}")
        if self.keep == "average" and self.slots != 1:
            raise InputError(f"an averaging cache has a single slot, got slots={self.slots}")

    def __str__(self) -> str:
        name = "full" if self.slots is None else f"shared:{self.slots}"
        if self.slots == 1:
            name = self.keep
        if self.missing == "latest":
            name = "latest" if self.slots is None else f"{name}, else latest"
        return name

    @classmethod
    def parse(cls, spec: str | CacheStrategy) -> CacheStrategy:
        """Read a strategy's name.

        ``full``: every iteration attends to its own iteration of earlier positions. ``latest``: so
        does this, and where a position stopped before, to its latest. ``last``, ``first``: to the
        last or first iteration of earlier positions (one set instead of T), ``average``: to the
        mean over their iterations. ``shared:K``: K sets.

        Raises
        ------
        InputError
            If there is no such strategy.
        """
        if isinstance(spec, CacheStrategy):
            return spec
        name, colon, number = str(spec).partition(":")
        if name == "shared" and number.isdecimal() and int(number) > 0:
            return cls(slots=int(number))
        plain = {
            "full": cls(),
            "latest": cls(missing="latest"),
            "last": cls(slots=1),
            "first": cls(slots=1, keep="first"),
            "average": cls(slots=1, keep="average"),
        }
        if colon or name not in plain:
            raise InputError(
                f"unknown cache strategy {spec!r}: expected one of {', '.join(STRATEGIES)} with K "
                f"a number of iterations." + near_matches(name, [*plain, "shared:4"])
            )
        return plain[name]

    def slot(self, iteration: int) -> int:
        """Return the set that an iteration uses."""
        return iteration - 1 if self.slots is None else iteration % self.slots

    def count(self, iterations: int) -> int:
        """Return how many sets so many iterations need."""
        return iterations if self.slots is None else min(self.slots, iterations + 1)


class LoopedCache:
    """The key/value cache of one generation; implements ``KeyValueCache``.

    Parameters
    ----------
    model : LoopedTransformer
        Gives the coordinates: its clock and its ``position_offset`` are read at every call.
    positions : int
        The most positions that will be seen.
    iterations : int
        The most iterations that will be run.
    strategy : CacheStrategy or str
        See :meth:`CacheStrategy.parse`. It concerns the core alone; layers of prelude and coda
        keep one entry a position, the coda that of the latest readout.
    """

    def __init__(
        self,
        model: LoopedTransformer,
        *,
        positions: int,
        iterations: int,
        strategy: CacheStrategy | str = "full",
    ) -> None:
        self.strategy = CacheStrategy.parse(strategy)
        self.positions = positions
        self.iterations = iterations
        self._model = model
        self._places = {
            attention: (section, layer) for section, layer, attention in attentions(model)
        }
        self._layers: dict[tuple[str, int], _LayerEntries] = {}

    @property
    def nbytes(self) -> int:
        """Bytes set aside for keys and values."""
        return sum(entries.nbytes for entries in self._layers.values())

    def extend(self, attention: Attention, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the new positions' keys and values, return those of all positions so far.

        Raises
        ------
        LoopLensError
            If a core layer runs outside an iteration, or twice in one: there is no coordinate to
            keep it under.
        InputError
            If the cache is full, or an earlier position did not run this iteration.
        """
        place = self._places.get(attention)
        if place is None:
            raise InputError("this attention layer belongs to another model than the cache")
        section, layer = place
        iteration = self._iteration(section, layer)
        start = self._model.position_offset
        stop = start + k.shape[2]
        if stop > self.positions:
            raise InputError(f"the cache holds {self.positions} positions, position {stop} came")
        entries = self._layers.get(place)
        if entries is None:
            strategy = self.strategy if section == "core" else CacheStrategy(slots=1)
            count = strategy.count(self.iterations) if section == "core" else 1
            entries = self._layers[place] = _LayerEntries(strategy, count, self.positions, k)
        if section != "coda" and entries.newest == (start, iteration):
            raise LoopLensError(
                f"{section} layer {layer} ran twice in iteration {iteration} at position {start}: "
                "a cache by (section, layer, iteration) has no place for the second. Models with "
                "loops inside a layer cannot be cached."
            )
        past = entries.read(iteration, start, f"{section} layer {layer}") if start else None
        entries.write(iteration, start, k, v)
        if past is None:
            return k, v
        return torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)

    def _iteration(self, section: str, layer: int) -> int:
        if section != "core":
            return 1
        iteration = self._model.clock.iteration
        if iteration is None:
            raise LoopLensError(
                f"core layer {layer} ran while the loop clock stands still: keys and values are "
                "kept by iteration. Run the core inside model.clock.at(t) or model.iterate(...)."
            )
        if iteration > self.iterations:
            raise InputError(
                f"the cache was made for {self.iterations} iterations, iteration {iteration} came"
            )
        return iteration


class _LayerEntries:
    """Keys and values of one layer: [slot, batch, kv_head, position, d_head]."""

    def __init__(self, strategy: CacheStrategy, slots: int, positions: int, like: Tensor) -> None:
        self.strategy = strategy
        batch, heads, _, d_head = like.shape
        self.keys = like.new_empty((slots, batch, heads, positions, d_head))
        self.values = torch.empty_like(self.keys)
        # Which iteration each slot holds of each position; 0 for none.
        self.held: Int[Tensor, "slot pos"] = torch.zeros((slots, positions), dtype=torch.long)
        self.newest: tuple[int, int] | None = None

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    def write(self, iteration: int, start: int, k: Tensor, v: Tensor) -> None:
        slot, here = self.strategy.slot(iteration), slice(start, start + k.shape[2])
        self.newest = (start, iteration)
        if self.strategy.keep == "first" and self.held[slot, start]:
            return
        if self.strategy.keep == "average" and iteration > 1:
            for entries, new in ((self.keys, k), (self.values, v)):
                entries[slot, :, :, here].lerp_(new, 1 / iteration)  # they come one after the other
        else:
            self.keys[slot, :, :, here], self.values[slot, :, :, here] = k, v
        self.held[slot, here] = iteration

    def read(self, iteration: int, stop: int, name: str) -> tuple[Tensor, Tensor]:
        slot = self.strategy.slot(iteration)
        held = self.held[:, :stop]
        absent = held[slot] == 0
        if not absent.any():
            return self.keys[slot, :, :, :stop], self.values[slot, :, :, :stop]
        if self.strategy.missing == "error":
            position = int(absent.nonzero()[0])
            raise InputError(
                f"position {position} holds no keys of {name} for iteration {iteration}: it ran "
                f"{int(held[:, position].max())}. Use the cache strategy 'latest', where a "
                "position's latest iteration stands in."
            )
        # The latest held iteration, those behind the running one only where there is no other.
        age = torch.where(held > iteration, held - held.max() - 1, held)
        age = torch.where(held == 0, torch.iinfo(torch.long).min, age)
        source = torch.where(absent, age.argmax(0), slot)
        return self._gather(self.keys, source), self._gather(self.values, source)

    def _gather(
        self, entries: Float[Tensor, "slot batch kv_head pos d_head"], source: Int[Tensor, " pos"]
    ) -> Float[Tensor, "batch kv_head pos d_head"]:
        position = torch.arange(len(source), device=entries.device)
        picked = entries[source.to(entries.device), :, :, position]  # [pos, batch, kv_head, d_head]
        return picked.permute(1, 2, 0, 3)


def attentions(model: LoopedTransformer) -> Iterator[tuple[str, int, Attention]]:
    """Yield every attention layer of a model with its section and its number there.

    Raises
    ------
    InputError
        If a layer holds its attention elsewhere, as layers with loops of their own do.
    """
    for section in ("prelude", "core", "coda"):
        for layer, block in enumerate(getattr(model, section)):
            attention = getattr(block, "attn", None)
            if not isinstance(attention, Attention):
                raise InputError(
                    f"{section} layer {layer} is a {type(block).__name__}, whose attention has no "
                    "place in a cache by (section, layer, iteration)"
                )
            yield section, layer, attention


@contextmanager
def caching(model: LoopedTransformer, cache: LoopedCache) -> Iterator[LoopedCache]:
    """Let a model's attention use a cache for the duration of a ``with`` block.

    Whatever happens inside, the model leaves it as it came: without a cache, at position 0.

    Raises
    ------
    InputError
        If the model is already using one.
    """
    layers = [attention for _, _, attention in attentions(model)]
    if any(attention.cache is not None for attention in layers):
        raise InputError("this model is already generating from a cache: finish that first")
    offset = model.position_offset
    try:
        for attention in layers:
            attention.cache = cache
        yield cache
    finally:
        for attention in layers:
            attention.cache = None
        model.position_offset = offset
