"""Kneedle: where a curve bends from steep to flat.

It knows curves of equally spaced points and nothing of models.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from looplens.analysis.algebra.gram import Floats
from looplens.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Knee:
    """What `kneedle` finds in one curve of ``n`` points.

    Attributes
    ----------
    index : int or None
        The knee: of the detected maxima the highest. None when no maximum passes.
    detected : tuple of int
        Every maximum of the difference curve that passes the threshold, in order.
    difference : ndarray, shape (n,)
        The difference curve, at most 1: how far the normalised curve bends away from the straight
        line between its corners.
    sensitivity : float
        As given.
    """

    index: int | None
    detected: tuple[int, ...]
    difference: Floats
    sensitivity: float


def kneedle(curve: ArrayLike, *, sensitivity: float = 1.0, bend: str = "falling") -> Knee:
    r"""Find the knee of a curve.

    The curve is normalised to the unit square, ``x = i / (n - 1)`` and
    ``y = (curve - min) / (max - min)``, and turned so that its knee becomes a maximum of the
    difference curve: ``1 - y - x`` for ``falling``, ``y - x`` for ``rising``. A local maximum ``m``
    is a knee when the difference falls below ``difference[m] - sensitivity / (n - 1)`` before it
    rises again after a local minimum. Equal neighbours count as one point, at the first of them.

    Parameters
    ----------
    curve : array_like, shape (n,)
        Values at equally spaced points, at least 3. It is not smoothed.
    sensitivity : float
        How much flat curve must follow a knee, in steps between points; ``S`` of the paper, which
        uses 1. Smaller finds more knees: 0 accepts every local maximum, and noise with it; at
        ``S`` a knee in the last ``S`` points of a curve that goes on flat cannot be found.
    bend : {"falling", "rising"}
        ``falling``: falls steeply, then flattens (convex). ``rising``: rises steeply, then
        flattens (concave).

    Returns
    -------
    Knee
        Without an index for a straight line or a constant.

    Raises
    ------
    InputError
        For fewer than 3 points, values that are not finite, a negative sensitivity, or another
        bend.

    References
    ----------
    Satopää, Albrecht, Irwin and Raghavan 2011, "Finding a 'Kneedle' in a Haystack: Detecting Knee
    Points in System Behavior", ICDCS Workshops, section III (offline). The paper smooths with a
    spline first; a curve of a few layers has nothing to spare for that. Where several knees pass,
    the paper lists them all; the highest is chosen here.
    """
    values = np.asarray(curve, dtype=np.float64)
    if values.ndim != 1 or values.size < 3:
        raise InputError(
            f"a knee needs a curve of at least 3 points, got an array of shape {values.shape}"
        )
    if not np.isfinite(values).all():
        raise InputError("a knee needs finite values, got NaN or infinity")
    if not sensitivity >= 0:
        raise InputError(f"sensitivity must not be negative, got {sensitivity}")
    if bend not in ("falling", "rising"):
        raise InputError(f"bend must be 'falling' or 'rising', got {bend!r}")
    span = np.ptp(values)
    x = np.linspace(0, 1, values.size)
    y = (values - values.min()) / span if span > 0 else np.zeros(values.size)
    if bend == "falling":
        y = 1 - y
    difference = y - x if span > 0 else np.zeros(values.size)
    detected = _maxima_that_pass(difference, sensitivity / (values.size - 1))
    index = max(detected, key=lambda i: (difference[i], -i), default=None)
    return Knee(
        index=index, detected=tuple(detected), difference=difference, sensitivity=float(sensitivity)
    )


def _maxima_that_pass(difference: Floats, margin: float) -> list[int]:
    """Return the local maxima after which the curve falls by more than a margin."""
    tolerance = 1e-9  # rounding of a curve that lies between -1 and 1
    moved = np.abs(np.diff(difference)) > tolerance
    points = np.flatnonzero(np.append(True, moved))  # equal neighbours count as one point
    heights = difference[points]
    passed = []
    for number in range(1, len(points) - 1):
        if not heights[number - 1] < heights[number] > heights[number + 1]:
            continue
        lowest = number + 1
        while lowest + 1 < len(points) and heights[lowest + 1] < heights[lowest]:
            lowest += 1
        if heights[lowest] < heights[number] - margin - tolerance:
            passed.append(int(points[number]))
    return passed
