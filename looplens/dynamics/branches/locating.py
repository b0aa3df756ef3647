"""Closing in on the marks that something passes within a step of a branch, all of them at once.

The place is found along the branch itself, by false position in the share of the step: every trial
is a corrected point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from looplens.dynamics.branches.correcting import correct, tangents
from looplens.dynamics.branches.families import WithGain
from looplens.dynamics.branches.tracing import SAME_WAY, Settings, Traced, eigenvalues_of

_NEAR = 1e-6  # of the modulus to 1, of the turn of a fold to 0: the place is found
_ROUNDING = 64  # machine epsilons that are as near, where that is more
_EXACT = 1e-7  # what GMRES may leave of the tangent at a fold
_AIM = 1e-3  # of a tangent that only tells whether this is the same branch
_FAILURES = 6


@dataclass(slots=True)
class Bracket:
    """A step of a branch in which something passes its mark."""

    row: int
    point: int
    block: int  # -1 for a fold
    ends: tuple[complex, complex]  # the eigenvalue, or the turn, at both ends


def near_enough(dtype: torch.dtype) -> float:
    """Return how near to its mark a test function has to come."""
    return max(_NEAR, _ROUNDING * torch.finfo(dtype).eps)


class Search:
    """Closing in on all brackets, each by false position in the share of its step."""

    def __init__(
        self, map_: WithGain, branches: list[Traced | None], brackets: Sequence[Bracket]
    ) -> None:
        count = len(brackets)
        self.map_, device = map_, map_.device
        self.rows = torch.tensor([b.row for b in brackets], device=device)
        self.block = torch.tensor([max(b.block, 0) for b in brackets], device=device)
        self.is_fold = np.array([b.block < 0 for b in brackets])
        self.ends = np.array([b.ends for b in brackets])
        points = [_ends_of(branches[b.row], b.point) for b in brackets]
        self.begin, end = (torch.stack(side) for side in zip(*points, strict=True))
        chord = end - self.begin
        self.length = chord.norm(dim=-1, keepdim=True)
        self.way = chord / self.length
        # What is known on both sides of the mark: share of the step, point, test function.
        self.share = np.stack([np.zeros(count), np.ones(count)], axis=1)
        self.at = [self.begin.clone(), end.clone()]
        self.test = np.where(self.is_fold[:, None], self.ends.real, np.abs(self.ends) - 1)
        self.weight = np.ones((count, 2))
        self.value = self.ends[np.arange(count), np.abs(self.test).argmin(1)]
        self.last = np.full(count, -1)  # which side was moved last
        self.enough = near_enough(map_.dtype)
        self.failed = np.zeros(count, dtype=int)
        self.avoided = np.full(count, np.nan)

    @property
    def near(self) -> np.ndarray:
        """How far the test function of the better side is from its mark."""
        return np.abs(self.test).min(1)

    def next(self) -> tuple[np.ndarray, np.ndarray]:
        """Return which brackets to go on with, and where."""
        width = self.share[:, 1] - self.share[:, 0]
        going = (self.near > self.enough) & (width > 1e-9) & (self.failed < _FAILURES)
        test = self.test * self.weight
        with np.errstate(divide="ignore", invalid="ignore"):
            trial = self.share[:, 0] - test[:, 0] * width / (test[:, 1] - test[:, 0])
        inside = (trial > self.share[:, 0]) & (trial < self.share[:, 1])
        trial = np.where(inside, trial, self.share.mean(1))
        # Where Newton's method fails, as it does at a branch point, close in from the sides.
        start = self.share[np.arange(len(trial)), self.failed % 2]
        trial = np.where(np.isfinite(self.avoided), (start + self.avoided) / 2, trial)
        chosen = np.flatnonzero(going)
        return chosen, trial[chosen]

    def try_at(self, chosen: np.ndarray, share: np.ndarray, settings: Settings) -> None:
        """Find the points of the branches there, and keep what they tell."""
        index = torch.as_tensor(chosen, device=self.map_.device)
        part = self.map_.rows(self.rows[index])
        ahead = torch.as_tensor(share).to(self.begin)[:, None] * self.length[index]
        guess, way = self.begin[index] + ahead * self.way[index], self.way[index]
        found = correct(part, guess, way, settings.krylov)
        fold = self.is_fold[chosen]
        turned = torch.empty_like(way)
        for kind, aim in ((fold, _EXACT), (~fold, _AIM)):
            some = torch.as_tensor(np.flatnonzero(kind), device=self.map_.device)
            if len(some):
                z, before = found.z[some], way[some]
                turned[some] = tangents(part.rows(some), z, before, settings.krylov, aim=aim)
        values = np.where(fold, turned[:, -1].cpu().numpy(), np.nan).astype(np.complex128)
        if not fold.all():
            others = np.flatnonzero(~fold)
            some = torch.as_tensor(others, device=self.map_.device)
            which = self.block[index][some]
            spectra = eigenvalues_of(part.rows(some), found.z[some], settings, which)[:, 0]
            for place, spectrum in zip(others.tolist(), spectra, strict=True):
                a, b = self.ends[chosen[place]]
                values[place] = _nearest(spectrum, a + share[place] * (b - a))
        # Near a branch point Newton's method may come out on the other branch, at an angle.
        along = ((turned * way).sum(-1) >= SAME_WAY).cpu().numpy()
        verified = found.verified.cpu().numpy() & np.isfinite(values) & along
        for place, number in enumerate(chosen.tolist()):
            if verified[place]:
                self._keep(number, share[place], found.z[place], values[place])
            else:
                self.failed[number] += 1
                self.avoided[number] = share[place]

    def _keep(self, number: int, share: float, z: torch.Tensor, value: complex) -> None:
        phi = value.real if self.is_fold[number] else abs(value) - 1
        side = int(phi * self.test[number, 0] < 0)
        # A side that stays twice loses half its weight (the Illinois rule).
        self.weight[number, 1 - side] *= 0.5 if side == self.last[number] else 1
        self.weight[number, side], self.last[number] = 1, side
        if abs(phi) <= self.near[number]:
            self.value[number] = value
        self.share[number, side], self.test[number, side] = share, phi
        self.at[side][number] = z

    def place(self, number: int) -> tuple[float, torch.Tensor, torch.Tensor]:
        """Return share, point, and the nearest point that was verified, of the mark."""
        test = np.abs(self.test[number])
        better = int(test[1] < test[0])
        nearest = self.at[better][number]
        if test[better] <= self.enough:
            return float(self.share[number, better]), nearest, nearest
        weight = test[0] / test.sum()
        share = self.share[number, 0] + weight * (self.share[number, 1] - self.share[number, 0])
        z = self.at[0][number] + weight * (self.at[1][number] - self.at[0][number])
        return float(share), z, nearest


def _nearest(spectrum: np.ndarray, expected: complex) -> complex:
    known = spectrum[np.isfinite(spectrum)]
    if not known.size:
        return complex(np.nan, np.nan)
    # Of a pair either half will do; the upper one is what a bracket holds.
    upper = known.real + 1j * np.abs(known.imag)
    expected = complex(expected.real, abs(expected.imag))
    return complex(upper[np.abs(upper - expected).argmin()])


def _ends_of(branch: Traced | None, point: int) -> tuple[torch.Tensor, torch.Tensor]:
    assert branch is not None
    return branch.z[point], branch.z[point + 1]
