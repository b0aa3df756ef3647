"""A knob on a part of the loop: what it is multiplied by, in every iteration, differentiably.

A gain of 1 is the model as it is, 0 takes the part away. Rows may have gains of their own, so one
call answers for many settings of the knob.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from looplens.dynamics.maps.loop_step import Hook, LoopStep
from looplens.errors import InputError, SiteError
from looplens.loops import SiteAddress, match_sites
from looplens.models.addressing import Axes, axes_of
from looplens.recording.changing.selecting import Selection, chosen, described_selection

STATE, INJECTION = "state", "injection"
_LAYER = re.compile(r"core\.(\d+|\*)")

Gains = Float[Tensor, " row"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Gain:
    """What a knob multiplies.

    Parameters
    ----------
    part : str
        ``state``: the state as an iteration reads it. ``injection``: what the loop is fed with.
        ``core.2``: what this layer adds to the stream that it reads, of all layers for ``core.*``.
        Else a site address, such as ``core.0.hook_mlp_out``: what passes there.
    heads : int, sequence of int, slice or None
        Of a site that has heads, such as ``core.0.attn.hook_z``; None for all.
    tokens : int, sequence of int, slice or None
        Positions at which the part is multiplied; None for all.

    Raises
    ------
    InputError
        If heads or tokens are no selection, or heads are named of a part that has none.
    SiteError
        If the part names iterations: a knob acts in all of them.
    """

    part: str = STATE
    heads: Selection = None
    tokens: Selection = None

    def __post_init__(self) -> None:
        described_selection(self.heads, "heads")
        described_selection(self.tokens, "tokens")
        if self.heads is not None and not self._is_site:
            raise InputError(
                f"heads belong to a site that has them, such as 'core.0.attn.hook_z'; {self.part!r}"
                " has none"
            )
        if self._is_site and SiteAddress.parse(self.part).iterations is not None:
            raise SiteError(
                f"{self.part!r} names iterations, and a fixed point is one of an iteration that is "
                "always the same: leave out the part behind the '@'"
            )

    @classmethod
    def of(cls, gain: str | Gain) -> Gain:
        """Return a gain, given itself or the name of its part."""
        if isinstance(gain, Gain):
            return gain
        if isinstance(gain, str):
            return cls(part=gain)
        raise InputError(
            f"gain must be a Gain or the name of a part, such as 'state', 'injection' or 'core.0'; "
            f"got {type(gain).__name__}"
        )

    def describe(self) -> dict[str, Any]:
        """Return the gain in values that JSON can hold."""
        return {
            "part": self.part,
            "heads": described_selection(self.heads, "heads"),
            "tokens": described_selection(self.tokens, "tokens"),
        }

    @property
    def _is_site(self) -> bool:
        return self.part not in (STATE, INJECTION) and not _LAYER.fullmatch(self.part)


class Knob:
    """A gain on the loop of one prompt.

    Parameters
    ----------
    step : LoopStep
        The loop.
    gain : Gain
        What is multiplied.

    Raises
    ------
    SiteError
        If the part is no site of the model, or does not fire within an iteration.
    InputError
        If a head or a token does not exist, or a wrapped model's injection is asked for.
    """

    def __init__(self, step: LoopStep, gain: Gain) -> None:
        self.step, self.gain = step, gain
        self._sites = self._find_sites()
        chosen(gain.tokens, step.shape[0], "token")
        if gain.part == INJECTION:
            if step.injected is not None and not step.looped.injects:
                raise InputError(
                    f"{step.looped.model_name} injects nothing into its loop: there is no injection"
                    " to multiply. Take gain='state' or a layer, such as 'core.0'."
                )
            step.fed(torch.zeros(1) if step.injected is None else step.injected)
        self._check_that_it_acts()

    def __call__(self, states: Float[Tensor, "row pos d_model"], gains: Gains) -> Tensor:
        """Map states one iteration further, each row with its gain."""
        return self._turned(gains)(self._read(states, gains))

    def at(self, gain: float) -> tuple[LoopStep, Float[Tensor, " pos"]]:
        """Return the loop at one gain, and what its states have to be multiplied by before it."""
        gains = torch.full((1,), gain, dtype=self.step.looped.dtype, device=self.step.looped.device)
        factor = torch.ones(self.step.shape[0], dtype=gains.dtype, device=gains.device)
        if self.gain.part == STATE:
            factor = factor * self._factor(gains, (1, *self.step.shape), Axes(pos=1))[0, :, 0]
        return self._turned(gains), factor

    def before(self, stop: int, *, must_act: bool = True) -> Knob:
        """Return the knob on the loop of the first tokens of the prompt only.

        Where it acts on later tokens only, that is refused, or is a knob that changes nothing.
        """
        if stop == self.step.shape[0]:
            return self
        tokens = self.gain.tokens
        if tokens is not None:
            kept = [t for t in chosen(tokens, self.step.shape[0], "token") if t < stop]
            tokens = kept or slice(0, 0)
            if not kept and must_act:
                raise InputError(
                    f"the gain acts on tokens {self.gain.tokens!r} only, and none of them is among "
                    f"the first {stop} tokens, whose fixed point was found"
                )
        whole = self.step
        step = LoopStep(whole.looped, whole.ids[:, :stop], whole.hooks, iterations=whole.iterations)
        return Knob(step, replace(self.gain, tokens=tokens))

    def _read(self, states: Tensor, gains: Gains) -> Tensor:
        if self.gain.part != STATE:
            return states
        return states * self._factor(gains, states.shape, Axes(pos=1))

    def _turned(self, gains: Gains) -> LoopStep:
        if self.gain.part == STATE:
            return self.step
        if self.gain.part == INJECTION:
            fed = self.step.injected
            assert fed is not None
            return self.step.fed(fed * self._factor(gains, (len(gains), *fed.shape[1:]), Axes(1)))
        if _LAYER.fullmatch(self.gain.part):
            return self.step.with_hooks(self._layer_hooks(gains))

        def multiply(value: Tensor, hook: Any) -> Tensor:
            return value * self._factor(gains, value.shape, axes_of(hook.name))

        return self.step.with_hooks([(site, multiply) for site in self._sites])

    def _layer_hooks(self, gains: Gains) -> list[Hook]:
        hooks: list[Hook] = []
        for before, after in zip(self._sites[::2], self._sites[1::2], strict=True):
            read: list[Tensor] = []

            def keep(value: Tensor, hook: Any, read: list[Tensor] = read) -> None:
                read[:] = [value]

            def add(value: Tensor, hook: Any, read: list[Tensor] = read) -> Tensor:
                factor = self._factor(gains, value.shape, Axes(pos=1))
                return read[0] + factor * (value - read[0])

            hooks += [(before, keep), (after, add)]
        return hooks

    def _factor(self, gains: Gains, shape: tuple[int, ...], axes: Axes) -> Tensor:
        """Return what an activation is multiplied by: the gain where it is meant, else 1."""
        factor = gains.reshape(-1, *[1] * (len(shape) - 1))
        for selection, axis, what in (
            (self.gain.tokens, axes.pos, "token"),
            (self.gain.heads, axes.head, "head"),
        ):
            if selection is None or axis is None:
                continue
            mask = torch.zeros(shape[axis], dtype=torch.bool, device=gains.device)
            mask[chosen(selection, shape[axis], what)] = True
            mask = mask.reshape([-1 if a == axis else 1 for a in range(len(shape))])
            factor = torch.where(mask, factor, torch.ones_like(factor))
        return factor

    def _find_sites(self) -> list[str]:
        gain, looped = self.gain, self.step.looped
        if gain.part in (STATE, INJECTION):
            return []
        names = list(looped.hook_names())
        layer = _LAYER.fullmatch(gain.part)
        if layer is None:
            sites = match_sites(SiteAddress.parse(gain.part), names)
            headless = [site for site in sites if axes_of(site).head is None]
            if gain.heads is not None and headless:
                raise InputError(f"{gain.part!r}: {headless[0]} has no heads: leave heads= out")
            return sites
        wanted = layer.group(1)
        numbers = range(looped.n_layers) if wanted == "*" else [int(wanted)]
        sites = []
        for number in numbers:
            if number >= looped.n_layers:
                raise SiteError(f"there is no layer {number}: the core has {looped.n_layers}")
            sites += [looped.hook_name(site, number) for site in ("resid_pre", "resid_post")]
        missing = [site for site in sites if site not in names]
        if missing:
            raise SiteError(
                f"{looped.model_name} has no site {missing[0]}, which the contribution of a layer "
                "is told by. Take a site address of this model as the part."
            )
        return sites

    @torch.no_grad()
    def _check_that_it_acts(self) -> None:
        """Fire once, since a site outside the loop, in a prelude say, would change nothing."""
        if not self._sites:
            return
        fired: list[str] = []

        def listen(value: Tensor, hook: Any) -> None:
            fired.append(hook.name)
            self._factor(torch.ones(1), tuple(value.shape), axes_of(hook.name))

        looped = self.step.looped
        state = torch.zeros(1, *self.step.shape, dtype=looped.dtype, device=looped.device)
        hook: Callable[..., Any] = listen
        self.step.with_hooks([(site, hook) for site in self._sites])(state)
        silent = [site for site in self._sites if site not in fired]
        if silent:
            raise SiteError(
                f"{silent[0]} does not fire within an iteration, so a gain there changes nothing "
                "of the loop. Take a site of the core."
            )
