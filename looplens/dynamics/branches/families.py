"""Maps with a gain, f(state, gain), as the continuation sees them.

A family says how rows of states move at rows of gains, and of which maps the eigenvalues are asked:
of the map itself, or, for the causal loop of a whole prompt, of the block of every token, since
those of a block triangular Jacobian are the eigenvalues of its blocks.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from looplens.dynamics.branches.gains import Gains, Knob
from looplens.dynamics.maps.derivatives import Ways
from looplens.dynamics.maps.loop_maps import TokenMap
from looplens.dynamics.maps.state_map import Rows, StateMap, check_state
from looplens.errors import InputError

_NUMBERS = 2**20  # of the states of all rows whose eigenvalues are looked for together


@dataclass(frozen=True, slots=True)
class Blocks:
    """Maps whose eigenvalues are asked for.

    Attributes
    ----------
    map_ : StateMap
        Their rows.
    x : Float[Tensor, "row n"]
        Where.
    factor : Float[Tensor, "row"]
        What the eigenvalues of the map have to be multiplied by.
    """

    map_: StateMap
    x: Rows
    factor: Float[Tensor, " row"]


class Family:
    """Rows of maps with a gain.

    Attributes
    ----------
    shape : torch.Size
        Of the state of a row.
    dtype, device
        Of the states.
    labels : list of int
        What the blocks of a row are called: its eigenvalues are those of these maps.
    ways : Ways
        How those maps are differentiated.
    """

    def __init__(self, shape: Sequence[int], states: Tensor, ways: Ways | None = None) -> None:
        self.labels = [0]
        self.shape = torch.Size(shape)
        self.dtype, self.device = states.dtype, states.device
        self.ways = ways or Ways.new()

    def move(self, states: Float[Tensor, "row ..."], gains: Gains) -> Tensor:
        """Map every row's state at every row's gain."""
        raise NotImplementedError

    def rows(self, chosen: Int[Tensor, " new"]) -> Family:
        """Return the family of some rows, each as often as it is named."""
        return self

    def blocks(self, states: Float[Tensor, "row ..."], gains: Gains) -> list[Blocks]:
        """Return the maps of all blocks, row by row."""
        return self.block(states, gains, torch.zeros(len(gains), dtype=torch.long))

    def block(
        self, states: Float[Tensor, "row ..."], gains: Gains, which: Int[Tensor, " row"]
    ) -> list[Blocks]:
        """Return the map of one block of every row."""
        map_ = AtGain(self, gains)
        return [Blocks(map_, map_.flat(states), torch.ones_like(gains))]


class AtGain(StateMap):
    """Rows of a family, each at its gain."""

    def __init__(self, family: Family, gains: Gains) -> None:
        self.family, self.gains = family, gains
        super().__init__(
            lambda states: family.move(states, gains),
            family.shape,
            dtype=family.dtype,
            device=family.device,
            ways=family.ways,
        )

    def rows(self, chosen: Tensor) -> AtGain:
        """Return the map of some of the rows."""
        return AtGain(self.family.rows(chosen), self.gains[chosen])


class Plain(Family):
    """A function of one state and one gain, such as a user writes it."""

    def __init__(self, f: Callable[[Tensor, Tensor], Tensor], state: Tensor, gain: float) -> None:
        check_state(state, "the start")
        super().__init__(state.shape, state)
        self.f, self.together = f, True
        with torch.no_grad():
            value = f(state, torch.tensor(gain, dtype=state.dtype, device=state.device))
        if not isinstance(value, Tensor) or value.shape != state.shape or value.dtype != self.dtype:
            seen = (
                f"{tuple(value.shape)} of {value.dtype}"
                if isinstance(value, Tensor)
                else type(value).__name__
            )
            raise InputError(
                f"f(state, gain) must return a tensor like the state, {tuple(state.shape)} of "
                f"{state.dtype}; got {seen}"
            )

    def move(self, states: Tensor, gains: Gains) -> Tensor:
        """Map every row's state at every row's gain."""
        if len(states) == 1:
            return self.f(states[0], gains[0])[None]
        if self.together:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # slow fallbacks of vmap
                    return torch.func.vmap(self.f)(states, gains)
            except RuntimeError:
                self.together = False
        return torch.stack([self.f(*pair) for pair in zip(states, gains, strict=True)])


class OfTokens(Family):
    """One token a row, with the others of its prompt held still: a state is ``[d_model]``."""

    def __init__(
        self,
        knob: Knob,
        context: Float[Tensor, "row pos d_model"],
        positions: Int[Tensor, " row"],
        ways: Ways | None = None,
    ) -> None:
        super().__init__(context.shape[-1:], context, ways)
        self.knob, self.context, self.positions = knob, context, positions

    def move(self, states: Tensor, gains: Gains) -> Tensor:
        """Put every row's token into its context, and take it out one iteration later."""
        here = torch.arange(self.context.shape[1], device=states.device)
        mine = (here == self.positions[:, None])[..., None]  # row pos 1
        moved = self.knob(torch.where(mine, states[:, None], self.context), gains)
        return moved[torch.arange(len(states), device=states.device), self.positions]

    def rows(self, chosen: Tensor) -> OfTokens:
        """Return the family of some rows, each as often as it is named."""
        return OfTokens(self.knob, self.context[chosen], self.positions[chosen], self.ways)


