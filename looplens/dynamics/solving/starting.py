"""Where searches for fixed points begin, and how far out a point may lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from looplens.dynamics.maps.recorded import Recorded
from looplens.dynamics.maps.state_map import Rows

REACH = 4.0  # times the largest norm on the trajectory, beyond which a point explains nothing of it


@dataclass(frozen=True, kw_only=True, slots=True)
class Starts:
    """Starts of every position of a prompt.

    Attributes
    ----------
    here : Float[Tensor, "pos d_model"]
        The recorded state.
    centre : Float[Tensor, "pos d_model"]
        Mean of the last half of the trajectory up to it: what an orbit turns about.
    size : Float[Tensor, "pos"]
        Largest norm on the trajectory.
    drawn : Float[Tensor, "pos draw d_model"]
        Random ones, in every direction from the centre, at distances up to `size`.
    """

    here: Float[Tensor, "pos d_model"]
    centre: Float[Tensor, "pos d_model"]
    size: Float[Tensor, " pos"]
    drawn: Float[Tensor, "pos draw d_model"]

    @property
    def given(self) -> Float[Tensor, "pos two d_model"]:
        """The starts that are not random."""
        return torch.stack([self.here, self.centre], dim=1)

    @property
    def reach(self) -> Float[Tensor, " pos"]:
        """Largest norm of a point."""
        return REACH * self.size

    def together(self) -> Starts:
        """Return the starts of the whole sequence, as those of a single position."""
        return Starts(
            here=self.here.reshape(1, -1),
            centre=self.centre.reshape(1, -1),
            size=self.size.norm()[None],
            drawn=self.drawn.movedim(1, 0).reshape(1, self.drawn.shape[1], -1),
        )


def starts_of(found: Recorded, iteration: int | None, count: int, seed: int) -> Starts:
    """Return where to begin around a recorded state.

    A token's random starts do not depend on which other tokens are asked for.
    """
    here = found.at(iteration)
    last = found.iteration(iteration)
    late = [i for i, number in enumerate(found.iterations) if last / 2 < number <= last]
    size = found.states.norm(dim=-1).amax(0)
    centre = found.states[late or [-1]].mean(0)
    away = _directions(found.numbers(range(found.n_pos)), count, here, seed)
    return Starts(
        here=here, centre=centre, size=size, drawn=centre[:, None] + away * size[:, None, None]
    )


def _directions(numbers: Sequence[int], count: int, like: Rows, seed: int) -> Tensor:
    """Return random vectors of every token, of lengths up to 1."""
    drawn = torch.empty(len(numbers), count, like.shape[-1], dtype=like.dtype)
    for row, number in enumerate(numbers):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
        direction = torch.randn(count, like.shape[-1], generator=generator, dtype=torch.float64)
        length = torch.rand(count, 1, generator=generator, dtype=torch.float64)
        drawn[row] = (length * direction / direction.norm(dim=-1, keepdim=True)).to(like.dtype)
    return drawn.to(like.device)
