"""A fixed point of any differentiable map of tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from looplens.analysis.algebra.inputs import real_number
from looplens.dynamics.maps.state_map import Rows, StateMap
from looplens.dynamics.solving.methods import Best, anderson, iterate, newton
from looplens.dynamics.solving.verifying import Verdict, verify
from looplens.errors import InputError
from looplens.models.inputs import whole_number

Method = Literal["auto", "iteration", "anderson", "newton"]
_FIRST = 32  # iterations of a kind before another is tried


@dataclass(frozen=True, kw_only=True, slots=True)
class FixedPoint:
    """What `fixed_point` came to.

    Attributes
    ----------
    state : Tensor
        The state of least residual. It is a fixed point only if `verified`.
    residual : float
        |f(s) - s| there.
    tolerance : float
        What it had to fall to: 32 machine epsilons of the norm of the state.
    correction : float
        Norm of the Newton correction, an estimate of the distance to the root; NaN where the
        residual is too large.
    verified : bool
        Whether the residual is at the floor of rounding and the correction is at most 1e-3 of the
        norm of the state.
    method : str
        What got there: ``iteration``, ``anderson`` or ``newton``.
    iterations : int
        Iterations of the methods that were tried, all together.
    evaluations : int
        How often ``f`` or a derivative of it was computed.
    attention : str
        Which attention kernel the derivatives took.
    """

    state: Tensor
    residual: float
    tolerance: float
    correction: float
    verified: bool
    method: str
    iterations: int
    evaluations: int
    attention: str

    @property
    def point(self) -> Tensor | None:
        """The fixed point, or None where none was verified."""
        return self.state if self.verified else None

    @property
    def message(self) -> str:
        """What was found, in words."""
        how = f"{self.method}, {self.iterations} iterations"
        if self.verified:
            return f"fixed point, residual {self.residual:.1e} ({how})"
        best = f"best residual {self.residual:.1e}, wanted {self.tolerance:.1e} ({how})"
        return f"no fixed point was found: {best}"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return the fixed point, NaN where none was verified."""
        state = self.state if self.verified else torch.full_like(self.state, torch.nan)
        return np.asarray(state.detach().cpu().numpy(), dtype=dtype)


@dataclass(frozen=True, kw_only=True, slots=True)
class Solution:
    """What `solve` came to, for every row."""

    best: Best
    verdict: Verdict
    method: tuple[str, ...]


def fixed_point(
    f: Callable[[Tensor], Tensor],
    s0: Tensor,
    *,
    method: Method = "auto",
    max_iterations: int = 500,
    damping: float = 1.0,
    krylov: int = 60,
) -> FixedPoint:
    r"""Solve s = f(s) from a start.

    Parameters
    ----------
    f : callable
        A differentiable map of a state to the next, tensor to tensor of the same shape and dtype.
    s0 : Tensor
        Where to start, of any shape.
    method : {"auto", "iteration", "anderson", "newton"}
        ``iteration``: :math:`s + \beta (f(s) - s)`; ``anderson``: with mixing of the last six
        steps; ``newton``: Newton-Krylov, which also finds points that iteration runs away from.
        ``auto``: a few iterations, then Anderson, then Newton from the state of least residual, and
        at last Newton from the start.
    max_iterations : int
        Most iterations of the method (of each, for ``auto``).
    damping : float
        :math:`\beta`, above 0 and up to 1.
    krylov : int
        Most products with the Jacobian in a Newton step.

    Returns
    -------
    FixedPoint
        The state of least residual, and whether it is a fixed point.

    Raises
    ------
    InputError
        If the start is not finite or ``f`` changes shape or dtype.

    References
    ----------
    Anderson mixing: Walker and Ni 2011. Newton-Krylov: Knoll and Keyes 2004. That fixed points of a
    recurrent network, unstable ones too, explain its motion: Sussillo and Barak, Neural Computation
    25 (2013).

    Examples
    --------
    >>> import torch
    >>> found = fixed_point(torch.cos, torch.tensor([1.0], dtype=torch.float64))
    >>> round(float(found.state), 6), found.verified
    (0.739085, True)
    """
    map_ = StateMap.of(f, s0)
    solution = solve(
        map_,
        map_.flat(s0),
        method=method,
        max_iterations=max_iterations,
        damping=damping,
        krylov=krylov,
    )
    best, verdict = solution.best, solution.verdict
    return FixedPoint(
        state=map_.shaped(best.state)[0],
        residual=float(best.residual[0]),
        tolerance=float(verdict.tolerance[0]),
        correction=float(verdict.correction[0]),
        verified=bool(verdict.verified[0]),
        method=solution.method[0],
        iterations=int(best.iterations[0]),
        evaluations=map_.evaluations + map_.derivatives,
        attention=map_.attention,
    )


def solve(
    map_: StateMap,
    start: Rows,
    *,
    method: Method = "auto",
    max_iterations: int = 500,
    damping: float = 1.0,
    krylov: int = 60,
) -> Solution:
    """Solve s = f(s) for every row; the arguments are those of `fixed_point`."""
    if method not in get_args(Method):
        raise InputError(
            f"method must be one of {', '.join(map(repr, get_args(Method)))}; got {method!r}"
        )
    limit = whole_number(max_iterations, "max_iterations", least=1)
    krylov = whole_number(krylov, "krylov", least=1)
    if not 0 < real_number(damping, "damping") <= 1:
        raise InputError(f"damping must lie above 0 and be at most 1; got {damping}")
    first = Best.at(map_, start)
    names = [""] * len(start)
    best = Best(first.state, first.residual, first.iterations)
    if method == "auto":
        plan = [("iteration", _FIRST), ("anderson", _FIRST), ("newton", limit), ("newton", limit)]
    else:
        plan = [(method, limit)]
    for number, (name, most) in enumerate(plan):
        rows = (~best.solved()).nonzero()[:, 0] if method == "auto" else torch.arange(len(start))
        if not len(rows):
            break
        # The second Newton begins where the caller did, not where iteration went.
        begin_at = start[rows] if number in (0, 3) else best.state[rows]
        part = map_.rows(rows)
        if name == "newton":
            found = newton(part, begin_at, most, krylov)
        else:
            search = iterate if name == "iteration" else anderson
            found = search(part, begin_at, most, damping)
        best.iterations[rows] += found.iterations
        better = found.residual < best.residual[rows]
        best.state[rows] = torch.where(better[:, None], found.state, best.state[rows])
        best.residual[rows] = torch.where(better, found.residual, best.residual[rows])
        for row, is_better in zip(rows.tolist(), better.tolist(), strict=True):
            names[row] = name if is_better or not names[row] else names[row]
    method_of = tuple(name or "iteration" for name in names)
    return Solution(best=best, verdict=verify(map_, best, krylov), method=method_of)