class OfSequence(Family):
    """All tokens of a prompt together: a state is ``[pos, d_model]``.

    Parameters
    ----------
    knob : Knob
        The loop with its gain.
    causal : bool
        Whether eigenvalues are asked of the blocks of the tokens, labelled by their positions; else
        they are those of the whole.
    """

    def __init__(self, knob: Knob, *, causal: bool) -> None:
        looped = knob.step.looped
        shape = knob.step.shape
        super().__init__(shape, torch.empty(0, dtype=looped.dtype, device=looped.device))
        self.knob, self.causal = knob, causal
        self.labels = list(range(shape[0])) if causal else [0]

    def move(self, states: Tensor, gains: Gains) -> Tensor:
        """Map every row's state at every row's gain."""
        return self.knob(states, gains)

    def blocks(self, states: Tensor, gains: Gains) -> list[Blocks]:
        """Return the maps of all blocks, row by row; tokens run by themselves where they can."""
        if not self.causal:
            return super().blocks(states, gains)
        every = torch.arange(len(self.labels), device=states.device)
        most = max(1, _NUMBERS // states[0].numel())
        return [
            self._tokens(state, gain, some)
            for state, gain in zip(states, gains.tolist(), strict=True)
            for some in every.split(most)
        ]

    def block(self, states: Tensor, gains: Gains, which: Tensor) -> list[Blocks]:
        """Return the map of one block of every row."""
        if not self.causal:
            return super().block(states, gains, which)
        rows = zip(states, gains.tolist(), which, strict=True)
        return [self._tokens(state, gain, one[None]) for state, gain, one in rows]

    def _tokens(self, state: Tensor, gain: float, some: Int[Tensor, " some"]) -> Blocks:
        step, factor = self.knob.at(gain)
        context = state * factor[:, None]
        map_ = TokenMap(step, context, some)
        map_.ways = self.ways
        return Blocks(map_, context[some], factor[some])


class WithGain(StateMap):
    """A family as a map of states and gains together, ``(x / scale, g) -> (f(x, g) / scale, g)``.

    Divided by their size at the start, states weigh as much as the gain in the length of a branch.

    Parameters
    ----------
    family : Family
        The maps.
    scale : Float[Tensor, "row"]
        What states are divided by.
    ways : Ways, optional
        How to differentiate, shared with the map that this one is a part of.
    """

    def __init__(
        self, family: Family, scale: Float[Tensor, " row"], ways: Ways | None = None
    ) -> None:
        self.family, self.scale = family, scale
        shape = (family.shape.numel() + 1,)
        super().__init__(self._move, shape, dtype=family.dtype, device=family.device, ways=ways)

    def rows(self, chosen: Tensor) -> WithGain:
        """Return the map of some rows, each as often as it is named."""
        return WithGain(self.family.rows(chosen), self.scale[chosen], self.ways)

    def join(self, states: Tensor, gains: Gains) -> Rows:
        """Return rows of states and gains."""
        x = states.reshape(len(gains), -1) / self.scale[:, None]
        return torch.cat([x, gains[:, None]], dim=1)

    def part(self, z: Rows) -> tuple[Tensor, Gains]:
        """Return the states and the gains of rows."""
        x = z[:, :-1] * self.scale[:, None]
        return x.reshape(-1, *self.family.shape), z[:, -1]

    def _move(self, z: Rows) -> Rows:
        states, gains = self.part(z)
        return self.join(self.family.move(states, gains), gains)
