"""Along branches of fixed points, both ways from a start, many branches side by side."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from looplens.dynamics.branches.correcting import correct, tangents
from looplens.dynamics.branches.families import Blocks, WithGain
from looplens.dynamics.maps.derivatives import Linearised
from looplens.dynamics.maps.labelled import Progress
from looplens.dynamics.maps.state_map import Rows
from looplens.dynamics.solving.krylov import begin, extend, ritz

SAME_WAY = 0.9  # least cosine between successive tangents
_BEND = 0.3  # angle between them that a step is made for, in radians
_AIM = 1e-3  # of a tangent that only tells where to go on
_SHORTEST = 2.0**-16  # of the longest step
_GROWTH = 1.6
_EIGEN_TOLERANCE = 1e-4  # of the largest modulus, or of _SMALL where that is smaller
_SMALL = 0.3  # moduli below this are far from any bifurcation
_WHOLE = 128  # size of the largest map of which the whole Jacobian is cheaper than products
_CHUNK = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How branches are followed.

    Attributes
    ----------
    low, high : float
        Gains between which they are followed.
    k : int
        Leading eigenvalues at every point.
    max_step : float
        Longest step along a branch, in units of the gain and of the size of the first state.
    max_points : int
        Most points in either direction.
    max_folds : int or None
        Most folds that are gone round in either direction.
    krylov : int
        Most products with the Jacobian in a solve.
    """

    low: float
    high: float
    k: int
    max_step: float
    max_points: int
    max_folds: int | None
    krylov: int


@dataclass(slots=True)
class Traced:
    """One branch, in order along it.

    Attributes
    ----------
    z, tangent : list of Float[Tensor, "n_and_one"]
        Points, and the directions in which the branch goes on.
    eigenvalues : list of Complex[ndarray, "block k"]
        Leading ones of every block.
    residual : list of float
        |f(x, g) - x| over the size of the first state.
    start : int
        Which point it was followed from.
    ended : tuple of str
        Why it ends, on the side of the first point and of the last.
    """

    z: list[Tensor] = field(default_factory=list)
    tangent: list[Tensor] = field(default_factory=list)
    eigenvalues: list[np.ndarray] = field(default_factory=list)
    residual: list[float] = field(default_factory=list)
    start: int = 0
    ended: tuple[str, str] = ("", "")

    def add(self, z: Tensor, tangent: Tensor, eigenvalues: np.ndarray, residual: float) -> None:
        """Go one point further."""
        self.z.append(z)
        self.tangent.append(tangent)
        self.eigenvalues.append(eigenvalues)
        self.residual.append(residual)

    def halves(self) -> tuple[Traced, Traced]:
        """Return the branch from its start to its first point, and to its last."""
        n = self.start
        down = Traced(
            z=self.z[n::-1],
            tangent=[-way for way in self.tangent[n::-1]],
            eigenvalues=self.eigenvalues[n::-1],
            residual=self.residual[n::-1],
        )
        return down, Traced(self.z[n:], self.tangent[n:], self.eigenvalues[n:], self.residual[n:])

    def folds(self) -> int:
        """Return how often the gain turns back."""
        turns = [float(way[-1]) for way in self.tangent]
        return sum(a * b < 0 for a, b in pairwise(turns))

    def part(self, first: int, stop: int, ended: tuple[str, str]) -> Traced:
        """Return the branch between two points, which ends for other reasons."""
        return Traced(
            z=self.z[first:stop],
            tangent=self.tangent[first:stop],
            eigenvalues=self.eigenvalues[first:stop],
            residual=self.residual[first:stop],
            start=self.start - first,
            ended=ended,
        )


@torch.no_grad()
def trace_branches(
    map_: WithGain, starts: Rows, settings: Settings, progress: Progress = None
) -> list[Traced | None]:
    """Follow the branch through every start, which is a fixed point; None where it is not."""
    upward = torch.zeros_like(starts)
    upward[:, -1] = 1
    first = correct(map_, starts, upward, settings.krylov)
    good = first.verified.nonzero()[:, 0]
    branches: list[Traced | None] = [None] * len(starts)
    if not len(good):
        return branches
    part, z = map_.rows(good), first.z[good]
    way = tangents(part, z, upward[good], settings.krylov)
    found = zip(z, way, eigenvalues_of(part, z, settings), first.residual[good], strict=True)
    begun = [Traced([x], [t], [values], [float(r)]) for x, t, values, r in found]
    for row, branch in zip(good.tolist(), go_on(part, begun, settings, progress), strict=True):
        branches[row] = branch
    return branches


