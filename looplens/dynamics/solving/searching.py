"""All fixed points that are found from many starts, and how many starts iteration takes to each.

Works on rows of a map, each a system of its own; what the rows are is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from looplens.dynamics.eigen.spectrum import leading
from looplens.dynamics.maps.state_map import Rows, StateMap
from looplens.dynamics.solving.fixed_point import Method, approach
from looplens.dynamics.solving.merging import Candidates, Group, grouped
from looplens.dynamics.solving.methods import Best

_GIVEN, _NEWTON = 500, 40  # most iterations from a given start; Newton steps from another


@dataclass(frozen=True, kw_only=True, slots=True)
class Points:
    """The verified fixed points of one system, nearest to its centre first.

    Attributes
    ----------
    states : Float[Tensor, "point n"]
        The points.
    residual, tolerance, correction, error : Float[ndarray, "point"]
        As in :class:`FixedPoint`.
    iterations : list of int
        Iterations of the search that came closest.
    method : list of str
        And its method.
    eigenvalue : Complex[ndarray, "point"]
        Leading one of the Jacobian, with an imaginary part that is not negative.
    hits : list of int
        Searches that ended there.
    basin : list of int
        Random starts that iteration takes there.
    arrives : list of int
        Number of the point that iteration takes the first given start to; empty for none.
    best_state : Float[Tensor, "n"]
        The state of least residual of all searches that stay within reach; no fixed point unless
        it is among them.
    best_residual : float
        Its residual.
    best_tolerance : float
        What that would have had to fall to.
    degenerate : bool
        Whether a search ended where the residual says nothing of a root near by.
    outside : int
        States further out than allowed at which the residual is at the floor too: points that
        explain nothing here, or steps that vanish beside a state that has grown.
    """

    states: Float[Tensor, "point n"]
    residual: Float[np.ndarray, " point"]
    tolerance: Float[np.ndarray, " point"]
    correction: Float[np.ndarray, " point"]
    error: Float[np.ndarray, " point"]
    iterations: list[int]
    method: list[str]
    eigenvalue: Complex[np.ndarray, " point"]
    hits: list[int]
    basin: list[int]
    arrives: list[int]
    best_state: Float[Tensor, " n"]
    best_residual: float
    best_tolerance: float
    degenerate: bool
    outside: int

    @property
    def radius(self) -> Float[np.ndarray, " point"]:
        """Modulus of the leading eigenvalue: below 1, iteration comes back to the point."""
        return np.abs(self.eigenvalue)

    def of_token(self, position: int, n_pos: int) -> Points:
        """Return the points of a whole sequence as one of its tokens sees them."""
        parts = [
            states.unflatten(-1, (n_pos, -1))[..., position, :]
            for states in (self.states, self.best_state)
        ]
        return replace(self, states=parts[0], best_state=parts[1])


def search(
    map_: StateMap,
    given: Float[Tensor, "row start n"],
    drawn: Float[Tensor, "row draw n"] | None = None,
    *,
    centre: Rows | None = None,
    reach: Float[Tensor, " row"] | None = None,
    method: Method = "auto",
    walk: int = 256,
    krylov: int = 60,
) -> list[Points]:
    """Look for fixed points of every row.

    Parameters
    ----------
    map_ : StateMap
        One row a system.
    given : Float[Tensor, "row start n"]
        Starts from which `method` searches.
    drawn : Float[Tensor, "row draw n"], optional
        Random starts: Newton's method searches from each, and each is iterated, as the first given
        one is. Where iteration does not come to rest, Newton's method searches from the mean of the
        motion too.
    centre : Float[Tensor, "row n"], optional
        What points are ordered by; the first given start by default.
    reach : Float[Tensor, "row"], optional
        Largest norm of a point.
    method : str
        See :func:`fixed_point`.
    walk : int
        Iterations that a start may take to arrive.
    krylov : int
        Most products with the Jacobian in a Newton step.
    """
    rows, each = given.shape[:2]
    parts = []

    def look(
        starts: Tensor, system: list[int], method: Method, most: int, kinds: list[str] | None = None
    ) -> Best:
        part = map_.rows(torch.tensor(system, device=given.device))
        best, names = approach(part, starts, method=method, max_iterations=most, krylov=krylov)
        kinds = kinds or ["search"] * len(system)
        parts.append(Candidates(best, system, list(names), kinds))
        return best

    look(given.flatten(0, 1), _owners(rows, each), method, _GIVEN)
    walkers, system, kinds = given[:, 0], list(range(rows)), ["first walk"] * rows
    if drawn is not None and drawn.shape[1]:
        owners = _owners(rows, drawn.shape[1])
        look(drawn.flatten(0, 1), owners, "newton", _NEWTON)
        walkers = torch.cat([walkers, drawn.flatten(0, 1)])
        system, kinds = system + owners, kinds + ["walk"] * len(owners)
    best = look(walkers, system, "iteration", walk, kinds)
    going = (~best.solved() & best.residual.isfinite()).nonzero()[:, 0]
    if len(going):
        owners = [system[number] for number in going.tolist()]
        part = map_.rows(torch.tensor(owners, device=given.device))
        middle = _mean_of_motion(part, best.state[going], walk)
        finite = middle.isfinite().all(-1)
        owners = [o for o, is_finite in zip(owners, finite.tolist(), strict=True) if is_finite]
        if owners:
            look(middle[finite], owners, "newton", _NEWTON)
    found = Candidates.all(parts)
    limit = torch.full((rows,), torch.inf) if reach is None else reach.cpu()
    groups = grouped(map_, found, krylov)
    inside = [float(group.state.norm()) <= float(limit[group.system]) for group in groups]
    kept = [g for g, is_inside in zip(groups, inside, strict=True) if g.verified and is_inside]
    start = given[:, 0] if centre is None else centre
    kept.sort(key=lambda group: float((group.state - start[group.system]).norm()))
    eigenvalues = _leading(map_, kept)
    return [
        _points(
            found,
            row,
            [(g, value) for g, value in zip(kept, eigenvalues, strict=True) if g.system == row],
            degenerate=any(
                g.system == row and is_inside and not g.verified
                for g, is_inside in zip(groups, inside, strict=True)
            ),
            outside=sum(
                g.system == row and not is_inside
                for g, is_inside in zip(groups, inside, strict=True)
            ),
            reach=float(limit[row]),
        )
        for row in range(rows)
    ]


def _owners(rows: int, each: int) -> list[int]:
    return [row for row in range(rows) for _ in range(each)]


def _mean_of_motion(map_: StateMap, x: Rows, steps: int) -> Rows:
    """Return the mean of the states to come: an orbit turns about a point that repels it."""
    total = torch.zeros_like(x)
    for _ in range(steps):
        x = map_(x)
        total += x
    return total / steps


def _leading(map_: StateMap, groups: list[Group]) -> list[complex]:
    """Return the leading eigenvalue at every point, the upper one of a pair."""
    if not groups:
        return []
    states = torch.stack([group.state for group in groups])
    part = map_.rows(torch.tensor([group.system for group in groups], device=states.device))
    first = leading(part, states, 2).eigenvalues[:, 0]
    return (first.real + 1j * np.abs(first.imag)).tolist()


def _points(
    found: Candidates,
    row: int,
    points: list[tuple[Group, complex]],
    *,
    degenerate: bool,
    outside: int,
    reach: float,
) -> Points:
    best, firsts = found.best, [group.members[0] for group, _ in points]
    kinds_of = [[found.kind[number] for number in group.members] for group, _ in points]
    mine = found.numbers(row)
    near = [number for number in mine if float(best.state[number].norm()) <= reach] or mine
    least = min(near, key=lambda number: float(best.residual[number]))
    return Points(
        states=best.state[firsts],
        residual=best.residual[firsts].cpu().numpy(),
        tolerance=np.array([group.tolerance for group, _ in points]),
        correction=np.array([group.correction for group, _ in points]),
        error=np.array([group.error for group, _ in points]),
        iterations=best.iterations[firsts].tolist(),
        method=[found.method[number] for number in firsts],
        eigenvalue=np.array([value for _, value in points], dtype=complex),
        hits=[kinds.count("search") for kinds in kinds_of],
        basin=[kinds.count("walk") for kinds in kinds_of],
        arrives=[number for number, kinds in enumerate(kinds_of) if "first walk" in kinds],
        best_state=best.state[least],
        best_residual=float(best.residual[least]),
        best_tolerance=float(best.floor()[least]),
        degenerate=degenerate,
        outside=outside,
    )
