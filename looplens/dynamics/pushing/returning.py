"""Whether a pushed trajectory comes back: rows of distances and late states, and a word for each.

Nothing here knows what the push was, or of models.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from looplens.analysis.measures.gap_decay import GapDecay, gap_decay
from looplens.analysis.regimes.thresholds import resting_spread, rounding_step

OUTCOMES = {
    "back": "where it would have been without the push, up to rounding",
    "other_phase": "on the same path, at another time of it",
    "returning": "not back yet, but nearer from pass to pass",
    "away": "neither back nor on the way by the last pass",
    "not_finite": "numbers overflowed",
}
COMES_BACK = ("back", "other_phase", "returning")
_SPACING = 2.0  # how far off a path may look: over the gap of its points, or the bow of its turns
_SMOOTH = 0.5  # least median cosine between successive steps of a path that is a curve
_NEAR = 0.05  # of a step: as far off a curve as this is on it
_FALL, _STRAIGHT = 0.9, 0.5  # of the distance over the window, and its variance on a line

Late = Float[Tensor, "time row d_model"]
Matrix = Float[Tensor, "row time other_time"]


def window(passes: int) -> int:
    """Return how many states at the end are judged: a quarter, at least eight."""
    return min(passes, max(8, passes // 4))


def reference(passes: int) -> int:
    """Return how many states at the end :func:`outcomes` needs: all but a quarter.

    Longer than the window, or a long orbit that is met at another phase would seem to be left.
    """
    return max(window(passes), passes - passes // 4)


def floor_of(dtype: torch.dtype) -> float:
    """Return the distance over the norm that may be rounding; the floor of the regimes."""
    return resting_spread(rounding_step(str(dtype)))


def outcomes(pushed: Late, unpushed: Late, floor: float, kept: int | None = None) -> list[str]:
    """Say of every row where it is at the end.

    Parameters
    ----------
    pushed, unpushed : Float[Tensor, "time row d_model"]
        The last states of each row, with the push and without, at the same passes.
    floor : float
        Distance over the norm that may be rounding.
    kept : int, optional
        How many of them at the end are judged; the others only say where the paths have been. By
        default all.

    Returns
    -------
    list of str
        Keys of :data:`OUTCOMES`.

    Notes
    -----
    ``other_phase``: all judged states lie on the unpushed path. Where its steps go on in about the
    same direction, the path is a curve through its points, and lies off the straight line between
    two of them by the bow of the larger turn there; twice that is allowed, or a twentieth of the
    step. Where they do not, it is its points, and twice the largest gap between neighbours is
    allowed. An orbit must have been seen once around, so its period is at most half the passes.

    ``returning``: the largest distance from the path falls from third to third of the judged
    passes, by 10 % in all, and a straight line explains half the variance of its logarithm, or of
    that of the maxima of two neighbours: around a cycle distances fall by turns.
    """
    pushed, unpushed = pushed.double(), unpushed.double()
    kept = len(pushed) if kept is None else min(kept, len(pushed))
    finite = (pushed.isfinite() & unpushed.isfinite()).all(-1).all(0)
    # Rows that overflowed have no distances; zeros keep them from spoiling the others.
    a, b = (torch.where(finite[:, None], x, 0.0).movedim(1, 0) for x in (pushed, unpushed))
    norm = b[:, -kept:].norm(dim=-1).amax(1).clamp(min=torch.finfo(torch.float64).tiny)  # row
    a, b = a / norm[:, None, None], b / norm[:, None, None]
    back = (a[:, -1] - b[:, -1]).norm(dim=-1) <= floor
    on_path, distance = _on_path(a, b, kept, floor)
    nearing = _nearing(distance.T.cpu().numpy())
    rows = zip(finite, back, on_path, nearing, strict=True)
    return [
        next(word for word, holds in zip(OUTCOMES, _cases(*row), strict=True) if holds)
        for row in rows
    ]


def _cases(finite: Tensor, back: Tensor, on_path: Tensor, nearing: np.bool_) -> list[bool]:
    """Return which of the outcomes hold, in their order; the first one counts."""
    known = bool(finite)
    return [known and bool(back), known and bool(on_path), known and bool(nearing), known, True]


def _on_path(
    a: Float[Tensor, "row time d_model"],
    b: Float[Tensor, "row time d_model"],
    kept: int,
    floor: float,
) -> tuple[Tensor, Float[Tensor, "row kept"]]:
    """Return whether the last of ``a`` lie on the path of ``b``, and how far off."""
    gap, between = _distances(a[:, -kept:], b), _distances(b, b)
    points = gap.amin(-1)
    diagonal = torch.eye(b.shape[1], dtype=torch.bool, device=b.device)
    alone = between.masked_fill(diagonal, torch.inf)[:, -kept:, -kept:].amin(-1)
    spacing = torch.where(alone.isfinite(), alone, 0.0).amax(-1)  # row
    on_points = points.amax(-1) <= (_SPACING * spacing).clamp(min=floor)
    if b.shape[1] < 3:
        return on_points, points
    length = between.diagonal(1, 1, 2)  # row time-1
    cosine = _cosines(length, between.diagonal(2, 1, 2))
    curve = cosine[:, 1 - kept :].nanmedian(-1).values > _SMOOTH
    off = _off_segments(gap, length)
    # The bow of an arc of this angle over its chord; of a right angle at the most.
    angle = torch.acos(cosine.nan_to_num(nan=1.0).clamp(0, 1))
    ends = torch.nn.functional.pad(angle, (1, 1))
    bow = length * torch.tan(torch.maximum(ends[:, 1:], ends[:, :-1]) / 4) / 2
    allowed = torch.maximum(_SPACING * bow, _NEAR * length).clamp(min=floor)
    on_curve = (off <= allowed[:, None]).any(-1).all(-1)
    distance = torch.where(curve[:, None], off.amin(-1), points)
    return torch.where(curve, on_curve, on_points), distance


def _cosines(length: Tensor, two: Tensor) -> Float[Tensor, "row turn"]:
    """Return cosines between successive steps, out of distances; NaN where one has no length."""
    before, after = length[:, :-1], length[:, 1:]
    return (two**2 - before**2 - after**2) / (2 * before * after)


def _off_segments(gap: Matrix, length: Float[Tensor, "row step"]) -> Matrix:
    """Return distances from the straight lines between successive points, out of those to them."""
    before, after, along = gap[..., :-1], gap[..., 1:], length[:, None]
    dot = (before**2 + along**2 - after**2) / 2  # of the way from the first end with the line
    share = (dot / along**2).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).clamp(0, 1)
    inside = (before**2 - 2 * share * dot + (share * along) ** 2).clamp(min=0).sqrt()
    return torch.where((share > 0) & (share < 1), inside, torch.minimum(before, after))


def _distances(a: Tensor, b: Tensor) -> Matrix:
    # Through products, small distances would drown in rounding.
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _nearing(distance: np.ndarray) -> np.ndarray:
    """Whether distances (time, row) fall exponentially, if by turns."""
    first, middle, last = (part.max(0) for part in np.array_split(distance, 3))
    # Around a flip every other distance is larger, whatever the trend: their maxima tell it.
    straight = np.fmax(_straight(distance), _straight(np.maximum(distance[1:], distance[:-1])))
    return (last < middle) & (middle < first) & (last <= _FALL * first) & (straight >= _STRAIGHT)


def _straight(distance: np.ndarray) -> np.ndarray:
    """Return the share of the variance of the logarithms (time, row) on a straight line."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(distance)
        time = np.arange(len(logs)) - (len(logs) - 1) / 2
        off = logs - logs.mean(0)
        return (time @ off) ** 2 / (time @ time) / (off**2).sum(0)


def return_rate(distance: np.ndarray, floor: np.ndarray) -> GapDecay:
    """Fit the decay of distances in the units of the states: (row, pass), from the push on."""
    known = np.isfinite(distance).all(1)
    fit = gap_decay(np.where(known[:, None], distance, 0.0), floor)
    return GapDecay(
        slope=np.where(known, fit.slope, np.nan),
        error=np.where(known, fit.error, np.nan),
        end=np.where(known, fit.end, np.nan),
    )
