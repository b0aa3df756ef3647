"""The search for the size of a push that does not come back: a scan, then a bisection.

All tokens and directions are searched side by side, in batches of bounded size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from looplens.dynamics.maps.labelled import Progress
from looplens.dynamics.maps.loop_maps import Scope, SequenceMap, TokenMap
from looplens.dynamics.maps.recorded import Recorded
from looplens.dynamics.pushing.returning import COMES_BACK, outcomes, reference, window
from looplens.dynamics.pushing.variants import batch_rows

SMALLEST = 1e-4  # size that is tried
_DOWN, _ABOVE = 4.0, 100.0  # smaller by this factor each time, and so far above rounding
_LATE = 2**23  # numbers in the late states of a batch
Rows = Float[Tensor, "row d_model"]


class Returning:
    """Whether pushed tokens come back: one question for rows of tokens and states."""

    def __init__(
        self, found: Recorded, iteration: int, scope: Scope, passes: int, floor: float
    ) -> None:
        self.found, self.scope, self.passes, self.floor = found, scope, passes, floor
        self.state = found.at(iteration)
        self.kept, self.late = window(passes), reference(passes)

    @property
    def batch(self) -> int:
        """Rows of a batch, whose late states are kept."""
        return min(batch_rows(self.state), max(1, _LATE // (self.late * self.state.shape[-1])))

    def __call__(self, positions: Tensor, pushed: Rows) -> list[str]:
        """Return the outcome of every row."""
        said: list[str] = []
        for part, states in zip(positions.split(self.batch), pushed.split(self.batch), strict=True):
            said += self._batch(part, states)
        return said

    def _batch(self, here: Tensor, pushed: Rows) -> list[str]:
        # The unpushed states of the same tokens go along: they may still move, and round alike.
        tokens, which = here.unique(return_inverse=True)
        both = torch.cat([here, tokens])
        states = torch.cat([pushed, self.state[tokens]])
        seen = torch.stack(list(self._late(both, states)))
        return outcomes(seen[:, : len(here)], seen[:, len(here) :][:, which], self.floor, self.kept)

    def _late(self, here: Tensor, states: Rows) -> Iterator[Rows]:
        step: Callable[[Tensor], Tensor]
        rows = torch.arange(len(here), device=here.device)
        if self.scope == "token":
            step, now = TokenMap(self.found.step, self.state, here), states
        else:
            now = self.state.expand(len(here), *self.state.shape).clone()
            now[rows, here] = states
            whole = SequenceMap(self.found.step)
            now, step = now.flatten(1), whole
        for t in range(self.passes):
            now = step(now)
            if t >= self.passes - self.late:
                width = self.state.shape[-1]
                yield now if self.scope == "token" else now.unflatten(1, (-1, width))[rows, here]


class Search:
    """The scan and the bisection, for all tokens and directions side by side."""

    def __init__(self, returns: Returning, positions: Sequence[int], progress: Progress) -> None:
        self.returns, self.progress = returns, progress
        self.positions = torch.tensor(positions, device=returns.state.device)

    def run(
        self, token: Tensor, vector: Rows, sizes: Sequence[float], accuracy: float
    ) -> dict[str, np.ndarray]:
        """Return what is known of every row."""
        count = len(token)
        found: dict[str, np.ndarray] = {
            "low": np.full(count, np.nan),
            "high": np.full(count, np.nan),
            "reenters": np.zeros(count),
            "ends": np.full(count, "", dtype=object),
        }
        # Tokens one after the other, in whole batches: progress is told in tokens.
        size = max(1, self.returns.batch // 2)
        for first in range(0, count, size):
            rows = slice(first, min(first + size, count))
            self._some(rows, token[rows], vector[rows], sizes, accuracy, found)
            if self.progress is not None:
                done = int(token[rows.stop - 1]) + (rows.stop == count)
                self.progress(done, len(self.positions))
        return found

    def _some(
        self,
        rows: slice,
        token: Tensor,
        vector: Rows,
        sizes: Sequence[float],
        accuracy: float,
        found: dict[str, np.ndarray],
    ) -> None:
        scan = np.array([self._ask(token, vector, np.full(len(token), r)) for r in sizes])
        comes = np.isin(scan, COMES_BACK)  # size row
        first = np.where(comes.all(0), len(sizes), (~comes).argmax(0))
        later = np.arange(len(sizes))[:, None] > first
        low = np.where(first > 0, np.array(sizes)[np.maximum(first - 1, 0)], 0.0)
        inside = first < len(sizes)
        at = np.minimum(first, len(sizes) - 1)
        high = np.where(inside, np.array(sizes)[at], np.nan)
        ends = np.where(inside, scan[at, np.arange(len(token))], "")
        self._below(token, vector, sizes[0], low, high, ends)
        both = np.flatnonzero((low > 0) & inside)
        while both.size and (high[both] / low[both] - 1).max() > accuracy:
            middle = np.sqrt(low[both] * high[both])
            chosen = torch.as_tensor(both, device=vector.device)
            said = self._ask(token[chosen], vector[chosen], middle)
            back = np.isin(said, COMES_BACK)
            low[both] = np.where(back, middle, low[both])
            high[both] = np.where(back, high[both], middle)
            ends[both] = np.where(back, ends[both], said)
        found["low"][rows], found["high"][rows], found["ends"][rows] = low, high, ends
        found["reenters"][rows] = (comes & later).any(0)

    def _below(
        self,
        token: Tensor,
        vector: Rows,
        size: float,
        low: np.ndarray,
        high: np.ndarray,
        ends: np.ndarray,
    ) -> None:
        """Where not even the least size comes back, try smaller ones."""
        left = np.flatnonzero(low == 0)
        while left.size and size / _DOWN >= max(SMALLEST, _ABOVE * self.returns.floor):
            size /= _DOWN
            chosen = torch.as_tensor(left, device=vector.device)
            said = self._ask(token[chosen], vector[chosen], np.full(len(left), size))
            back = np.isin(said, COMES_BACK)
            low[left[back]] = size
            left, said = left[~back], said[~back]
            high[left], ends[left] = size, said

    def _ask(self, token: Tensor, vector: Rows, size: np.ndarray) -> np.ndarray:
        here = self.positions[token]
        state = self.returns.state[here]
        pushed = state + torch.as_tensor(size).to(state)[:, None] * vector
        return np.array(self.returns(here, pushed), dtype=object)
