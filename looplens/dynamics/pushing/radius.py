"""How far a token can be pushed along a direction and still come back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from looplens.dynamics.maps.labelled import Progress, labelled, variable
from looplens.dynamics.maps.loop_maps import Scope, check_scope
from looplens.dynamics.maps.recorded import Recorded, recorded
from looplens.dynamics.pushing.directions import RESTARTS, DirectionsLike, directions_of
from looplens.dynamics.pushing.returning import floor_of
from looplens.dynamics.pushing.searching import Returning, Search
from looplens.errors import InputError
from looplens.models.inputs import whole_number

_SCAN = 2.0**0.5  # sizes that are tried before the bisection, over each other


@torch.no_grad()
def basin_radius(
    model: Any,
    source: Any,
    *,
    prompt: int = 0,
    restart: int = 0,
    tokens: int | Sequence[int] | None = None,
    directions: DirectionsLike = 4,
    scope: Scope = "token",
    iteration: int | None = None,
    least: float = 0.125,
    most: float | None = None,
    accuracy: float = 0.01,
    iterations: int = 64,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    progress: Progress = None,
) -> xr.Dataset:
    r"""Measure how far the state of a token can be pushed and still comes back.

    Along a unit direction v, the radius is the size r at which the loop first fails to bring
    :math:`s + r\,|s|\,v` back to the path of s. Sizes from ``least`` to ``most``, a factor of about
    :math:`\sqrt 2` apart, are tried first; between the last that returns and the first that does
    not the size is bisected. Where not even ``least`` comes back, smaller sizes are tried.

    Parameters
    ----------
    model : LoopedTransformer or LoopedModel
        The model.
    source : Run, str, sequence of int or tensor
        A run of it, or one prompt.
    prompt, restart : int
        Of a run.
    tokens : int or sequence of int, optional
        Positions of the prompt, each pushed alone; by default all.
    directions : int, "restarts" or Float[Tensor, "*token direction d_model"]
        So many random ones, towards the states of the run's other restarts, or these (such as
        eigenvectors), of any length.
    scope : {"token", "sequence"}
        Whether the other tokens are held still where they are, or move with it.
    iteration : int, optional
        Where the token is pushed: after that recorded iteration, by default the last.
    least, most : float
        Smallest and largest size: in norms of the state, by default up to 4; with ``"restarts"`` in
        distances to the other restart, by default up to 1, which is its state.
    accuracy : float
        Of the radius, relative.
    iterations : int
        Passes that a push has to come back.
    seed : int
        Of random directions.
    dtype : torch.dtype, optional
        See :func:`recorded`.
    progress : callable, optional
        Called with the tokens done and all of them.

    Returns
    -------
    Dataset
        Over ``token`` and ``direction`` (its names): ``returns_up_to`` (largest size below the
        first that does not come back; 0 where not even the smallest one did, down to 1e-4 or 100
        times rounding), ``leaves_at`` (that first one; NaN where all sizes come back), ``radius``
        (geometric mean of the two), ``ends`` (outcome at ``leaves_at``), ``reenters`` (whether a
        larger size of the scan comes back again), ``apart`` (distance of the restart that the
        direction points to) and ``share`` (radius over it). Over ``token``:
        ``least_radius`` over the directions, ``context_step`` (largest last step of another token:
        in the scope ``token`` these are held still).

    Raises
    ------
    InputError
        If sizes or directions are impossible.
    AnalysisError
        As :func:`recorded`, and for ``"restarts"`` without another restart.

    Notes
    -----
    "Comes back" is an outcome of :func:`recovery`: back, in another phase of the same path, or
    still nearing it. A basin need not be star-shaped: islands between two sizes of the scan stay
    unseen, and ``reenters`` says where one was seen.
    """
    passes = whole_number(iterations, "iterations", least=8)
    check_scope(scope)
    most = _most(directions) if most is None else most
    if not 0 < least < most < 1e6 or not 1e-6 <= accuracy < 1:
        raise InputError(
            f"expected 0 < least < most and an accuracy below 1, got least={least}, most={most}, "
            f"accuracy={accuracy}"
        )
    found = recorded(model, source, prompt=prompt, restart=restart, dtype=dtype)
    positions = found.positions(tokens)
    at = found.iterations[-1] if iteration is None else iteration
    floor = floor_of(found.states.dtype)
    vectors, names, apart = directions_of(directions, found, at, positions, floor, seed)
    known = vectors.isfinite().all(-1)  # token direction
    token, direction = known.nonzero(as_tuple=True)
    search = Search(Returning(found, at, scope, passes, floor), positions, progress)
    radii = search.run(token, vectors[token, direction], _sizes(least, most), accuracy)
    return _dataset(found, positions, names, apart, known, radii, at, scope, floor).assign_attrs(
        iterations=passes, least=least, most=most, accuracy=accuracy, seed=seed
    )


def _most(directions: DirectionsLike) -> float:
    return 1.0 if isinstance(directions, str) and directions == RESTARTS else 4.0


def _sizes(least: float, most: float) -> list[float]:
    count = math.ceil(math.log(most / least) / math.log(_SCAN) - 1e-9)
    return [least * (most / least) ** (i / count) for i in range(count + 1)]


def _dataset(
    found: Recorded,
    positions: list[int],
    names: list[str],
    apart: Tensor,
    known: Tensor,
    radii: dict[str, np.ndarray],
    iteration: int,
    scope: Scope,
    floor: float,
) -> xr.Dataset:
    def spread(values: np.ndarray, empty: Any = np.nan) -> np.ndarray:
        filled = np.full(known.shape, empty, dtype=values.dtype)
        filled[known.cpu().numpy()] = values
        return filled

    far = apart.double().cpu().numpy()
    unit = np.where(np.isfinite(far), far, 1.0)  # sizes are in these
    low, high = spread(radii["low"]) * unit, spread(radii["high"]) * unit
    radius = np.sqrt(low * high)
    lasting = np.where(np.isfinite(radius), radius, np.inf).min(1)
    dims, number = ("token", "direction"), ("token",)
    norms = "norm of the state"
    data = {
        "radius": variable(dims, radius, "size at which a push stops coming back", norms),
        "returns_up_to": variable(dims, low, "largest size below it that comes back", norms),
        "leaves_at": variable(dims, high, "smallest size that does not", norms),
        "ends": variable(dims, spread(radii["ends"], ""), "where leaves_at ends"),
        "reenters": variable(
            dims, spread(radii["reenters"]), "whether a larger size comes back again"
        ),
        "apart": variable(dims, far, "distance of the other restart", norms),
        "share": variable(dims, radius / far, "radius over the distance of the other restart"),
        "least_radius": variable(
            number,
            np.where(np.isfinite(lasting), lasting, np.nan),
            "least radius over the directions",
            norms,
        ),
        "context_step": variable(
            number,
            found.steps_of_others(found.at(iteration), positions),
            "largest step of a token held still",
        ),
    }
    return labelled(
        found,
        positions,
        data,
        coords={"direction": np.array(names, dtype=object)},
        method="scan over sizes, then bisection",
        scope=scope,
        iteration=iteration,
        floor=floor,
    )
