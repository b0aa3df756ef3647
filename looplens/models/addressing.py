"""Hooks and caches by site address, on a model that keeps a loop clock.

This is the join between TransformerLens hook points, which know their site, and the clock, which
knows the pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from looplens.errors import SiteError, near_matches
from looplens.loops import SiteAddress, match_sites

if TYPE_CHECKING:
    from looplens.models.looped import LoopedTransformer

Hook = tuple[str | Callable[[str], bool], Callable[..., Any]]


class LoopCache(Mapping[str, Tensor]):
    """Activations by site and pass.

    Keys are concrete: ``core.0.hook_resid_post@7`` inside the loop, ``prelude.0.hook_resid_post``
    outside. A site of the loop without a pass gives all passes that were kept, stacked along a new
    first axis.
    """

    def __init__(self) -> None:
        self._kept: dict[str, dict[int | None, Tensor]] = {}

    def keep(self, site: str, iteration: int | None, value: Tensor) -> None:
        """Store one firing."""
        self._kept.setdefault(site, {})[iteration] = value

    def iterations(self, site: str) -> list[int]:
        """Return the passes kept of a site of the loop, in order."""
        return [t for t in self._kept.get(site, {}) if t is not None]

    def __getitem__(self, key: str) -> Tensor:
        site, at, iteration = key.partition("@")
        firings = self._kept.get(site)
        if firings is None:
            raise KeyError(f"{site!r} is not in the cache.{near_matches(site, self._kept)}")
        if at:
            passes = self.iterations(site)
            try:
                return firings[int(iteration)]
            except (KeyError, ValueError):
                kept = f"{passes[0]}..{passes[-1]}" if passes else "none: it is outside the loop"
                raise KeyError(f"pass {iteration!r} of {site!r} (kept: {kept})") from None
        if None in firings:
            return firings[None]
        return torch.stack(list(firings.values()))

    def __iter__(self) -> Iterator[str]:
        for site, firings in self._kept.items():
            for iteration in firings:
                yield site if iteration is None else f"{site}@{iteration}"

    def __len__(self) -> int:
        return sum(map(len, self._kept.values()))

    def __repr__(self) -> str:
        return f"LoopCache({len(self._kept)} sites, {len(self)} activations)"


def caching_hooks(
    model: LoopedTransformer,
    cache: LoopCache,
    names_filter: str | Sequence[str] | Callable[[str], bool] | None,
    device: str | torch.device | None,
) -> list[Hook]:
    """Return hooks that keep every firing that ``names_filter`` means in ``cache``."""

    def keep(value: Tensor, hook: Any) -> None:
        kept = value.detach()
        # A copy only where the model could still write into it: it never does in place.
        cache.keep(hook.name, model.clock.iteration, kept if device is None else kept.to(device))

    if names_filter is None:
        return [("**", keep)]
    if callable(names_filter) or isinstance(names_filter, str):
        return [(names_filter, keep)]
    return [(name, keep) for name in names_filter]


@contextmanager
def add_addressed_hooks(
    model: LoopedTransformer, fwd_hooks: Sequence[Hook], bwd_hooks: Sequence[Hook]
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
    model: LoopedTransformer,
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
