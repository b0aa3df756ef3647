"""Exponents along one trajectory: of some tokens' own blocks, or of the whole sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from looplens.dynamics.exponents.averages import error_of_mean
from looplens.dynamics.exponents.benettin import (
    Frame,
    carry,
    check_finite,
    pull,
    random_frame,
)
from looplens.dynamics.exponents.sublayers import Staged, Sublayers
from looplens.dynamics.exponents.trajectories import Trajectory
from looplens.dynamics.exponents.windows import Windows
from looplens.dynamics.maps.loop_maps import TokenMap
from looplens.dynamics.maps.state_map import Rows, StateMap

_NUMBERS = 2**20  # in the states of one product: bounds the memory to about 1 GB
_SPARE = 4  # further directions of the sweep back, without which the last ones are less exact
_LEAST_SWEEP = 4  # steps that the first directions are chosen for, where there is no transient


@dataclass(frozen=True, kw_only=True, slots=True)
class Spectra:
    """Exponents of rows.

    Attributes
    ----------
    exponents, error, transient : Float[ndarray, "row k"]
        Of the tail with the errors of the means, and of the transient; NaN where a direction fell
        below rounding in the window, or the window is empty.
    growth : Float[ndarray, "row step k"]
        log |R_ii| of every step; NaN where that is rounding.
    stretch, transient_stretch : Float[ndarray, "row sublayer k"]
        Shares of the sublayers, an iteration.
    """

    exponents: Float[np.ndarray, "row k"]
    error: Float[np.ndarray, "row k"]
    transient: Float[np.ndarray, "row k"]
    growth: Float[np.ndarray, "row step k"]
    stretch: Float[np.ndarray, "row sublayer k"]
    transient_stretch: Float[np.ndarray, "row sublayer k"]

    @staticmethod
    def joined(parts: Sequence[Spectra]) -> Spectra:
        """Put the rows of several parts one after the other."""
        names = Spectra.__dataclass_fields__
        return Spectra(**{n: np.concatenate([getattr(part, n) for part in parts]) for n in names})


@dataclass(frozen=True, kw_only=True, slots=True)
class Blocks:
    """Derivatives along a trajectory, of which exponents are wanted.

    Attributes
    ----------
    trajectory : Trajectory
        The states, without gaps.
    windows : Windows
        Where transient and tail of every token lie.
    positions : tuple of int or None
        A row is the block of one of these tokens, the others moving as they do; without them there
        is one row, the whole sequence.
    k : int
        Directions.
    sublayers : Sublayers or None
        Where to part the stretch of a step.
    seed : int
        Of the frame.
    """

    trajectory: Trajectory
    windows: Windows
    positions: tuple[int, ...] | None
    k: int
    sublayers: Sublayers | None = None
    seed: int = 0

    def parts(self) -> list[Blocks]:
        """Return the same in parts whose states in one product fit into memory."""
        if self.positions is None:
            return [self]
        map_, x = self.trajectory.at(0, self.positions[:1])
        alone = isinstance(map_, TokenMap) and map_.is_alone
        size = x.numel() if alone else self.trajectory.states[0].numel()
        most = max(1, _NUMBERS // (size * self.k))
        starts = range(0, len(self.positions), most)
        return [replace(self, positions=self.positions[at : at + most]) for at in starts]

    @property
    def transient(self) -> Bool[np.ndarray, "row step"]:
        """Steps of the transients."""
        return self.windows.transient[self._rows]

    @property
    def tail(self) -> Bool[np.ndarray, "row step"]:
        """Steps of the tails."""
        return self.windows.tail[self._rows]

    @property
    def products(self) -> int:
        """Products with derivatives that are needed, each of all rows and directions."""
        return self.trajectory.steps + int(self._swept.max())

    def spectra(self, tick: Callable[[], None] = lambda: None) -> Spectra:
        """Carry k directions of every row along the trajectory; `tick` is called a product.

        They begin as those that the transient stretches most (its right singular vectors, by a
        sweep back with transposed derivatives), so that the transient has exponents of its own:
        random directions would lose a good part of the stretch in a few steps.
        """
        inside = np.stack([self.tail, self.transient])[..., None]  # window row step 1
        names = self.sublayers.names if self.sublayers else ()
        shares = np.zeros((2, inside.shape[1], len(names), self.k))
        growth = np.empty((*inside.shape[1:3], self.k))
        carried = carry(self._derivatives(), self._first_directions(tick), max(1, len(names)))
        for step, (logs, noise) in enumerate(carried):
            known = np.where(noise[:, None], np.nan, logs)
            growth[:, step] = known[:, -1]
            if names:
                shares += np.where(inside[:, :, step, None], _differences(known), 0.0)
            tick()
        steps = inside.sum(2, dtype=float)
        steps[steps == 0] = np.nan
        tail, transient = np.where(inside, growth, 0.0).sum(2) / steps
        rows = zip(growth, self.tail, strict=True)
        stretch, transient_stretch = shares / steps[:, :, None]
        return Spectra(
            exponents=tail,
            error=np.stack([error_of_mean(row[window]) for row, window in rows]),
            transient=transient,
            growth=growth,
            stretch=stretch,
            transient_stretch=transient_stretch,
        )

    @property
    def _rows(self) -> list[int]:
        # The last token has read all others, or as many as any.
        return [-1] if self.positions is None else list(self.positions)

    @property
    def _swept(self) -> Int[np.ndarray, " row"]:
        """How many steps the sweep back looks at."""
        return np.maximum(self.transient.sum(1), min(_LEAST_SWEEP, self.trajectory.steps))

    def _derivatives(self) -> Iterator[tuple[StateMap, Rows]]:
        for index in range(self.trajectory.steps):
            map_, x = self.trajectory.at(index, self.positions)
            yield Staged(map_, self.sublayers) if self.sublayers else map_, x

    def _first_directions(self, tick: Callable[[], None]) -> Frame:
        """Return the directions that the first steps of each row stretch most.

        The sweep back yields the product of the transposed derivatives with a random frame, as
        V R: the singular vectors of R turn V into those of the product.
        """
        map_, x = self.trajectory.at(0, self.positions)
        frame = random_frame(map_, len(x), min(self.k + _SPARE, map_.size), self.seed)
        product = torch.eye(frame.shape[2], dtype=frame.dtype, device=frame.device)
        swept = torch.as_tensor(self._swept, device=x.device)[:, None, None]
        for index in reversed(range(int(swept.max()))):
            map_, x = self.trajectory.at(index, self.positions)
            pulled = pull(map_, x, frame)
            check_finite(pulled, index + 1)
            turned, r = torch.linalg.qr(pulled)
            largest = r.abs().amax((1, 2), keepdim=True)
            r = r / torch.where(largest > 0, largest, 1.0)  # only the directions count
            frame = torch.where(index < swept, turned, frame)
            product = torch.where(index < swept, r @ product, product)
            tick()
        return (frame @ torch.linalg.svd(product)[0])[:, :, : self.k]


def _differences(logs: Float[np.ndarray, "row sublayer k"]) -> np.ndarray:
    """Return what each sublayer adds; nothing behind the one that loses a direction altogether."""
    before = np.concatenate([np.zeros_like(logs[:, :1]), logs[:, :-1]], axis=1)
    with np.errstate(invalid="ignore"):
        return np.where(np.isneginf(before), 0.0, logs - before)