@torch.no_grad()
def go_on(
    map_: WithGain, begun: list[Traced], settings: Settings, progress: Progress = None
) -> list[Traced]:
    """Follow branches, one a row, on at the ends where nothing is said of why they end."""
    # Both ways of all branches are rows of one map.
    both = torch.arange(len(begun), device=map_.device).repeat_interleave(2)
    halves = [half for branch in begun for half in branch.halves()]
    ended = [why for branch in begun for why in branch.ended]
    _go(map_.rows(both), halves, ended, settings, progress)
    pairs = zip(halves[::2], halves[1::2], ended[::2], ended[1::2], strict=True)
    return [_joined(down, up, [below, above]) for down, up, below, above in pairs]


def _go(
    map_: WithGain,
    halves: list[Traced],
    ended: list[str],
    settings: Settings,
    progress: Progress,
) -> None:
    """Go on with every half branch until it ends, and say why it did."""
    z, tangent = (
        torch.stack([getattr(half, name)[-1] for half in halves]) for name in ("z", "tangent")
    )
    first, way = (
        torch.stack([getattr(half, name)[0] for half in halves]) for name in ("z", "tangent")
    )
    folds = torch.tensor([half.folds() for half in halves], device=z.device)
    low, high = settings.low, settings.high
    length = torch.full((len(z),), settings.max_step / 4, dtype=z.dtype, device=z.device)
    for row in range(len(z)):  # a start at the edge
        outward = tangent[row, -1] * (1 if float(z[row, -1]) >= high else -1)
        if not low < float(z[row, -1]) < high and float(outward) > 0:
            ended[row] = "end of the range"
    limit = (settings.max_points - 1) * len(z)
    edge = max(1e-6 * (high - low), 8 * torch.finfo(z.dtype).eps * max(abs(low), abs(high)))
    while True:
        rows = torch.tensor([row for row, why in enumerate(ended) if not why], device=z.device)
        if not len(rows):
            break
        part, ahead = map_.rows(rows), length[rows, None] * tangent[rows]
        guess, across = _within(z[rows], ahead, tangent[rows], low, high)
        found = correct(part, guess, across, settings.krylov)
        good = found.verified
        good &= (found.z - guess).norm(dim=-1) <= 0.5 * (guess - z[rows]).norm(dim=-1)
        new = tangents(part, found.z, tangent[rows], settings.krylov, aim=_AIM)
        cosine = (new * tangent[rows]).sum(-1)
        good &= cosine >= SAME_WAY  # not where it is NaN
        taken = rows[good]
        if len(taken):
            values = eigenvalues_of(map_.rows(taken), found.z[good], settings)
            for row, here, way_on, eigen, r in zip(
                taken.tolist(), found.z[good], new[good], values, found.residual[good], strict=True
            ):
                halves[row].add(here, way_on, eigen, float(r))
            folds[taken] += tangent[taken, -1] * new[good][:, -1] < 0
            z[taken], tangent[taken] = found.z[good], new[good]
        # The angle grows with the step, so it tells how long the next one may be.
        ahead_by = (_BEND / cosine.clamp(-1, 1).arccos().clamp(min=1e-3)).clamp(0.5, _GROWTH)
        ahead_by = torch.where(found.steps <= 3, ahead_by, ahead_by.clamp(max=1))
        factor = torch.where(good, ahead_by, 0.5).to(length)
        length[rows] = (length[rows] * factor).clamp(max=settings.max_step)
        for row in rows.tolist():
            gain, half = float(z[row, -1]), halves[row]
            turned = float((tangent[row] * way[row]).sum()) > 0.9
            back = float((z[row] - first[row]).norm()) < 0.75 * float(length[row])
            if length[row] < _SHORTEST * settings.max_step:
                ended[row] = f"no further point was found beyond gain {gain:.4g}"
            elif not low + edge < gain < high - edge and len(half.z) > 1:
                ended[row] = "end of the range"
            elif len(half.z) > 8 and turned and back:
                ended[row] = "closed: back at the start"
            elif settings.max_folds is not None and folds[row] > settings.max_folds:
                ended[row] = f"max_folds={settings.max_folds}"
            elif len(half.z) >= settings.max_points:
                ended[row] = f"max_points={settings.max_points}"
        if progress is not None:
            progress(min(sum(len(half.z) - 1 for half in halves), limit), limit)


