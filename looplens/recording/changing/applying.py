"""Interventions become hooks: on any model with a loop clock and hooks by site address.

The address machinery of :mod:`looplens.models.addressing` decides when a hook runs; here is what
it does then, and the error where it never did anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from looplens.errors import InputError, SiteError
from looplens.loops import SiteAddress, match_sites
from looplens.models.addressing import Addressable, Axes, axes_of
from looplens.recording.changing.donors import Donor, as_donor
from looplens.recording.changing.interventions import Intervention
from looplens.recording.changing.selecting import Part, chosen

Hook = tuple[str, Callable[..., Tensor | None]]


def hooks_for(interventions: Intervention | Iterable[Intervention], model: object) -> list[Hook]:
    """Return interventions as hooks for ``model.run_with_hooks(..., fwd_hooks=)``.

    Parameters
    ----------
    interventions : Intervention or iterable of Intervention
        Applied in this order: on one site, the second sees what the first made.
    model : LoopedTransformer or wrapped model
        Whose clock the hooks read.

    Raises
    ------
    InputError, SiteError
        As :func:`check_interventions`.
    """
    checked = check_interventions(interventions, model)
    donors: dict[tuple[int, int | None, int], Donor] = {}  # what one has read, all may use
    found: list[Hook] = []
    for item in checked:
        key = (id(item.donor), item.prompt, item.restart)
        if item.donor is not None and key not in donors:
            donors[key] = as_donor(item.donor, prompt=item.prompt, restart=item.restart)
        found.append((item.address, _InterventionHook(item, _addressable(model), donors.get(key))))
    return found


@contextmanager
def applied(model: object, interventions: Intervention | Iterable[Intervention]) -> Iterator[None]:
    """Apply interventions to every forward inside a ``with`` block.

    Hooks that are added inside, such as those that record, see the changed activations.

    Raises
    ------
    SiteError
        On entry if an address matches no site; on exit if an intervention changed nothing: none of
        its passes ran, its site never fired, or its slice of tokens was always empty.
    InputError
        During a forward, where a value, token or head does not fit the activation.
    """
    hooks = hooks_for(interventions, model)
    if not hooks:
        yield
        return
    with _addressable(model).hooks(fwd_hooks=hooks):
        yield
    for address, hook in hooks:
        assert isinstance(hook, _InterventionHook)
        if not hook.changes:
            raise SiteError(
                f"the intervention at {address!r} changed nothing: its site never fired, or its "
                "tokens named none of the positions"
            )


def check_interventions(
    interventions: Intervention | Iterable[Intervention],
    model: object,
    iterations: int | None = None,
) -> tuple[Intervention, ...]:
    """Check what can be known before a forward.

    Parameters
    ----------
    interventions : Intervention or iterable of Intervention
        What is to be applied.
    model : LoopedTransformer or wrapped model
        To what.
    iterations : int, optional
        Passes that will run; where given, an address must mean at least one of them.

    Returns
    -------
    tuple of Intervention
        The same.

    Raises
    ------
    InputError
        If something else is among them, heads are named where there are none, or the model offers
        no hooks.
    SiteError
        If an address matches no hook point, or none of the passes.
    """
    listed = [interventions] if isinstance(interventions, Intervention) else list(interventions)
    for item in listed:
        if not isinstance(item, Intervention):
            raise InputError(
                f"expected an Intervention, such as Intervention.ablate('core.0.hook_mlp_out@3'), "
                f"got {type(item).__name__}"
            )
        address = SiteAddress.parse(item.address)
        sites = match_sites(address, _addressable(model).hook_dict)
        headless = [site for site in sites if axes_of(site).head is None]
        if item.heads is not None and headless:
            raise InputError(f"{item.address!r}: {headless[0]} has no heads: leave heads= out")
        if iterations is not None and address.iterations is not None:
            passes = range(1, iterations + 1)
            if not any(address.matches_iteration(t, iterations) for t in passes):
                raise SiteError(
                    f"site address {item.address!r} means none of the passes (1..{iterations})"
                )
    return tuple(listed)


def _addressable(model: object) -> Addressable:
    if isinstance(model, Addressable):
        return model
    raise InputError(
        f"interventions need a model with hooks by site address, and {type(model).__name__} has "
        "none"
    )


class _InterventionHook:
    """The hook function of one intervention."""

    def __init__(self, intervention: Intervention, model: Addressable, donor: Donor | None) -> None:
        self.intervention = intervention
        self.model = model
        self.donor = donor
        self.changes = 0

    def __call__(self, activation: Tensor, hook: Any) -> Tensor | None:
        item = self.intervention
        try:
            offset = getattr(self.model, "position_offset", 0)
            axes = axes_of(hook.name)
            part = Part(activation.shape, axes, item.tokens, item.heads, offset=offset)
            if part.is_empty:
                return None
            self.changes += 1
            return part.write(activation, self._new(activation, part, hook.name, axes, offset))
        except InputError as error:
            raise InputError(f"intervention at {item.address!r} on {hook.name}: {error}") from None

    def _new(self, activation: Tensor, part: Part, site: str, axes: Axes, offset: int) -> Tensor:
        item = self.intervention
        if item.kind == "ablate" and item.mode == "mean":
            return self._mean(activation, part, site, axes, offset)
        if item.kind == "ablate":
            return torch.zeros_like(part.read(activation))
        if item.kind == "noise":
            return self._noisy(activation, part, axes, offset)
        if item.kind == "clamp":
            return self._donated(activation, part, site, axes, offset)
        assert item.value is not None
        value = part.fit(item.value, activation)
        return part.read(activation) + value if item.kind == "add" else value

    def _noisy(self, activation: Tensor, part: Part, axes: Axes, offset: int) -> Tensor:
        item = self.intervention
        if axes.pos != 1:
            raise InputError(
                "attention patterns with noise are no patterns, and scores are infinite where "
                "nothing is seen: add noise to q, k, v or z"
            )
        assert item.size is not None
        shape, now = activation.shape[2:], self.model.clock.iteration or 0
        unit = torch.zeros(1, *activation.shape[1:], dtype=torch.float64)
        for token in chosen(item.tokens, offset + activation.shape[1], "token"):
            if token >= offset:
                draw = torch.Generator().manual_seed(_mixed(item.seed, now, token))
                unit[0, token - offset] = torch.randn(shape, generator=draw, dtype=torch.float64)
        here = part.read(activation)
        direction = part.read(unit.to(activation).expand_as(activation))
        rest = tuple(range(here.ndim - len(self._after(item, shape)), here.ndim))
        length = here.norm(dim=rest, keepdim=True)
        direction = direction / direction.norm(dim=rest, keepdim=True)
        return here + item.size * length * direction

    @staticmethod
    def _after(item: Intervention, shape: torch.Size) -> torch.Size:
        """Return the axes of a token's chosen activation: an int drops that of the heads."""
        return shape[1:] if isinstance(item.heads, int) else shape

    def _mean(self, activation: Tensor, part: Part, site: str, axes: Axes, offset: int) -> Tensor:
        if axes.pos != 1:
            raise InputError(
                "the mean of attention maps over queries is no attention pattern: ablate to zero, "
                "or clamp to a donor"
            )
        if self.donor is None:
            if offset:
                raise InputError("token by token there is no sequence to average over: give donor=")
            return part.read(self._mean_of_real(activation).expand_as(activation))
        given = _batched(self.donor.at(site, self.model.clock.iteration), activation)
        if given.shape[2:] != activation.shape[2:]:
            raise InputError(_misfit(given, activation))
        return part.read(given.mean((0, axes.pos), keepdim=True).expand_as(activation))

    def _mean_of_real(self, activation: Tensor) -> Tensor:
        """Return the mean over the positions of each sequence, padding left out."""
        rows, pos = activation.shape[:2]
        ask = getattr(self.model, "real_tokens", None)  # only our own models know padding
        real = None if ask is None else ask(rows, pos)
        if real is None:
            return activation.mean(1, keepdim=True)
        real = real.reshape(rows, pos, *[1] * (activation.ndim - 2))
        total = activation.where(real, torch.zeros_like(activation)).sum(1, keepdim=True)
        return total / real.sum(1, keepdim=True)

    def _donated(
        self, activation: Tensor, part: Part, site: str, axes: Axes, offset: int
    ) -> Tensor:
        assert self.donor is not None
        item = self.intervention
        given = _batched(self.donor.at(site, self.model.clock.iteration), activation)
        here, there = offset + activation.shape[axes.pos], given.shape[axes.pos]
        if item.tokens is None and item.donor_tokens is None and not offset and here != there:
            raise InputError(
                f"the donor has {there} positions and this sequence {here}: say which ones with "
                "tokens= and donor_tokens="
            )
        wanted = chosen(item.tokens, here, "token")
        source = item.tokens if item.donor_tokens is None else item.donor_tokens
        taken = wanted if source is None else chosen(source, there, "donor token")
        if len(wanted) != len(taken):
            raise InputError(
                f"{len(wanted)} tokens are to be clamped to {len(taken)} tokens of the donor"
            )
        taken = [place for place, token in zip(taken, wanted, strict=True) if token >= offset]
        single = isinstance(item.tokens, int)
        values = Part(given.shape, axes, taken[0] if single else taken, item.heads).read(given)
        target = part.read(activation)
        if values.shape[1:] != target.shape[1:] or len(values) not in (1, len(target)):
            raise InputError(_misfit(given, activation))
        return values.expand_as(target)


def _mixed(*numbers: int) -> int:
    """Return one seed for several numbers, the same on every machine."""
    text = ",".join(map(str, numbers)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def _batched(given: Tensor, activation: Tensor) -> Tensor:
    value = given.to(activation)
    if value.ndim == activation.ndim - 1:
        value = value[None]
    if value.ndim != activation.ndim:
        raise InputError(_misfit(given, activation))
    return value


def _misfit(given: Tensor, activation: Tensor) -> str:
    return (
        f"the donor's activation of shape {tuple(given.shape)} does not fit one of shape "
        f"{tuple(activation.shape)}"
    )
