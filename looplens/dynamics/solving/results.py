"""Fixed points of tokens as a labelled result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from looplens.dynamics.maps.labelled import STATE, labelled, variable
from looplens.dynamics.maps.recorded import Recorded
from looplens.dynamics.maps.state_map import StateMap
from looplens.dynamics.solving.searching import Points
from looplens.dynamics.solving.starting import Starts

MOST = 4  # points of a token that are kept
_METHOD = "iteration, Anderson mixing and Newton-Krylov; verified by error and turn of J"


def dataset_of(
    found: Recorded,
    begin: Starts,
    positions: Sequence[int],
    points: Sequence[Points | None],
    map_: StateMap,
    **attrs: Any,
) -> xr.Dataset:
    """Label what was found of some tokens.

    Parameters
    ----------
    found : Recorded
        The trajectory.
    begin : Starts
        Where searches began.
    positions : sequence of int
        The tokens.
    points : sequence of Points or None
        Of each; None where an earlier token has no fixed point.
    map_ : StateMap
        What was solved.
    **attrs
        Parameters.
    """
    data: dict[str, xr.Variable] = {}

    def put(name: str, values: Any, text: str, units: str = "1") -> None:
        data[name] = variable(("token", "point", "d_model")[: np.ndim(values)], values, text, units)

    def of_points(get: Callable[[Points], Any], fill: Any = np.nan) -> np.ndarray:
        rows = [list(get(p))[:MOST] if p else [] for p in points]
        values = [row + [fill] * (MOST - len(row)) for row in rows]
        return np.array(values, dtype=object if fill == "" else None)

    here = begin.here[list(positions)]
    size = here.norm(dim=-1)
    states = np.full((len(points), MOST, here.shape[-1]), np.nan)
    distance = np.full((len(points), MOST), np.nan)
    for row, p in enumerate(points):
        for place, state in enumerate(p.states[:MOST] if p else []):
            states[row, place] = state.cpu().numpy()
            distance[row, place] = float((state - here[row]).norm() / size[row])
    status = np.array([_status(p) for p in points], dtype=object)
    put("status", status, "what the first point is, or why there is none")
    put("n_points", [len(p.states) if p else 0 for p in points], "distinct verified fixed points")
    put("fixed_point", states, "verified fixed points, in the order of their distance", STATE)
    put("radius", of_points(lambda p: p.radius), "spectral radius there; below 1 is stable")
    real = of_points(lambda p: p.eigenvalue.real)
    put("eigenvalue_real", real, "leading eigenvalue, real part")
    imaginary = of_points(lambda p: p.eigenvalue.imag)
    put("eigenvalue_imag", imaginary, "leading eigenvalue, imaginary part (one of a pair)")
    put("distance", distance, "distance to the recorded state", "of its norm")
    put("residual", of_points(lambda p: p.residual), "|f(s) - s| at the point", STATE)
    put("tolerance", of_points(lambda p: p.tolerance), "what that had to fall to", STATE)
    put("error", of_points(lambda p: p.error), "how far away the root can be", STATE)
    correction = of_points(lambda p: p.correction)
    put("correction", correction, "last Newton correction", STATE)
    put(
        "iterations", of_points(lambda p: p.iterations, -1), "iterations of the search; -1 for none"
    )
    put("method", of_points(lambda p: p.method, ""), "of the search that came closest")
    put("hits", of_points(lambda p: p.hits, -1), "searches that ended there; -1 for none")
    put("basin", of_points(lambda p: p.basin, -1), "random starts that iteration takes there")
    arrives = [p.arrives[0] if p and p.arrives else -1 for p in points]
    put("arrives", arrives, "point to which iteration takes the recorded state; -1 for none")
    put("state_norm", size.cpu().numpy(), "norm of the recorded state", STATE)
    least = [p.best_residual if p else np.nan for p in points]
    put("least_residual", least, "least |f(s) - s| of all searches", STATE)
    wanted = [p.best_tolerance if p else np.nan for p in points]
    put("wanted_residual", wanted, "what that would have had to fall to", STATE)
    return labelled(
        found,
        positions,
        data,
        method=_METHOD,
        maps=[map_],
        coords={"point": np.arange(MOST)},
        notes=_notes(found.numbers(positions), status, points),
        **attrs,
    )


def _status(points: Points | None) -> str:
    if points is None:
        return "no context"
    if len(points.states):
        return "stable" if points.radius[0] < 1 else "unstable"
    return "degenerate" if points.degenerate else "outside" if points.outside else "none"


_WHY = {
    "degenerate": "the residual falls to rounding where a root near by does not follow (a line of "
    "fixed points, or a slow drift); dtype=torch.float64 may tell",
    "outside": "the residual falls to rounding only far outside of the trajectory",
    "no context": "an earlier token has no fixed point to be held at",
}


def _notes(
    numbers: Sequence[int], status: np.ndarray, points: Sequence[Points | None]
) -> list[str]:
    """Say in words which tokens have no fixed point."""
    notes = []
    for word, why in _WHY.items():
        mine = [str(number) for number, own in zip(numbers, status, strict=True) if own == word]
        if mine:
            notes.append(f"tokens {', '.join(mine)}: {why}")
    for number, word, p in zip(numbers, status, points, strict=True):
        if word == "none" and p:
            size = float(p.best_state.norm().clamp(min=torch.finfo(p.best_state.dtype).tiny))
            notes.append(
                f"token {number}: no fixed point was found; the best residual is "
                f"{p.best_residual / size:.1e} of the norm of its state"
            )
        if p and len(p.states) > MOST:
            notes.append(f"token {number}: {len(p.states)} points, the nearest {MOST} are kept")
    return notes
