"""Two prompts run side by side, one of them with states of the other put in: what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from looplens.dynamics.maps.recorded import Recorded
from looplens.dynamics.pushing.distance import relative
from looplens.dynamics.pushing.reading import logits_at
from looplens.dynamics.pushing.returning import COMES_BACK, floor_of, outcomes, reference, window
from looplens.dynamics.pushing.variants import STATE, Loop, side_by_side
from looplens.recording.changing.interventions import Intervention
from looplens.recording.streaming.readout import divergence

_LATE = 2**24  # numbers in the late states of a batch

Measured = dict[str, np.ndarray]
Three = Float[Tensor, "three row token d_model"]


class Pair:
    """A prompt and another one as long.

    Parameters
    ----------
    found, theirs : Recorded
        The prompt that states are put into, and the one that they are taken from.
    positions : sequence of int
        Positions that are looked at.
    passes : int
        Passes to run after a swap.
    """

    def __init__(
        self, found: Recorded, theirs: Recorded, positions: Sequence[int], passes: int
    ) -> None:
        self.found, self.theirs, self.passes = found, theirs, passes
        self.positions = torch.tensor(positions, device=found.states.device)
        self.late, self.floor = reference(passes), floor_of(found.states.dtype)

    def swap(self, t: int, groups: Sequence[Sequence[int]]) -> Measured:
        """Swap states after pass ``t``, in a run for every group of positions.

        Returns
        -------
        dict of str to ndarray
            Over the positions that are looked at: ``distance`` and ``distance_other`` (token,
            pass), ``is_own``, ``is_other``, ``cosine``, and with a readout ``kl_own``,
            ``kl_other``, ``says_own``, ``says_other``. One group is for all of them, and of
            several each is for one.
        """
        mine, foreign = Loop(self.found.step), Loop(self.theirs.step)
        given = foreign.reached(self.theirs, t)
        start, other_start = mine.reached(self.found, t - 1), foreign.reached(self.theirs, t - 1)
        variants = [
            (Intervention.replace(f"{STATE}@{t}", given[list(group)], tokens=list(group)),)
            for group in groups
        ]
        # Positions that are looked at in every row: one, or all of them in the only row.
        seen = self.positions[:, None] if len(groups) > 1 else self.positions[None]
        size = max(1, _LATE // (3 * self.late * seen.shape[1] * start.shape[1]))
        begin, end, parts = t - 1, t + self.passes, []
        for rows, now, states, unchanged in side_by_side(mine, start, begin, end, variants, size):
            here = seen[rows]
            if now == t:
                others = foreign.passes(other_start[None], begin, end)
                curves: list[Tensor] = []
                late: list[Tensor] = []
            other = next(others)[1][0]
            three = _chosen(states, unchanged, other, here)
            curves.append(
                torch.stack([relative(three[0] - base, three[1]) for base in three[1:]]).cpu()
            )
            if now > end - self.late:
                late.append(three)
            if now == end:
                measured = self._ends(curves, late)
                if self.found.step.looped.has_readout:
                    measured |= self._readouts(states, unchanged, other, here, end)
                parts.append(measured)
        return {
            name: np.concatenate([part[name].reshape(-1, *part[name].shape[2:]) for part in parts])
            for name in parts[0]
        }

    def _ends(self, curves: list[Tensor], late: list[Tensor]) -> Measured:
        """Return distances and whose end is reached, over (row, token)."""
        distance = torch.stack(curves, dim=-1).numpy()  # which row token pass
        changed, *bases = torch.stack(late, dim=1)  # time row token d_model
        shape, kept = changed.shape[1:3], window(self.passes)
        there = [
            np.isin(
                outcomes(changed.flatten(1, 2), base.flatten(1, 2), self.floor, kept),
                COMES_BACK,
            ).reshape(shape)
            for base in bases
        ]
        cosine = torch.cosine_similarity(changed[-1].double(), bases[0][-1].double(), dim=-1)
        return {
            "distance": distance[0],
            "distance_other": distance[1],
            "is_own": there[0],
            "is_other": there[1],
            "cosine": cosine.cpu().numpy(),
        }

    def _readouts(
        self,
        states: Float[Tensor, "row pos d_model"],
        unchanged: Float[Tensor, "pos d_model"],
        other: Float[Tensor, "pos d_model"],
        here: Int[Tensor, "row token"],
        end: int,
    ) -> Measured:
        """Compare what is said at the end, over (row, token)."""
        mine, theirs = self.found.step, self.theirs.step
        said = logits_at(mine, states, here, end, end)
        measured = {}
        for name, step, base in (("own", mine, unchanged), ("other", theirs, other)):
            alone = logits_at(step, base[None], here.reshape(1, -1), end, end)
            alone = alone[0].reshape(*here.shape, -1)
            kl = divergence(alone.log_softmax(-1), said.log_softmax(-1))
            measured[f"kl_{name}"] = kl.cpu().numpy()
            same = said.argmax(-1) == alone.argmax(-1)
            measured[f"says_{name}"] = same.cpu().numpy()
        return measured


def _chosen(states: Tensor, unchanged: Tensor, other: Tensor, here: Int[Tensor, "row k"]) -> Three:
    rows = torch.arange(len(here), device=here.device)[:, None]
    return torch.stack([states[rows, here], unchanged[here], other[here]])
