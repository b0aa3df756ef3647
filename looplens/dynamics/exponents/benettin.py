"""Finite-time Lyapunov exponents by Benettin's method: orthonormal frames carried by derivatives.

Frames and logarithms are float64, whatever the map computes in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from looplens.dynamics.exponents.averages import error_of_mean, kaplan_yorke
from looplens.dynamics.maps.state_map import Rows, StateMap
from looplens.errors import AnalysisError, InputError
from looplens.models.inputs import whole_number

Frame = Float[Tensor, "row n k"]  # float64; columns are the directions
_LOST = 8  # roundings of the largest product: what is left of a direction below that is noise


@dataclass(frozen=True, kw_only=True, slots=True)
class Lyapunov:
    """Exponents, in natural logarithms per iteration; leading axes are rows, if there are several.

    Attributes
    ----------
    exponents : Float[ndarray, "k"]
        Over all steps after `discard`, largest first up to their errors.
    errors : Float[ndarray, "k"]
        Standard errors of these means, by batches; NaN for fewer than 8 steps.
    resolved : Bool[ndarray, "k"]
        False where a direction fell below the rounding of the largest product: its exponent is then
        not to be relied on. Compute in float64, or ask for fewer.
    growth : Float[ndarray, "step k"]
        log |R_ii| of every step, the discarded ones too; -inf where a direction is lost altogether.
    discard : int
        Steps left out at the beginning.
    size : int
        Numbers in a state.
    notes : tuple of str
        What a reader should know of how it was computed, such as another dtype than the start's.
    """

    exponents: Float[np.ndarray, "*rows k"]
    errors: Float[np.ndarray, "*rows k"]
    resolved: Bool[np.ndarray, "*rows k"]
    growth: Float[np.ndarray, "*rows step k"]
    discard: int
    size: int
    notes: tuple[str, ...] = ()

    @property
    def dimension(self) -> Any:
        """Kaplan-Yorke dimension; NaN where more exponents are needed."""
        return kaplan_yorke(self.exponents, self.errors, self.size)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return the exponents."""
        return np.asarray(self.exponents, dtype=dtype)


def lyapunov(
    f: Callable[[Tensor], Tensor],
    s0: Tensor,
    steps: int = 256,
    k: int = 1,
    *,
    discard: int = 0,
    seed: int = 0,
) -> Lyapunov:
    r"""Compute the leading exponents along the trajectory that starts at s0.

    An orthonormal frame :math:`Q_0` of k random directions is carried along,
    :math:`J(s_t) Q_t = Q_{t+1} R_t`, and :math:`\lambda_i` is the mean of
    :math:`\log |(R_t)_{ii}|`. The frame needs some steps to turn into the directions that grow
    most: `discard` those, and the way of the trajectory to where it lives.

    Parameters
    ----------
    f : callable
        A differentiable map of a state to the next.
    s0 : Tensor
        First state, of any shape.
    steps : int
        Iterations.
    k : int
        Exponents wanted; at most the size of the state.
    discard : int
        Iterations at the beginning that are run but not counted.
    seed : int
        Of the frame.

    Returns
    -------
    Lyapunov
        Exponents with their errors, and the growth of every step.

    Raises
    ------
    InputError
        If k is larger than the state, the start is not finite, or nothing is left to count.
    AnalysisError
        If the trajectory or its derivative leaves the finite numbers.

    References
    ----------
    Benettin, Galgani, Giorgilli and Strelcyn, Meccanica 15 (1980), part 2.

    Examples
    --------
    >>> import torch
    >>> logistic = lambda x: 4 * x * (1 - x)
    >>> start = torch.tensor([0.3], dtype=torch.float64)
    >>> bool(abs(lyapunov(logistic, start, steps=2000).exponents[0] - np.log(2)) < 0.01)
    True
    """
    map_ = StateMap.of(f, s0)
    found = along(map_, map_.flat(s0), steps, k, discard=discard, seed=seed)
    return Lyapunov(
        exponents=found.exponents[0],
        errors=found.errors[0],
        resolved=found.resolved[0],
        growth=found.growth[0],
        discard=found.discard,
        size=found.size,
        notes=found.notes,
    )


