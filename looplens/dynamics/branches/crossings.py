"""Where a branch turns or loses stability: folds, flips and Neimark-Sacker crossings, located.

Between two points of a branch, the gain's component of the tangent or the modulus of an eigenvalue
passes its mark; :mod:`looplens.dynamics.branches.locating` closes in on the place.

References
----------
Kuznetsov, Elements of Applied Bifurcation Theory (3rd ed., 2004), chapter 4 (bifurcations of fixed
points of maps) and section 10.2 (their location along a branch).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from looplens.dynamics.branches.families import WithGain
from looplens.dynamics.branches.locating import Bracket, Search, near_enough
from looplens.dynamics.branches.tracing import Settings, Traced, eigenvalues_of

Kind = Literal["fold", "branch_point", "flip", "neimark_sacker"]
KINDS: dict[str, str] = {
    "fold": "the branch turns back: two fixed points meet and are gone",
    "branch_point": "a real eigenvalue passes 1 and the branch goes on: another branch crosses",
    "flip": "a real eigenvalue passes -1: period doubling",
    "neimark_sacker": "a complex pair passes the unit circle: a turn of its angle is born",
}
"""Kinds of bifurcations and what they are."""

_ROUNDS = 24
_CLOSE_ENOUGH = 0.02  # where no nearer point can be computed, it is interpolated from here
_FOLD_BLOCK = 0.05  # largest distance to 1 of the eigenvalue that a fold is put down to
_FAR = 1e6


@dataclass(frozen=True, kw_only=True, slots=True)
class Crossing:
    """One bifurcation on a branch.

    Attributes
    ----------
    kind : str
        A key of `KINDS`.
    row, block : int
        Which branch, and the label of which block of it; -1 where that is not known.
    point : float
        Where along the branch, in points.
    gain : float
        At which gain.
    eigenvalue : complex
        The one on the unit circle, as computed there; NaN where the block is not known.
    state : Float[ndarray, "..."]
        The fixed point there.
    out : bool
        Whether the eigenvalue leaves the circle as the branch is gone along; always for folds.
    """

    kind: Kind
    row: int
    block: int
    point: float
    gain: float
    eigenvalue: complex
    state: Float[np.ndarray, ...]
    out: bool


def crossings(map_: WithGain, branches: list[Traced | None], settings: Settings) -> list[Crossing]:
    """Find every bifurcation of all branches, in order along each."""
    brackets = [
        bracket
        for row, branch in enumerate(branches)
        if branch is not None
        for bracket in _brackets(row, branch, near_enough(map_.dtype))
    ]
    if not brackets:
        return []
    search = Search(map_, branches, brackets)
    for _ in range(_ROUNDS):
        chosen, share = search.next()
        if not chosen.size:
            break
        search.try_at(chosen, share, settings)
    kept = _without_doubles(_described(search, brackets, settings))
    return sorted(kept, key=lambda crossing: (crossing.row, crossing.point))


def _brackets(row: int, branch: Traced, near: float) -> list[Bracket]:
    """Return the steps in which something passes; not what stays within `near` of the circle."""
    found = []
    for point in range(len(branch.z) - 1):
        turns = [float(branch.tangent[p][-1]) for p in (point, point + 1)]
        if turns[0] * turns[1] < 0:
            found.append(Bracket(row, point, -1, (complex(turns[0]), complex(turns[1]))))
        pair = branch.eigenvalues[point], branch.eigenvalues[point + 1]
        for block, (before, after) in enumerate(zip(*pair, strict=True)):
            for a, b in matched(before, after):
                away = max(abs(abs(a) - 1), abs(abs(b) - 1)) > near
                if away and (abs(a) < 1) != (abs(b) < 1) and b.imag >= 0:
                    found.append(Bracket(row, point, block, (a, b)))
    return found


def matched(before: np.ndarray, after: np.ndarray) -> list[tuple[complex, complex]]:
    """Pair the eigenvalues of two neighbouring points so that they move least in all.

    Of complex pairs the lower half goes along with the upper one and is left out, at the end it has
    by the eigenvalue that it becomes.
    """
    a, b = before[np.isfinite(before)], after[np.isfinite(after)]
    if not a.size or not b.size:
        return []
    distance = np.abs(a[:, None] - b[None])
    left, right = linear_sum_assignment(np.minimum(distance, _FAR))
    return [(complex(a[i]), complex(b[j])) for i, j in zip(left, right, strict=True)]


def _described(search: Search, brackets: list[Bracket], settings: Settings) -> list[Crossing]:
    found = []
    for number in np.flatnonzero(search.near <= _CLOSE_ENOUGH).tolist():
        bracket, value = brackets[number], complex(search.value[number])
        here = search.map_.rows(search.rows[number : number + 1])
        share, z, nearest = search.place(number)
        kind, out = _kind(value), abs(bracket.ends[1]) > 1
        label = here.family.labels[max(bracket.block, 0)]
        if bracket.block < 0:
            kind, out = "fold", True
            label, value = _folding(here, nearest, settings)
        found.append(
            Crossing(
                kind=kind,
                row=bracket.row,
                block=label,
                point=bracket.point + share,
                gain=float(z[-1]),
                eigenvalue=value,
                state=here.part(nearest[None])[0][0].cpu().numpy(),
                out=bool(out),
            )
        )
    return found


def _folding(here: WithGain, z: torch.Tensor, settings: Settings) -> tuple[int, complex]:
    """Return which block a fold is of, and its eigenvalue near 1."""
    spectra = eigenvalues_of(here, z[None], settings)[0]
    from_one = np.where(np.isfinite(spectra), np.abs(spectra - 1), np.inf)
    block, which = np.unravel_index(from_one.argmin(), from_one.shape)
    if from_one.min() > _FOLD_BLOCK:
        return -1, complex(np.nan, np.nan)
    return here.family.labels[block], complex(spectra[block, which])


def _without_doubles(found: list[Crossing]) -> list[Crossing]:
    """Leave out the eigenvalue that passes 1 because of a fold, which is told by its turn."""
    folds = [crossing for crossing in found if crossing.kind == "fold"]
    return [
        crossing
        for crossing in found
        if crossing.kind != "branch_point"
        or not any(
            fold.row == crossing.row
            and fold.block in (crossing.block, -1)
            and int(fold.point) == int(crossing.point)
            for fold in folds
        )
    ]


def _kind(value: complex) -> Kind:
    if abs(value.imag) > 1e-4:
        return "neimark_sacker"
    return "branch_point" if value.real > 0 else "flip"
