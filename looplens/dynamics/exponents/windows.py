"""Where a trajectory stops to travel: the transient and the tail, which are averaged apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from looplens.analysis.measures.convergence import convergence
from looplens.analysis.measures.steps import geometry
from looplens.analysis.regimes.thresholds import resting_spread
from looplens.errors import InputError
from looplens.models.inputs import whole_number

SETTLED, HALF, GIVEN = "settled", "last half", "given"
_TOLERANCE = 1e-3  # relative step under which the derivative is that of the limit
_SHORTEST = 8  # steps of a tail
_TURNING, _TURNING_SHARE = 16, 4  # most steps, and the share of the tail, that turn the frame


@dataclass(frozen=True, kw_only=True, slots=True)
class Windows:
    """Which steps of a trajectory count as what; step t leads from iteration t - 1 to t.

    Attributes
    ----------
    first, last : int
        The trajectory begins at iteration `first` and ends at `last`.
    transient_end : Int[ndarray, "pos"]
        Last step of the transient.
    tail_start : Int[ndarray, "pos"]
        First step of the tail that is counted: those between turn the frame.
    rest_from : Int[ndarray, "pos"]
        First step that is rounding, for the token and all that it reads; `last` + 1 where none is.
    rule : list of str
        ``settled``, ``last half`` or ``given``.
    """

    first: int
    last: int
    transient_end: Int[np.ndarray, " pos"]
    tail_start: Int[np.ndarray, " pos"]
    rest_from: Int[np.ndarray, " pos"]
    rule: list[str]

    @property
    def steps(self) -> Int[np.ndarray, " step"]:
        """Numbers of the steps."""
        return np.arange(self.first + 1, self.last + 1)

    @property
    def transient(self) -> Bool[np.ndarray, "pos step"]:
        """Steps of the transients."""
        return self.steps <= self.transient_end[:, None]

    @property
    def tail(self) -> Bool[np.ndarray, "pos step"]:
        """Steps of the tails."""
        return self.steps >= self.tail_start[:, None]

    @property
    def rest_share(self) -> Float[np.ndarray, " pos"]:
        """Share of the steps of the tail that are rounding."""
        rest = self.last + 1 - np.maximum(self.rest_from, self.tail_start)
        return np.clip(rest / (self.last + 1 - self.tail_start), 0, 1)


def windows(
    states: Float[np.ndarray, "iteration pos d_model"],
    *,
    first: int,
    causal: bool,
    rounding: float,
    tail: int | None = None,
) -> Windows:
    """Part trajectories into transient and tail.

    The derivative of a token depends on the tokens that it reads, so its transient ends when the
    last of them has settled: all relative steps below 1e-3, or what rounding allows if that is
    more, or no motion left but rounding. Where one of them does not settle, or too late to leave 8
    steps, the tail is the last half. The first quarter of a tail (at most 16 steps) turns the frame
    and does not count.

    Parameters
    ----------
    states : ndarray, shape (iteration, pos, d_model)
        One trajectory, without gaps.
    first : int
        Iteration of the first state.
    causal : bool
        Whether a token reads itself and earlier ones only.
    rounding : float
        Relative step that rounding alone shows.
    tail : int, optional
        First step of the tail of all tokens, instead of this rule.

    Raises
    ------
    InputError
        For fewer than four steps, or a tail that leaves none.
    """
    last = first + len(states) - 1
    if last - first < 4:
        raise InputError(
            f"exponents need at least 4 steps, and there are {last - first}: give iterations= to "
            "run the loop further"
        )
    paths = states.swapaxes(0, 1)
    tolerance = max(_TOLERANCE, resting_spread(rounding))
    settled = convergence(paths, tolerance=tolerance).settling_iteration
    signal = geometry(paths, rounding=rounding).signal_end
    resting = np.nan_to_num(signal, nan=np.inf) + 1
    # Never is later than all others; single steps of coarse rounding can exceed every tolerance.
    settled = _of_all_read(np.fmin(settled, resting), causal)
    rest_from = first + _of_all_read(resting, causal)
    end = np.full(len(paths), first + (last - first) // 2)
    if tail is not None:
        start = whole_number(tail, "tail", least=first + 1)
        if start > last:
            raise InputError(f"tail={start}, but the last iteration is {last}: nothing is left")
        end[:] = start - 1
        rule = [GIVEN] * len(end)
    else:
        early = settled - 1 <= last - first - _SHORTEST
        end[early] = first + settled[early] - 1
        rule = [SETTLED if yes else HALF for yes in early]
    turning = np.minimum((last - end) // _TURNING_SHARE, _TURNING)
    return Windows(
        first=first,
        last=last,
        transient_end=end,
        tail_start=end + turning + 1,
        rest_from=np.minimum(rest_from, last + 1).astype(int),
        rule=rule,
    )


def _of_all_read(numbers: np.ndarray, causal: bool) -> np.ndarray:
    """Return the largest number among the tokens that each one reads."""
    if causal:
        return np.maximum.accumulate(numbers)
    return np.full_like(numbers, numbers.max())
