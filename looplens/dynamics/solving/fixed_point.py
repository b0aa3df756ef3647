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
_NEWTON = 60  # Newton steps of a search that tries everything


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
        What it had to fall to: 32 machine epsilons of the norm of the state, or of a thousandth of
        that of the start where this is more (a root may be at zero).
    correction : float
        Norm of the Newton correction, an estimate of the distance to the root; NaN where the
        residual is too large.
    error : float
        How far away the root can be, for all that the residual says: the tolerance over the
        smallest singular value of I - J. Infinite where the Krylov space tells too little of
        I - J, NaN where the residual is too large.
    verified : bool
        Whether the residual is at the floor of rounding, the error at most 1e-2 of the norm of the
        state, and J nearly the same over that distance.
    degenerate : bool
        Whether the residual is at the floor and no root near by follows from it: a line of fixed
        points, a fold, or a drift below rounding.
    method : str
        What got there: ``iteration``, ``anderson`` or ``newton``.
    iterations : int
        Iterations of the methods that were tried, all together.
    evaluations : int
        How often ``f`` or a derivative of it was computed.
    attention : str
        Which attention kernel the derivatives took.
    notes : tuple of str
        What else a reader should know, such as a start that was taken in another dtype.
    """

    state: Tensor
    residual: float
    tolerance: float
    correction: float
    error: float
    verified: bool
    degenerate: bool
    method: str
    iterations: int
    evaluations: int
    attention: str
    notes: tuple[str, ...]

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
        if self.degenerate:
            far, more = f"a root can be {self.error:.1e} away", ""
            if not np.isfinite(self.error):
                far = "nothing says how far away a root can be"
                more = ", or I - J needs more products to be solved with (krylov=)"
            return (
                f"no single fixed point: the residual {self.residual:.1e} is at the floor of "
                f"rounding, but {far}. There is a line of them, a fold, or a drift below rounding "
                f"(a start in float64 may tell){more} ({how})"
            )
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
        Most iterations of the method; ``auto`` takes fewer of each.
    damping : float
        :math:`\beta`, above 0 and up to 1.
    krylov : int
        Most products with the Jacobian in a Newton step; the verification may take four times as
        many.

    Returns
    -------
    FixedPoint
        The state of least residual, and whether it is a fixed point.

    Raises
    ------
    InputError
        If the start is not finite or ``f`` changes shape or dtype.

    Notes
    -----
    The smallest singular value is an estimate from above, so the error is one from below. On random
    and strongly non-normal matrices it was within a factor of about three.

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
        map_.flat(s0.detach()),
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
        error=float(verdict.error[0]),
        verified=bool(verdict.verified[0]),
        degenerate=bool(verdict.degenerate[0]),
        method=solution.method[0],
        iterations=int(best.iterations[0]),
        evaluations=map_.evaluations + map_.derivatives,
        attention=map_.attention,
        notes=map_.notes,
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
    best, names = approach(
        map_,
        start,
        method=method,
        max_iterations=max_iterations,
        damping=damping,
        krylov=krylov,
    )
    return Solution(best=best, verdict=verify(map_, best, krylov), method=names)


def approach(
    map_: StateMap,
    start: Rows,
    *,
    method: Method = "auto",
    max_iterations: int = 500,
    damping: float = 1.0,
    krylov: int = 60,
) -> tuple[Best, tuple[str, ...]]:
    """Bring every row as near as it gets, and name the methods; nothing is verified."""
    if method not in get_args(Method):
        raise InputError(
            f"method must be one of {', '.join(map(repr, get_args(Method)))}; got {method!r}"
        )
    limit = whole_number(max_iterations, "max_iterations", least=1)
    krylov = whole_number(krylov, "krylov", least=1)
    if not 0 < real_number(damping, "damping") <= 1:
        raise InputError(f"damping must lie above 0 and be at most 1; got {damping}")
    best = Best.at(map_, start)
    names: list[str] = ["iteration" if method == "auto" else method] * len(start)
    plan: list[tuple[str, int]] = [(method, limit)]
    if method == "auto":
        steps = min(limit, _NEWTON)
        plan = [("iteration", _FIRST), ("anderson", _FIRST), ("newton", steps), ("newton", steps)]
    for number, (name, most) in enumerate(plan):
        rows = (best.solved() if number else best.residual < 0).logical_not().nonzero()[:, 0]
        if not len(rows):
            break
        # The second Newton begins where the caller did, not where iteration went.
        begin_at = start[rows] if number in (0, 3) else best.state[rows]
        part = map_.rows(rows)
        if name == "newton":
            found = newton(part, begin_at, most, krylov)
        else:
            go_on = iterate if name == "iteration" else anderson
            found = go_on(part, begin_at, most, damping)
        best.iterations[rows] += found.iterations
        better = best.put(rows, found.state, found.residual)
        for row in rows[better].tolist():
            names[row] = name
    return best, tuple(names)
