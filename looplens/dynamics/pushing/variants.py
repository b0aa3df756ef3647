"""One prompt's loop many times side by side, each time with other interventions.

A batch row is a variant. All begin at the same recorded state, so that nothing before the first
change is run again, and every batch carries one unchanged row along: what the others are compared
with has gone through the same arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from looplens.dynamics.maps.loop_step import LoopStep
from looplens.dynamics.maps.recorded import Recorded
from looplens.errors import InputError, SiteError
from looplens.loops import LoopClock, SiteAddress, match_sites
from looplens.models.native import NativeLoop
from looplens.recording.changing.applying import hooks_for
from looplens.recording.changing.interventions import Intervention

STATE = "hook_state"
_TOKENS = 4096  # tokens of a batch
_NUMBERS = 2**24  # and numbers in its states: 64 MiB in float32

Variant = Sequence[Intervention]
Change = tuple[list[int], SiteAddress, Callable[..., Tensor | None]]


class Loop:
    """The loop of one prompt, as interventions see it: sites, and a clock of its own.

    Parameters
    ----------
    step : LoopStep
        The map.
    """

    def __init__(self, step: LoopStep) -> None:
        self.step = step
        self.clock = LoopClock()
        owner: Any = step.looped.model if isinstance(step.looped, NativeLoop) else step.looped
        self.hook_dict: Mapping[str, Any] = owner.hook_dict
        self._matched: dict[str, list[str]] = {}
        cfg = getattr(owner, "cfg", None)
        # The step is that of a later pass, where the first one is fed with nothing.
        self.first = 1 if getattr(cfg, "first_injection", True) else 2

    def hooks(self, fwd_hooks: Sequence[Any] = ()) -> AbstractContextManager[Any]:
        """Refuse: hooks come with the variants."""
        raise NotImplementedError("give interventions to passes()")

    @torch.no_grad()
    def reached(self, found: Recorded, iteration: int) -> Float[Tensor, "pos d_model"]:
        """Return the state after a pass: the recorded one, or run on from the last one before it.

        Raises
        ------
        InputError
            If the way there leads through a first pass that does something else than later ones.
        """
        kept = max(t for t in found.iterations if t <= iteration)
        if kept < iteration and kept + 1 < self.first:
            raise InputError(
                f"the state after pass {iteration} was not recorded, and the one before it is the "
                "start, which this model leaves by a pass of another kind: take a later pass"
            )
        state = found.at(kept)[None]
        for _, after in self.passes(state, kept, iteration):
            state = after
        return state[0]

    @torch.no_grad()
    def passes(
        self,
        states: Float[Tensor, "row pos d_model"],
        begin: int,
        end: int,
        variants: Sequence[Variant] = (),
    ) -> Iterator[tuple[int, Float[Tensor, "row pos d_model"]]]:
        """Run rows from the state after pass ``begin`` to pass ``end``.

        Parameters
        ----------
        states : Float[Tensor, "row pos d_model"]
            Where the rows begin.
        begin, end : int
            Passes that have been run, and that will have been.
        variants : sequence of sequences of Intervention
            What is changed in the first so many rows; the others are left alone. Negative passes in
            an address count back from ``end``.

        Yields
        ------
        iteration : int
            begin + 1 to end.
        states : Float[Tensor, "row pos d_model"]
            After that pass.

        Raises
        ------
        InputError, SiteError
            As :func:`looplens.recording.hooks_for`; at the end, if an intervention changed nothing.
        """
        changes = self._changes(variants)
        done = [0] * len(changes)
        for t in range(begin + 1, end + 1):
            now = [
                (number, change)
                for number, change in enumerate(changes)
                if change[1].matches_iteration(t, end)
            ]
            if now and t < self.first:
                raise InputError(
                    f"pass {t} of this model does something else than later ones, so changes can "
                    f"be made from pass {self.first} on"
                )
            with self.clock.forward(end), self.clock.at(t):
                states = self._pass(states, now, done)
            yield t, states
        for count, (_, address, _) in zip(done, changes, strict=True):
            if not count:
                raise SiteError(
                    f"the intervention at {str(address)!r} changed nothing in passes {begin + 1} "
                    f"to {end}: its site never fired (inside a declared step of a wrapped model "
                    "none does), or its passes are others"
                )

    def _changes(self, variants: Sequence[Variant]) -> list[Change]:
        """Return each intervention once, with the rows that it is for."""
        rows: dict[int, list[int]] = {}
        items: dict[int, Intervention] = {}
        for row, variant in enumerate(variants):
            for item in variant:
                rows.setdefault(id(item), []).append(row)
                items[id(item)] = item
        hooks = hooks_for(items.values(), self)
        return [
            (rows[key], SiteAddress.parse(address), hook)
            for key, (address, hook) in zip(items, hooks, strict=True)
        ]

    def _sites(self, address: SiteAddress) -> list[str]:
        if address.site not in self._matched:
            self._matched[address.site] = match_sites(address, self.hook_dict)
        return self._matched[address.site]

    def _pass(
        self, states: Tensor, now: Sequence[tuple[int, Change]], done: list[int]
    ) -> Float[Tensor, "row pos d_model"]:
        sites: dict[str, list[tuple[int, Change]]] = {}
        for number, change in now:
            for site in self._sites(change[1]):
                sites.setdefault(site, []).append((number, change))
        at_state = sites.pop(STATE, [])
        hooks = [(site, _Changing(entries, done)) for site, entries in sites.items()]
        after = (self.step.with_hooks(hooks) if hooks else self.step)(states)
        if not at_state:
            return after
        # The state of the loop is what the step returns, with hooks inside it or without.
        return _Changing(at_state, done)(after, _Point(STATE))


class _Point:
    def __init__(self, name: str) -> None:
        self.name = name


class _Changing:
    """The hook of one site: every intervention sees its own rows."""

    def __init__(self, entries: Sequence[tuple[int, Change]], done: list[int]) -> None:
        self.entries, self.done = entries, done

    def __call__(self, value: Tensor, hook: Any) -> Tensor:
        changed = value.clone()
        for number, (rows, _, function) in self.entries:
            new = function(changed[rows], hook=hook)
            if new is not None:
                changed[rows] = new
                self.done[number] += 1
        return changed


def side_by_side(
    loop: Loop,
    state: Float[Tensor, "pos d_model"],
    begin: int,
    end: int,
    variants: Sequence[Variant],
    most: int | None = None,
) -> Iterator[tuple[slice, int, Float[Tensor, "row pos d_model"], Float[Tensor, "pos d_model"]]]:
    """Run variants in batches of bounded size, each with the unchanged loop beside it.

    Parameters
    ----------
    loop : Loop
        The loop.
    state : Float[Tensor, "pos d_model"]
        After pass ``begin``.
    begin, end : int
        See :meth:`Loop.passes`.
    variants : sequence of sequences of Intervention
        The rows.
    most : int, optional
        Rows of a batch at the most, where the caller keeps much of them.

    Yields
    ------
    rows : slice
        Which variants.
    iteration : int
        begin + 1 to end, for one batch after the other.
    states : Float[Tensor, "row pos d_model"]
        Of the variants after that pass.
    unchanged : Float[Tensor, "pos d_model"]
        Of the loop left alone.
    """
    size = min(batch_rows(state), most or len(variants))
    for first in range(0, len(variants), size):
        batch = variants[first : first + size]
        starts = state.expand(len(batch) + 1, *state.shape)
        for t, states in loop.passes(starts, begin, end, batch):
            yield slice(first, first + len(batch)), t, states[:-1], states[-1]


def batch_rows(state: Float[Tensor, "pos d_model"]) -> int:
    """Return how many rows of such states fit a batch."""
    return max(1, min(_TOKENS // state.shape[0], _NUMBERS // state.numel()))
