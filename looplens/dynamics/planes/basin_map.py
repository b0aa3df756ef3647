"""Where the loop ends, from every initial state on a slice of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from looplens.analysis.algebra.inputs import real_number
from looplens.dynamics.maps.labelled import Progress, labelled
from looplens.dynamics.maps.loop_maps import check_scope
from looplens.dynamics.maps.recorded import recorded
from looplens.dynamics.planes import ends, sources
from looplens.dynamics.planes.labels import filled, stacked
from looplens.dynamics.planes.plane import Floats, Plane, Window, spanned, through_limits
from looplens.dynamics.planes.running import MapAt, driven, moving, run_rows
from looplens.dynamics.planes.slices import Slice, slice_of
from looplens.errors import InputError
from looplens.models.inputs import whole_number

_CHUNK_NUMBERS, _CHUNK_ROWS = 2**24, 2**10  # most numbers and trajectories that are kept at once
_PLANES = ("limits", "starts")
_SHORTEST = 16  # states that a regime needs
CODES = {
    "slider": ends.SLIDER,
    "unresolved": ends.UNRESOLVED,
    "not finite": ends.NOT_FINITE,
    "further ends": ends.FURTHER,
}


def basin_map(
    model: Any,
    source: Any,
    *,
    prompt: int = 0,
    restart: int = 0,
    tokens: int | Sequence[int] | None = None,
    scope: str = "token",
    iteration: int | None = None,
    context: Any = None,
    plane: Any = "limits",
    half: float | None = None,
    size: int = 31,
    iterations: int = 256,
    tolerance: float = 1e-3,
    dtype: torch.dtype | None = None,
    progress: Progress = None,
) -> xr.Dataset:
    """Run the loop from the initial states on a slice, and number where each ends.

    Parameters
    ----------
    model, source, prompt, restart, tokens, dtype
        As in :func:`looplens.dynamics.landscape`.
    scope : {"token", "sequence"}
        ``token``: the others are held still for the whole run, as in a landscape. ``sequence``:
        they start at the initial state of the restart and move along, as in the model.
    iteration, context : optional
        Where the others are held, for the scope ``token``.
    plane : {"limits", "starts"} or Float[ndarray, "2 d_model"]
        The slice: the plane that a landscape has; the one through the initial states of up to three
        restarts; or two directions from the limit.
    half : float, optional
        Half the width of the slice: by default the norm of the limit, or what holds the initial
        states.
    size : int
        Cells along a side, 3 to 257. The cost is at most size² x iterations steps a token; runs
        that have come to rest are not gone on with.
    iterations : int
        Iterations of every run, at least 16: fewer cannot be told a regime from. An orbit has to be
        gone through about three times.
    tolerance : float
        Distance that counts as the same place, over the norm.
    progress : callable, optional
        Is told (tokens done, tokens).

    Returns
    -------
    Dataset
        Over ``token``: ``end`` (v, u), the number of the end, most frequent first, or a negative
        code (attribute ``codes``); ``arrival``, iterations until it is reached for good; ``phase``,
        by how many states of a cycle a run is ahead of the first one there;
        ``end_kind`` (``fixed point`` only where verified), ``end_share``, ``end_period``,
        ``end_radius`` (spectral radius), ``end_state`` (of an orbit its mean), ``end_uv``,
        ``end_distance`` from the plane; ``start_uv``, ``start_distance`` and ``start_end`` of the
        restarts' own initial states, NaN where these were not kept; ``steps``, how many were made.

    Raises
    ------
    InputError
        If an argument is out of range, or the model is not the recorded one.
    AnalysisError
        If the run does not hold what is needed.

    Notes
    -----
    Regimes are those of :func:`looplens.analysis.classify`; a slow one is ``unresolved``: take more
    iterations. A slice shows two of d_model dimensions: a basin that it misses may still be there.

    References
    ----------
    That restarts can end in spurious fixed points of narrow basins: EqR, as summarised in notes,
    paper text not read. Numbering and merging of ends are ours.

    Examples
    --------
    >>> import looplens as ll
    >>> model = ll.load_model("affine-huginn-mini")
    >>> found = ll.dynamics.basin_map(model, "3+4*2", tokens=-1, size=5, iterations=32)
    >>> int((found["end"] == 0).sum()), str(found["end_kind"].values[0, 0])
    (25, 'fixed point')
    """
    check_scope(scope)
    sources.check_size(size)
    sources.check_half(half)
    iterations = whole_number(iterations, "iterations", least=_SHORTEST)
    if isinstance(plane, str) and plane not in _PLANES:
        raise InputError(f"plane must be 'limits', 'starts' or two directions; got {plane!r}")
    if scope == "sequence" and (iteration is not None or context is not None):
        raise InputError(
            "iteration= and context= say where the others are held, and with scope='sequence' they "
            "move: leave them out"
        )
    if not 0 < real_number(tolerance, "tolerance") < 1:
        raise InputError(f"tolerance must lie between 0 and 1, got {tolerance!r}")
    rec = recorded(model, source, prompt=prompt, restart=restart, dtype=dtype)
    positions = rec.positions(tokens)
    held = sources.context_of(rec, iteration, context)
    seen_of_all = sources.seen_of(rec, positions, restart)
    first, contexts = (0, []) if scope == "token" else moving(rec, iterations)
    parts, maps = [], []
    for number, (position, seen) in enumerate(zip(positions, seen_of_all, strict=True)):
        starts = sources.starts_of(rec, seen, first)
        chosen, window = _slice(seen, starts, plane, half, size)
        if scope == "token" or not rec.causal:
            start = held if scope == "token" else contexts[0]
            given = slice_of(rec.step, start, position, scope)
            map_at = None
        else:
            # What comes before does not see the token: it moves as it was recorded.
            given = slice_of(rec.step, contexts[-1], position, "token")
            map_at = driven(rec, contexts, position)
        parts.append(_of_token(given, map_at, starts, chosen, window, iterations, tolerance))
        maps.append(given.whole)
        if progress is not None:
            progress(number + 1, len(positions))
    return labelled(
        rec,
        positions,
        _variables(parts),
        method="runs from the initial states on a grid of a plane",
        maps=maps,
        coords={"axis": ["u", "v"], "restart": np.arange(len(seen_of_all[0].paths))},
        scope=scope,
        plane=plane if isinstance(plane, str) else "given",
        size=int(size),
        half=half,
        iterations=iterations,
        tolerance=float(tolerance),
        first_iteration=first,
        codes=CODES,
        most_steps=int(size) ** 2 * iterations,
    )


def _slice(
    seen: sources.Seen, starts: Floats, plane: Any, half: float | None, size: int
) -> tuple[Plane, Window]:
    """Return the plane of initial states and its window."""
    middle = np.zeros(2)
    if isinstance(plane, str) and plane == "starts":
        starts = starts[:3][np.isfinite(starts[:3]).all(1)]
        if not len(starts):
            raise InputError(
                "plane='starts' goes through initial states, and iteration 0 was not kept: record "
                "it, or take another plane"
            )
        # One or two initial states span no plane: the limit is another point, then chance.
        chosen, _ = through_limits(starts[0], starts[None], seen.limit[None, None])
        uv = chosen.coordinates(starts)
        middle = (uv.min(0) + uv.max(0)) / 2
        width = 0.75 * float((uv.max(0) - uv.min(0)).max())
        width = width or float(np.linalg.norm(starts[0]))
    elif isinstance(plane, str):
        chosen, _ = through_limits(seen.limit, seen.tails, seen.after_start)
        width = float(np.linalg.norm(seen.limit))
    else:
        chosen = spanned(seen.limit, plane)
        width = float(np.linalg.norm(seen.limit))
    return chosen, Window.about(middle, half or width or 1.0, size)


def _of_token(
    given: Slice,
    map_at: MapAt | None,
    starts: Floats,
    plane: Plane,
    window: Window,
    iterations: int,
    tolerance: float,
) -> dict[str, Any]:
    """Run a token from the grid and from the restarts' own starts, and number the ends."""
    cells = np.concatenate([plane.states(window.points), starts])
    found = ends.Ends(given=given, tolerance=tolerance)
    steps, per_row = 0, (iterations + 1) * given.whole.size
    at_once = max(1, min(given.at_once, _CHUNK_NUMBERS // per_row, _CHUNK_ROWS))
    end, arrival, phase = [], [], []
    for begin in range(0, len(cells), at_once):
        x = given.rows(torch.as_tensor(cells[begin : begin + at_once]))
        paths, made = run_rows(given, x, iterations, map_at)
        told = found.of(paths)
        end.append(told.end)
        arrival.append(told.arrival)
        phase.append(told.phase)
        steps += made
    numbers = _by_share(np.concatenate(end), len(window.points), found)
    grid = len(window.points)
    shape = (len(window.v), len(window.u))
    means = [place.states.mean(0) for place in found.found]
    rows = torch.as_tensor(np.stack(means)) if means else torch.zeros(0, given.whole.size)
    states = given.states(rows).numpy()
    shares = [float((numbers[:grid] == number).mean()) for number in range(len(found.found))]
    kinds = [place.kind for place in found.found]
    periods = [place.period for place in found.found]
    most, d_model = found.most, len(plane.origin)
    start_end = np.where(np.isfinite(starts).all(1), numbers[grid:], np.nan)
    return {
        "end": numbers[:grid].reshape(shape).astype(np.int16),
        "arrival": np.concatenate(arrival)[:grid].reshape(shape).astype(np.float32),
        "phase": np.concatenate(phase)[:grid].reshape(shape).astype(np.float32),
        "u_coordinate": window.u,
        "v_coordinate": window.v,
        "end_kind": np.array([*kinds, *[""] * (most - len(kinds))], dtype=object),
        "end_share": filled(np.array(shares), (most,)),
        "end_period": filled(np.array(periods), (most,)),
        "end_radius": filled(np.array([place.radius for place in found.found]), (most,)),
        "end_state": filled(states, (most, d_model)),
        "end_uv": filled(plane.coordinates(states), (most, 2)),
        "end_distance": filled(plane.distance(states), (most,)),
        "start_uv": plane.coordinates(starts),
        "start_distance": plane.distance(starts),
        "start_end": start_end.astype(np.float32),
        "origin": plane.origin,
        "plane_direction": plane.directions,
        "steps": steps,
    }


def _by_share(numbers: np.ndarray, grid: int, found: ends.Ends) -> np.ndarray:
    """Give ends new numbers, the one of most cells first."""
    counts = [int((numbers[:grid] == number).sum()) for number in range(len(found.found))]
    order = sorted(range(len(counts)), key=lambda number: -counts[number])
    renamed = numbers.copy()
    for new, old in enumerate(order):
        renamed[numbers == old] = new
    found.found = [found.found[old] for old in order]
    return renamed


def _variables(parts: list[dict[str, Any]]) -> dict[str, xr.Variable]:
    state, grid = "state units", ("v", "u")
    names: dict[str, tuple[tuple[str, ...], str, str]] = {
        "end": (grid, "number of the end that is reached from this initial state", "1"),
        "arrival": (grid, "iterations until it is reached for good", "iteration"),
        "phase": (grid, "states of a cycle that this run is ahead of the first one", "iteration"),
        "u_coordinate": (("u",), "first coordinate in the plane", state),
        "v_coordinate": (("v",), "second coordinate in the plane", state),
        "end_kind": (("number",), "what is there", ""),
        "end_share": (("number",), "share of the cells that end there", "1"),
        "end_period": (("number",), "period of an orbit", "iteration"),
        "end_radius": (("number",), "spectral radius at a fixed point, stable below 1", "1"),
        "end_state": (("number", "d_model"), "the state, of an orbit the mean", state),
        "end_uv": (("number", "axis"), "the state in the plane", state),
        "end_distance": (("number",), "its distance from the plane", state),
        "start_uv": (("restart", "axis"), "initial states of the restarts in the plane", state),
        "start_distance": (("restart",), "their distance from the plane", state),
        "start_end": (("restart",), "number of the end that they reach", "1"),
        "origin": (("d_model",), "the state at u = v = 0", state),
        "plane_direction": (("axis", "d_model"), "orthonormal directions of the plane", "1"),
        "steps": ((), "rows that were mapped", "1"),
    }
    return stacked(parts, names)