def _within(z: Rows, ahead: Rows, tangent: Rows, low: float, high: float) -> tuple[Rows, Rows]:
    """Return guesses and planes; where a guess leaves the range, the plane of its last gain."""
    guess, across = z + ahead, tangent.clone()
    for edge, out in ((low, guess[:, -1] < low), (high, guess[:, -1] > high)):
        share = ((edge - z[:, -1]) / ahead[:, -1]).clamp(0, 1)[:, None]
        at_edge = z + share * ahead
        at_edge[:, -1] = edge
        upright = torch.zeros_like(across)
        upright[:, -1] = 1
        guess = torch.where(out[:, None], at_edge, guess)
        across = torch.where(out[:, None], upright, across)
    return guess, across


def _joined(down: Traced, up: Traced, ended: list[str]) -> Traced:
    """Put two halves in one order; a closed branch is whole in one of them."""
    if ended[1].startswith("closed"):
        return Traced(up.z, up.tangent, up.eigenvalues, up.residual, 0, (ended[1], ended[1]))
    return Traced(
        z=[*down.z[:0:-1], *up.z],
        tangent=[*(-way for way in down.tangent[:0:-1]), *up.tangent],
        eigenvalues=[*down.eigenvalues[:0:-1], *up.eigenvalues],
        residual=[*down.residual[:0:-1], *up.residual],
        start=len(down.z) - 1,
        ended=(ended[0], ended[1]),
    )


def eigenvalues_of(
    map_: WithGain, z: Rows, settings: Settings, which: Tensor | None = None
) -> Complex[np.ndarray, "row block k"]:
    """Return the leading eigenvalues of every block of every row, or of one block of each.

    Largest modulus first; NaN where there are none, or Arnoldi's process did not converge.
    """
    states, gains = map_.part(z)
    family = map_.family
    maps = family.blocks(states, gains) if which is None else family.block(states, gains, which)
    count = len(family.labels) if which is None else 1
    return np.concatenate([_leading(some, settings) for some in maps]).reshape(len(z), count, -1)


def _leading(blocks: Blocks, settings: Settings) -> Complex[np.ndarray, "row k"]:
    """Return the k leading eigenvalues of every row, of a large map by Arnoldi's process."""
    linear = blocks.map_.linearised(blocks.x)
    if blocks.map_.size <= _WHOLE:
        values = torch.linalg.eigvals(linear.jacobian().double().cpu())
        order = values.abs().argsort(dim=-1, descending=True, stable=True)
        kept = values.gather(1, order)[:, : settings.k].numpy()
    else:
        kept = _by_arnoldi(linear, blocks.x, settings)
    found = np.full((len(blocks.x), settings.k), np.nan, dtype=np.complex128)
    found[:, : kept.shape[1]] = kept
    return found * blocks.factor.double().cpu().numpy()[:, None]


def _by_arnoldi(linear: Linearised, x: Rows, settings: Settings) -> np.ndarray:
    k, most = settings.k, min(max(settings.krylov, 2 * settings.k), x.shape[1])
    generator = torch.Generator().manual_seed(0)
    draw = torch.randn(x.shape[1], generator=generator, dtype=torch.float64).to(x)
    space = begin(draw.expand_as(x).contiguous())
    while True:
        extend(space, linear.jvp, min(_CHUNK, most - space.steps))
        values, _, residuals = ritz(space)
        converged = residuals <= _EIGEN_TOLERANCE * values[:, :1].abs().clamp(min=_SMALL)
        if space.steps >= most or (space.steps > k and bool(converged[:, :k].all())):
            return np.where(converged[:, :k].numpy(), values[:, :k].numpy(), np.nan)


def states_of(map_: WithGain, branch: Traced, row: int) -> Float[np.ndarray, "point ..."]:
    """Return the states of a branch, which is row `row` of the map."""
    one = map_.rows(torch.full((len(branch.z),), row, device=map_.device))
    return one.part(torch.stack(branch.z))[0].cpu().numpy()


def gains_of(branch: Traced) -> Float[np.ndarray, " point"]:
    """Return the gains of a branch."""
    return np.array([float(z[-1]) for z in branch.z])
