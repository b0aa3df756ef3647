"""Which of the states that many searches came to are the same fixed point, and whether it is one.

Only one candidate of every group is verified: its error says how far away the others may lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from looplens.dynamics.maps.state_map import StateMap, length
from looplens.dynamics.solving.methods import Best
from looplens.dynamics.solving.verifying import LARGEST_ERROR, verify

_APART = 8.0  # errors, from which on two points are two: each can be off, and errors are estimates


@dataclass(slots=True)
class Candidates:
    """What all searches came to.

    Attributes
    ----------
    best : Best
        A row each.
    system : list of int
        Row of the map that each belongs to.
    method : list of str
        How it was reached.
    kind : list of str
        ``search``: a search ended there; ``walk``: iteration took a random start there;
        ``first walk``: iteration took the first given start there.
    """

    best: Best
    system: list[int]
    method: list[str]
    kind: list[str]

    @classmethod
    def all(cls, parts: Sequence[Candidates]) -> Candidates:
        """Return those of several."""
        best = Best(
            *(torch.cat([getattr(part.best, name) for part in parts]) for name in Best.__slots__)
        )
        lists = ([x for part in parts for x in getattr(part, n)] for n in cls.__slots__[1:])
        return cls(best, *lists)

    def numbers(self, system: int) -> list[int]:
        """Return the numbers of the candidates of a system."""
        return [number for number, owner in enumerate(self.system) if owner == system]


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Candidates of a system that are one point, the one of least residual first.

    Attributes
    ----------
    system : int
        Row of the map.
    members : list of int
        Numbers of the candidates.
    state : Float[Tensor, "n"]
        Of the first.
    verified, tolerance, correction, error
        The verdict on it.
    """

    system: int
    members: list[int]
    state: Float[Tensor, " n"]
    verified: bool
    tolerance: float
    correction: float
    error: float


def grouped(map_: StateMap, found: Candidates, krylov: int) -> list[Group]:
    """Put candidates at the floor of rounding into groups, and verify each group."""
    best, groups = found.best, []
    solved = best.solved().tolist()
    order = best.residual.argsort(stable=True).tolist()
    waiting: dict[int, list[int]] = {}
    for number in order:
        if solved[number]:
            waiting.setdefault(found.system[number], []).append(number)
    while waiting:
        systems = list(waiting)
        firsts = torch.tensor([waiting[system][0] for system in systems])
        part = map_.rows(torch.tensor(systems, device=best.state.device))
        verdict = verify(part, best.rows(firsts.to(best.state.device)), krylov)
        for row, system in enumerate(systems):
            first, left = waiting[system][0], waiting.pop(system)
            apart = length(best.state[left] - best.state[first])
            # The error of what is no point is without bound, but no more of it is looked at.
            far = torch.minimum(_APART * verdict.error[row], LARGEST_ERROR * best.size()[first])
            same = (apart <= far).tolist()
            same[0] = True
            groups.append(
                Group(
                    system=system,
                    members=[n for n, is_same in zip(left, same, strict=True) if is_same],
                    state=best.state[first],
                    verified=bool(verdict.verified[row]),
                    tolerance=float(verdict.tolerance[row]),
                    correction=float(verdict.correction[row]),
                    error=float(verdict.error[row]),
                )
            )
            rest = [n for n, is_same in zip(left, same, strict=True) if not is_same]
            if rest:
                waiting[system] = rest
    return groups