def along(
    map_: StateMap,
    start: Rows,
    steps: int,
    k: int,
    *,
    discard: int = 0,
    seed: int = 0,
) -> Lyapunov:
    """Compute the exponents of every row; the arguments are those of `lyapunov`."""
    steps = whole_number(steps, "steps", least=1)
    k = whole_number(k, "k", least=1)
    discard = whole_number(discard, "discard", least=0)
    if k > map_.size:
        raise InputError(
            f"k={k}, but a state has {map_.size} dimensions: ask for no more exponents"
        )
    if discard >= steps:
        raise InputError(f"discard={discard} leaves none of {steps} steps to count")
    carried = list(carry(_run(map_, start, steps), random_frame(map_, len(start), k, seed)))
    growth = np.stack([step.logs[:, 0] for step in carried], axis=1)
    noise = np.stack([step.noise for step in carried[discard:]], axis=1)
    counted = growth[:, discard:]
    return Lyapunov(
        exponents=counted.mean(1),
        errors=error_of_mean(counted),
        resolved=np.logical_not(noise.any(1)),
        growth=growth,
        discard=discard,
        size=map_.size,
        notes=map_.notes,
    )


def _run(map_: StateMap, x: Rows, steps: int) -> Iterator[tuple[StateMap, Rows]]:
    for step in range(1, steps + 1):
        yield map_, x
        x = map_(x)
        if not bool(x.isfinite().all()):
            raise AnalysisError(
                f"the trajectory leaves the finite numbers at step {step} of {steps}: take "
                "fewer steps or another start"
            )


class Carried(NamedTuple):
    """What one step does to a frame.

    Attributes
    ----------
    logs : Float[ndarray, "row place k"]
        log |R_ii| behind every place of the step, the last of which is its end; -inf where a
        direction was lost altogether.
    noise : Bool[ndarray, "row k"]
        Where what is left of a direction at the end is rounding.
    """

    logs: Float[np.ndarray, "row place k"]
    noise: Bool[np.ndarray, "row k"]


def carry(
    derivatives: Iterable[tuple[StateMap, Rows]], frame: Frame, places: int = 1
) -> Iterator[Carried]:
    """Carry frames through one derivative after the other.

    Parameters
    ----------
    derivatives : iterable of (StateMap, Rows)
        Maps and where they are taken. A map may yield several states of a row in one, those at so
        many places of a step.
    frame : Frame
        Where to begin.
    places : int
        How many states a map yields.

    Raises
    ------
    AnalysisError
        If a derivative is not finite.
    """
    for step, (map_, x) in enumerate(derivatives, 1):
        moved = push(map_, x, frame)
        check_finite(moved, step)
        *within, end = moved.chunk(places, dim=1)
        frame, r = torch.linalg.qr(end)
        triangles = [*(torch.linalg.qr(part, mode="r")[1] for part in within), r]
        logs = np.stack([_log_diagonal(triangle) for triangle in triangles], axis=1)
        yield Carried(logs, _is_noise(end, logs[:, -1], x.dtype))


def random_frame(map_: StateMap, rows: int, k: int, seed: int) -> Frame:
    """Return the same k random orthonormal directions for every row."""
    draw = torch.Generator().manual_seed(whole_number(seed, "seed", least=0))
    directions = torch.randn(map_.size, k, generator=draw).double()
    return torch.linalg.qr(directions)[0].to(map_.device).expand(rows, -1, -1)


def push(map_: StateMap, x: Rows, frame: Frame) -> Frame:
    """Return J(x) Q for every row; where the map yields more than a state, n is larger."""
    return map_.linearised(x).jvps(frame.permute(2, 0, 1).to(x)).permute(1, 2, 0).double()


def pull(map_: StateMap, x: Rows, frame: Frame) -> Frame:
    """Return J(x)^T Q for every row."""
    at = map_.linearised(x)
    return torch.stack([at.vjp(u) for u in frame.permute(2, 0, 1).to(x)], dim=2).double()


def check_finite(moved: Frame, step: int) -> None:
    """Raise `AnalysisError` unless what a derivative makes of a frame is finite."""
    if not bool(moved.isfinite().all()):
        raise AnalysisError(
            f"the derivative is not finite at step {step}: the map is not smooth there, or the "
            "trajectory runs away. Take another start, or fewer steps"
        )


def _log_diagonal(r: Tensor) -> Float[np.ndarray, "row k"]:
    with np.errstate(divide="ignore"):
        return np.log(r.diagonal(dim1=1, dim2=2).abs().cpu().numpy())


def _is_noise(
    moved: Frame, logs: Float[np.ndarray, "row k"], dtype: torch.dtype
) -> Bool[np.ndarray, "row k"]:
    """Return where what is left of a direction is no more than the rounding of the products.

    Rounding is as large as the largest product allows, whatever the length of the column itself: a
    direction that J takes to nearly nothing comes out as noise of many dimensions. Where all
    columns are zero, J is zero, which is no rounding.
    """
    largest = moved.norm(dim=1).amax(1, keepdim=True).cpu().numpy()
    with np.errstate(divide="ignore"):
        return (largest > 0) & (logs <= np.log(_LOST * torch.finfo(dtype).eps * largest))
