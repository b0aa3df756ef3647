"""How fast a frontier moves: a slope with its fit, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

FEWEST = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class FrontierSpeed:
    """A straight line through a frontier while it grows.

    Attributes
    ----------
    slope, error : float
        Positions per pass, and the standard error from the scatter; NaN where undefined. Two
        points have no scatter, and steps in whole positions are not independent, so the error is a
        lower bound.
    r2 : float
        Share of the variance on the line.
    note : str
        Why there is no slope; empty where there is one.
    """

    slope: float = np.nan
    error: float = np.nan
    r2: float = np.nan
    note: str = ""


def frontier_speed(
    frontier: Float[np.ndarray, " pass"], damaged: bool, possible: int
) -> FrontierSpeed:
    """Fit the frontier from the damage on until it has stopped growing.

    Parameters
    ----------
    frontier : Float[ndarray, "pass"]
        Distance of the farthest damaged token so far, in positions; the first entry is the pass of
        the damage.
    damaged : bool
        Whether the replaced token itself was damaged.
    possible : int
        Tokens that could see it.
    """
    if not damaged:
        return FrontierSpeed(note="the donor's activation is the same, up to the threshold")
    if not possible:
        return FrontierSpeed(note="no other token sees this one")
    if frontier[-1] == 0:
        return FrontierSpeed(note="no other token is damaged")
    full = int(frontier.argmax())
    if full + 1 < FEWEST:
        passes = "in the same pass" if full == 0 else "after one pass"
        return FrontierSpeed(note=f"the farthest token it gets to is damaged {passes}")
    time, far = np.arange(full + 1.0), frontier[: full + 1]
    centred = time - time.mean()
    slope = float(centred @ far / (centred @ centred))
    rest = far - far.mean() - slope * centred
    left, all_of_it = float(rest @ rest), float(((far - far.mean()) ** 2).sum())
    error = float(np.sqrt(left / max(len(far) - 2, 1) / (centred @ centred)))
    return FrontierSpeed(slope=slope, error=error, r2=1 - left / all_of_it)
