"""Finite-time Lyapunov exponents of any differentiable map of tensors, by Benettin's method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from looplens.dynamics.maps.state_map import Rows, StateMap
from looplens.errors import AnalysisError, InputError
from looplens.models.inputs import whole_number


@dataclass(frozen=True, kw_only=True, slots=True)
class Lyapunov:
    """Exponents, in natural logarithms per iteration; leading axes are rows, if there are several.

    Attributes
    ----------
    exponents : Float[ndarray, "k"]
        Over all steps after `discard`, largest first.
    growth : Float[ndarray, "step k"]
        log |R_ii| of every step, the discarded ones too; -inf where a direction is lost altogether.
    discard : int
        Steps left out at the beginning.
    """

    exponents: Float[np.ndarray, "*rows k"]
    growth: Float[np.ndarray, "*rows step k"]
    discard: int

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
    :math:`\log |(R_t)_{ii}|`.

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
        Exponents, and the growth of every step.

    Raises
    ------
    InputError
        If k is larger than the state, the start is not finite, or nothing is left to count.
    AnalysisError
        If the trajectory leaves the finite numbers.

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
    steps = whole_number(steps, "steps", least=1)
    found = along(map_, map_.flat(s0), steps, k, discard=discard, seed=seed)
    return Lyapunov(exponents=found.exponents[0], growth=found.growth[0], discard=found.discard)


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
    k = whole_number(k, "k", least=1)
    discard = whole_number(discard, "discard", least=0)
    if k > map_.size:
        raise InputError(
            f"k={k}, but a state has {map_.size} dimensions: ask for no more exponents"
        )
    if discard >= steps:
        raise InputError(f"discard={discard} leaves none of {steps} steps to count")
    rows = len(start)
    draw = torch.randn(map_.size, k, generator=torch.Generator().manual_seed(seed))
    frame = torch.linalg.qr(draw.double())[0].to(start.device).expand(rows, -1, -1)
    growth = np.empty((rows, steps, k))
    x = start
    for step in range(steps):
        # Every direction of every row is a row of one product.
        directions = frame.transpose(1, 2).reshape(rows * k, -1).to(x)
        moved = map_.each(k).jvp(x.repeat_interleave(k, dim=0), directions)
        stretched = moved.reshape(rows, k, -1).transpose(1, 2).double()
        frame, r = torch.linalg.qr(stretched)
        with np.errstate(divide="ignore"):
            growth[:, step] = np.log(r.diagonal(dim1=1, dim2=2).abs().cpu().numpy())
        x = map_(x)
        if not bool(x.isfinite().all()):
            raise AnalysisError(
                f"the trajectory leaves the finite numbers at step {step + 1} of {steps}: take "
                "fewer steps or another start"
            )
    return Lyapunov(exponents=growth[:, discard:].mean(1), growth=growth, discard=discard)
