"""The branch of fixed points of any map with a parameter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from looplens.analysis.algebra.inputs import real_number
from looplens.dynamics.branches.correcting import tangents
from looplens.dynamics.branches.crossings import Crossing, crossings
from looplens.dynamics.branches.families import AtGain, Family, Plain, WithGain
from looplens.dynamics.branches.tracing import (
    Settings,
    Traced,
    gains_of,
    states_of,
    trace_branches,
)
from looplens.dynamics.maps.labelled import Progress
from looplens.dynamics.solving.fixed_point import solve
from looplens.errors import AnalysisError, InputError
from looplens.models.inputs import whole_number

_STEPS_ACROSS = 25  # longest steps that the range of gains takes


@dataclass(frozen=True, kw_only=True, slots=True)
class Bifurcation:
    """Where a branch turns, or an eigenvalue passes the unit circle.

    Attributes
    ----------
    kind : str
        ``fold``, ``branch_point``, ``flip`` or ``neimark_sacker``; see
        `looplens.dynamics.branches.crossings.KINDS`.
    gain : float
        At which gain.
    eigenvalue : complex
        The one on the unit circle, as computed there.
    period : float
        Iterations of a turn of it, 2 pi / |arg|: 2 for a flip, NaN where it is 1.
    state : ndarray
        The fixed point there.
    point : float
        Where along the branch, counted in its points.
    """

    kind: str
    gain: float
    eigenvalue: complex
    period: float
    state: Float[np.ndarray, ...]
    point: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Branch:
    """Fixed points along a parameter, in order along the curve, which may turn back.

    Attributes
    ----------
    gain : Float[ndarray, "point"]
        The parameter.
    state : Float[ndarray, "point ..."]
        The fixed points, every one verified.
    eigenvalues : Complex[ndarray, "point k"]
        Leading ones, largest modulus first; NaN where the state has fewer, or they did not
        converge.
    residual : Float[ndarray, "point"]
        |f(s) - s| over the norm of the first state.
    start : int
        The point at the gain that it was followed from.
    bifurcations : tuple of Bifurcation
        In order along the branch.
    ended : tuple of str
        Why it ends at its first and at its last point.
    """

    gain: Float[np.ndarray, " point"]
    state: Float[np.ndarray, "point ..."]
    eigenvalues: Complex[np.ndarray, "point k"]
    residual: Float[np.ndarray, " point"]
    start: int
    bifurcations: tuple[Bifurcation, ...]
    ended: tuple[str, str]

    @property
    def spectral_radius(self) -> Float[np.ndarray, " point"]:
        """Modulus of the leading eigenvalue."""
        return np.abs(self.eigenvalues[:, 0])

    @property
    def stable(self) -> np.ndarray:
        """Whether every eigenvalue lies inside the unit circle."""
        return self.spectral_radius < 1

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return the fixed points."""
        return np.asarray(self.state, dtype=dtype)


def follow(
    f: Callable[[Tensor, Tensor], Tensor],
    s0: Tensor,
    gain0: float = 1.0,
    *,
    gains: tuple[float, float] = (0.0, 3.0),
    k: int = 6,
    max_step: float | None = None,
    max_points: int = 200,
    max_folds: int | None = None,
    krylov: int = 60,
    progress: Progress = None,
) -> Branch:
    r"""Follow the fixed point of a map as its parameter changes, and find where it bifurcates.

    Solves :math:`f(s, g) = s` together with the length along the branch (pseudo-arclength), so
    that it goes round folds and along unstable parts. Eigenvalues of :math:`\partial f / \partial
    s` at every point tell the stability; where one passes the unit circle, or the branch turns
    back, the place is located.

    Parameters
    ----------
    f : callable
        ``f(state, gain)``, differentiable in both; the gain is a tensor without axes.
    s0 : Tensor
        Near the fixed point at ``gain0``; it is solved first.
    gain0 : float
        Parameter at which to begin.
    gains : (float, float)
        Between which parameters to follow, in both directions.
    k : int
        Leading eigenvalues at every point. A crossing of one that is not among them is not seen.
    max_step : float, optional
        Longest step, the parameter and the state in units of its norm at the start together; a
        twenty-fifth of the range by default. Steps get shorter by themselves where the branch
        bends; what leaves the circle and comes back within a step is not seen.
    max_points : int
        Most points in each direction.
    max_folds : int, optional
        Most folds to go round in each direction; as many as there are by default.
    krylov : int
        Most products with the Jacobian in a solve.
    progress : callable, optional
        Called with the number of points and the most there can be.

    Returns
    -------
    Branch
        Points, eigenvalues, bifurcations.

    Raises
    ------
    InputError
        If the start is not finite, the parameter lies outside the range, or ``f`` changes shape or
        dtype.
    AnalysisError
        If no fixed point is found at ``gain0``.

    References
    ----------
    Keller 1977 (pseudo-arclength); Kuznetsov, Elements of Applied Bifurcation Theory (2004),
    chapters 4 and 10. Continuation of fixed points of looped transformers in a scalar: Kim 2026,
    arXiv:2608.26556.

    Examples
    --------
    >>> import torch
    >>> logistic = lambda x, r: r * x * (1 - x)
    >>> branch = follow(logistic, torch.tensor([0.6], dtype=torch.float64), 2.5, gains=(2, 3.5))
    >>> [(b.kind, round(b.gain, 4)) for b in branch.bifurcations]
    [('flip', 3.0)]
    """
    gain0 = real_number(gain0, "gain0")
    settings = settings_of(gains, gain0, k, max_step, max_points, max_folds, krylov)
    family = Plain(f, s0, gain0)
    gain = torch.full((1,), gain0).to(s0)
    at_start = AtGain(family, gain)
    solution = solve(at_start, at_start.flat(s0), krylov=krylov)
    if bool(solution.verdict.degenerate[0]):
        raise AnalysisError(
            f"the fixed point at gain0={gain0:g} is degenerate, with an eigenvalue at 1: the map "
            "has a line of them there, or a fold or branch point. Start at another gain."
        )
    if not bool(solution.verdict.verified[0]):
        raise AnalysisError(
            f"no fixed point was found at gain0={gain0:g}: the best residual is "
            f"{float(solution.best.residual[0]):.1e}. Start nearer to one, or at another gain."
        )
    map_, branches, found = branches_of(family, solution.best.state, gain, settings, progress)
    branch = branches[0]
    if branch is None:
        raise AnalysisError(
            f"the fixed point at gain0={gain0:g} does not continue: it is degenerate there, as at "
            "a branch point. Start at another gain."
        )
    return Branch(
        gain=gains_of(branch),
        state=states_of(map_, branch, 0),
        eigenvalues=np.stack(branch.eigenvalues)[:, 0],
        residual=np.array(branch.residual),
        start=branch.start,
        bifurcations=tuple(bifurcation(crossing) for crossing in found),
        ended=branch.ended,
    )


