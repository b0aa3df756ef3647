"""Spectra of the blocks of a prompt, at fixed points and around cycles, and their predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from jaxtyping import Complex, Float
from torch import Tensor

from looplens.dynamics.eigen.cycles import CycleMap, RoundMap
from looplens.dynamics.eigen.looking import Look
from looplens.dynamics.eigen.spectrum import Spectrum, leading
from looplens.dynamics.maps.loop_maps import SequenceMap, TokenMap
from looplens.dynamics.maps.state_map import Rows, StateMap

AT_POINT, HELD, AT_STATE = "fixed point", "fixed point, others held", "recorded motion"
_BYTES = 2**28  # of a basis of Krylov spaces


class Blocks:
    """The diagonal blocks of the Jacobian of one prompt, and what they say together.

    Parameters
    ----------
    seen : Look
        The prompt.
    krylov, seed : int
        See :func:`spectra`.
    """

    def __init__(self, seen: Look, krylov: int, seed: int) -> None:
        self.seen, self.krylov, self.seed = seen, krylov, seed
        self.step, self.rest = seen.found.step, seen.rest
        self.attention: dict[str, None] = {}  # in the order in which they were met
        self.derivative: dict[str, None] = {}
        self.all = list(range(seen.upto + 1))

    def where(self, positions: Sequence[int]) -> np.ndarray:
        """Return in words at which state the Jacobian of a token is taken."""
        words = [
            AT_STATE
            if not self.rest.verified[position]
            else AT_POINT
            if self.rest.context[position]
            else HELD
            for position in positions
        ]
        return np.array(words, dtype=object)

    def at_rest(self, positions: Sequence[int], k: int, *, stretch: bool = True) -> Spectrum:
        """Take blocks at fixed points, and at the last state where there is none."""
        chosen = np.array(positions)
        solved = self.rest.verified[chosen]
        parts, order = [], []
        for these, states in ((solved, self.rest.states), (~solved, self.seen.path[-1])):
            rows = chosen[these].tolist()
            order += np.flatnonzero(these).tolist()
            parts += self._in_batches(rows, k, stretch, partial(self._held, states))
        return _joined(parts, np.argsort(order))

    def around_cycles(self, positions: Sequence[int], k: int) -> Complex[np.ndarray, "row k"]:
        """Return Floquet multipliers; NaN of tokens that are at rest or do not return."""
        found = np.full((len(positions), k), complex(np.nan, np.nan))
        periods = self.seen.period[list(positions)]
        for period in np.unique(periods[np.isfinite(periods) & (periods > 1)]):
            rows = np.flatnonzero(periods == period)
            cycle = self.seen.path[-int(period) :]
            parts = self._in_batches(
                [positions[row] for row in rows.tolist()],
                k,
                False,
                partial(self._around, cycle),
            )
            found[rows] = np.concatenate([part.eigenvalues for part in parts])
        return found

    def said(self) -> dict[str, str]:
        """Return how the Jacobians were had, as attributes of a result."""
        return {"attention": "; ".join(self.attention), "derivative": "; ".join(self.derivative)}

    def predictions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return rates, the tokens that set them, and the eigenvalues that set periods.

        The period is that of the first unstable token: later ones move at the pace of what pushes
        them, also where their own blocks are unstable. With no such token, the slowest sets it.
        """
        seen, numbers = self.seen, np.array(self.seen.found.numbers(self.all))
        first = self.at_rest(self.all, 1, stretch=False)
        period = seen.period[self.all]
        if not seen.found.causal:
            lead, rate = self._whole_sequence(period)
            count = len(self.all)
            return np.full(count, rate), np.full(count, -1), np.full(count, lead)
        rates = np.where(self.rest.of_sequence[self.all], first.spectral_radius, np.nan)
        around = np.abs(self.around_cycles(self.all, 1)[:, 0]) ** (1 / period)
        rates = np.where(period > 1, around, np.where(period == 1, rates, np.nan))
        place = _of_largest(rates)
        # Nothing follows from what is known of a part of the tokens before.
        known = np.logical_and.accumulate(np.isfinite(rates))
        radius = first.spectral_radius
        turns = _of_largest(radius)
        unstable = np.flatnonzero(radius > 1)
        if len(unstable):  # nothing moves that token, and it moves those after it
            turns[unstable[0] :] = unstable[0]
        lead = first.eigenvalues[turns, 0]
        of_points = np.logical_and.accumulate(self.rest.of_sequence[self.all])
        return (
            np.where(known, rates[place], np.nan),
            np.where(known, numbers[place], -1),
            np.where(of_points, lead, np.nan),
        )

    def _whole_sequence(self, period: np.ndarray) -> tuple[complex, float]:
        lead, rate = complex(np.nan), float("nan")
        whole = SequenceMap(self.step)
        if self.rest.verified.all():
            lead = self._leading(whole, whole.flat(self.rest.states), 2, False).eigenvalues[0, 0]
        if np.isfinite(period).all():
            count = int(period.max())
            if count == 1:
                rate = abs(lead)
            else:
                around = RoundMap(self.step, count)
                start = around.flat(self.seen.path[-count])
                found = self._leading(around, start, 2, False).spectral_radius
                rate = float(found[0]) ** (1 / count)
        return lead, rate

    def _held(self, states: Tensor, part: list[int]) -> tuple[StateMap, Rows]:
        return TokenMap(self.step, states, part), states[part]

    def _around(self, cycle: Tensor, part: list[int]) -> tuple[StateMap, Rows]:
        return CycleMap.along(self.step, cycle, part), cycle[0, part]

    def _in_batches(
        self,
        positions: list[int],
        k: int,
        stretch: bool,
        build: Callable[[list[int]], tuple[StateMap, Rows]],
    ) -> list[Spectrum]:
        width = self.seen.path.shape[-1] * self.seen.path.element_size()
        size = max(1, _BYTES // (width * min(self.krylov, self.seen.path.shape[-1])))
        return [
            self._leading(*build(positions[i : i + size]), k, stretch)
            for i in range(0, len(positions), size)
        ]

    def _leading(self, map_: StateMap, x: Rows, k: int, stretch: bool) -> Spectrum:
        found = leading(map_, x, k, krylov=self.krylov, seed=self.seed, stretch=stretch)
        self.attention[map_.attention] = self.derivative[map_.ways.derivative] = None
        self.seen.notes.extend(note for note in map_.notes if note not in self.seen.notes)
        return found


def _of_largest(values: Float[np.ndarray, " pos"]) -> np.ndarray:
    """Return where the largest value up to every place stands."""
    known = np.where(np.isfinite(values), values, -np.inf)
    best = np.maximum.accumulate(known)
    return np.maximum.accumulate(np.where(known >= best, np.arange(len(known)), 0))


def _joined(parts: list[Spectrum], order: np.ndarray) -> Spectrum:
    return Spectrum(
        **{
            name: np.concatenate([getattr(part, name) for part in parts])[order]
            for name in ("eigenvalues", "residuals", "converged", "sigma_max", "non_normality")
        },
        products=sum(part.products for part in parts),
    )
