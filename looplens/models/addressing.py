"""Hooks and caches by site address, on a model that keeps a loop clock.

This is the join between TransformerLens hook points, which know their site, and the clock, which
knows the pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor
from transformer_lens.utilities.slice import Slice, SliceInput

from looplens.errors import SiteError
from looplens.loops import LoopClock, SiteAddress, match_sites
from looplens.models.loop_cache import LoopCache

__all__ = [
    "Addressable",
    "Axes",
    "Hook",
    "LoopCache",
    "add_addressed_hooks",
    "axes_of",
    "caching_hooks",
]

Hook: TypeAlias = tuple[str | Callable[[str], bool], Callable[..., Any]]


@runtime_checkable
class Addressable(Protocol):
    """A model with hooks by site address, and a clock that the hooks can read."""

    clock: LoopClock

    @property
    def hook_dict(self) -> Mapping[str, Any]:
        """Hook points by name."""

    def hooks(self, fwd_hooks: Sequence[Any] = ()) -> AbstractContextManager[Any]:
        """Add hooks by site address for the duration of a ``with`` block."""


# Hook points whose activations have a head axis, by the last part of their name.
_PER_HEAD = frozenset({"hook_q", "hook_k", "hook_v", "hook_z", "hook_rot_q", "hook_rot_k"})
_MAPS = frozenset({"hook_pattern", "hook_attn_scores"})


@dataclass(frozen=True, slots=True)
class Axes:
    """Where the positions and the heads of an activation lie; the batch is always first.

    Of an attention map, [batch, head, query, key], the position is that of the query.
    """

    pos: int
    head: int | None = None


def axes_of(site: str) -> Axes:
    """Return the axes of the activations at a hook point.

    Examples
    --------
    >>> axes_of("core.0.attn.hook_z")
    Axes(pos=1, head=2)
    """
    last = site.rpartition(".")[2]
    if last in _MAPS:
        return Axes(pos=2, head=1)
    return Axes(pos=1, head=2 if last in _PER_HEAD else None)


def caching_hooks(
    model: Addressable,
    cache: LoopCache,
    names_filter: str | Sequence[str] | Callable[[str], bool] | None,
    device: str | torch.device | None,
    pos_slice: SliceInput | slice | Slice = None,
) -> list[Hook]:
    """Return hooks that keep every firing that ``names_filter`` means in ``cache``.

    ``pos_slice`` keeps some positions only, in the notation of TransformerLens: an int drops the
    axis, ``(start, stop)`` is a slice, a list is a list.
    """
    positions = pos_slice if isinstance(pos_slice, Slice) else Slice(pos_slice)

    def keep(value: Tensor, hook: Any) -> None:
        kept = positions.apply(value.detach(), axes_of(hook.name).pos)
        # A copy only where the model could still write into it: it never does in place.
        cache.keep(hook.name, model.clock.iteration, kept if device is None else kept.to(device))

    if names_filter is None:
        return [("**", keep)]
    if callable(names_filter) or isinstance(names_filter, str):
        return [(names_filter, keep)]
    return [(name, keep) for name in names_filter]


@contextmanager
def add_addressed_hooks(
    model: Addressable, fwd_hooks: Sequence[Hook], bwd_hooks: Sequence[Hook]
) -> Iterator[tuple[list[Hook], list[Hook]]]:
    """Turn addressed hooks into hooks on single sites that look at the clock.

    Raises
    ------
    SiteError
        On entry if an address matches no site, or a backward hook names a pass; on exit if an
        address with passes matched none of those that ran.
    """
    fired: dict[str, int] = {}
    ran: list[int] = []
    forward: list[Hook] = []
    for target, function in fwd_hooks:
        if callable(target):
            forward.append((target, function))
            continue
        address = SiteAddress.parse(target)
        sites = match_sites(address, model.hook_dict)
        if address.iterations is None:
            forward += [(site, function) for site in sites]
            continue
        fired.setdefault(str(address), 0)
        guarded = _guard(model, address, function, fired, ran)
        forward += [(site, guarded) for site in sites]

    backward: list[Hook] = []
    for target, function in bwd_hooks:
        if callable(target):
            backward.append((target, function))
            continue
        address = SiteAddress.parse(target)
        if address.iterations is not None:
            raise SiteError(
                f"backward hooks cannot name a pass ({target!r}): gradients arrive after the loop "
                "has ended. Register a tensor hook from a forward hook instead."
            )
        backward += [(site, function) for site in match_sites(address, model.hook_dict)]

    yield forward, backward
    unmatched = [address for address, count in fired.items() if not count]
    if unmatched and ran:
        raise SiteError(
            f"site address {unmatched[0]!r} matched none of the passes that ran "
            f"(iterations 1..{max(ran)})"
        )
    if unmatched:
        raise SiteError(
            f"site address {unmatched[0]!r} names passes of the loop, but that site never fired "
            "inside the loop"
        )


def _guard(
    model: Addressable,
    address: SiteAddress,
    function: Callable[..., Any],
    fired: dict[str, int],
    ran: list[int],
) -> Callable[..., Any]:
    def guarded(value: Tensor, hook: Any) -> Any:
        clock = model.clock
        if clock.iteration is not None:
            ran[:] = [max([clock.iteration, *ran])]
        if not address.matches_iteration(clock.iteration, clock.iterations):
            return None
        fired[str(address)] += 1
        return function(value, hook=hook)

    return guarded