def branches_of(
    family: Family,
    states: Float[Tensor, "row ..."],
    gains: Float[Tensor, " row"],
    settings: Settings,
    progress: Progress = None,
) -> tuple[WithGain, list[Traced | None], list[Crossing]]:
    """Follow a branch from each fixed point of a family, and find the bifurcations of all."""
    map_ = WithGain(family, _scales(family, states, gains, settings))
    branches = trace_branches(map_, map_.join(states, gains), settings, progress)
    return map_, branches, crossings(map_, branches, settings)


def _scales(family: Family, states: Tensor, gains: Tensor, settings: Settings) -> Tensor:
    """Return what states are measured by: their norm, or how far the range of gains takes them."""
    size = states.reshape(len(gains), -1).norm(dim=-1)
    plain = WithGain(family, torch.ones_like(size))
    upward = torch.zeros(len(size), plain.size, dtype=size.dtype, device=size.device)
    upward[:, -1] = 1
    way = tangents(plain, plain.join(states, gains), upward, settings.krylov)
    rate = way[:, :-1].norm(dim=-1) / way[:, -1].abs()
    far = torch.where(rate.isfinite(), rate * (settings.high - settings.low) / 4, 0.0)
    scale = torch.maximum(size, far)
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def settings_of(
    gains: tuple[float, float],
    gain0: float,
    k: int,
    max_step: float | None,
    max_points: int,
    max_folds: int | None,
    krylov: int,
) -> Settings:
    """Check how branches are to be followed."""
    try:
        low, high = (real_number(gain, "gains") for gain in gains)
    except (TypeError, ValueError):
        raise InputError(f"gains must be a pair (low, high); got {gains!r}") from None
    if not low <= gain0 <= high or low == high:
        raise InputError(
            f"gains=({low:g}, {high:g}) must be a range, low first, that the gain at the start, "
            f"{gain0:g}, lies in"
        )
    usual = (high - low) / _STEPS_ACROSS
    longest = usual if max_step is None else real_number(max_step, "max_step")
    if longest <= 0:
        raise InputError(f"max_step must be above 0; got {max_step!r}")
    return Settings(
        low=low,
        high=high,
        k=whole_number(k, "k", least=1),
        max_step=longest,
        max_points=whole_number(max_points, "max_points", least=2),
        max_folds=None if max_folds is None else whole_number(max_folds, "max_folds", least=0),
        krylov=whole_number(krylov, "krylov", least=2),
    )


def bifurcation(crossing: Crossing) -> Bifurcation:
    """Return a crossing as it is told."""
    return Bifurcation(
        kind=crossing.kind,
        gain=crossing.gain,
        eigenvalue=crossing.eigenvalue,
        period=period_of(crossing.kind, crossing.eigenvalue),
        state=crossing.state,
        point=crossing.point,
    )


def period_of(kind: str, eigenvalue: complex) -> float:
    """Return the iterations of a turn that is born, NaN for folds and branch points."""
    if kind == "flip":
        return 2.0
    if kind != "neimark_sacker":
        return float("nan")
    return float(2 * np.pi / abs(np.angle(eigenvalue)))
