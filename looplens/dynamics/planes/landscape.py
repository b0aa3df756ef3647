"""How far and where the loop moves a state, on a plane through the end of a trajectory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from looplens.dynamics.maps.labelled import Progress, labelled
from looplens.dynamics.maps.loop_maps import check_scope
from looplens.dynamics.maps.recorded import recorded
from looplens.dynamics.maps.state_map import Rows
from looplens.dynamics.planes import sources
from looplens.dynamics.planes.field import field, leading_directions, valleys, whirls
from looplens.dynamics.planes.labels import filled, stacked
from looplens.dynamics.planes.plane import Floats, Plane, spanned, through_limits, window_of
from looplens.dynamics.planes.running import held_paths
from looplens.dynamics.planes.slices import Slice, slice_of
from looplens.dynamics.solving.searching import Points, search
from looplens.dynamics.solving.starting import REACH
from looplens.errors import InputError

MOST_POINTS = 8  # fixed points that a result has room for
_WALK = 128  # iterations that a search follows a start for
_PLANES = ("limits", "eigen")
_AXES = ("u", "v")


def landscape(
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
    size: int = 41,
    dtype: torch.dtype | None = None,
    progress: Progress = None,
) -> xr.Dataset:
    r"""Sample the residual and the step of the loop on a plane through a token's limit.

    With R one iteration of the loop, at every cell :math:`s = o + u\,a + v\,b` of a grid it gives
    the residual :math:`|R(s) - s|` and the direction of the step, projected onto the plane spanned
    by a and b. The other tokens of the prompt are held still.

    Parameters
    ----------
    model : LoopedTransformer or LoopedModel
        The model that was recorded, or that is to be run.
    source : Run, str, sequence of int or tensor
        A run, or one prompt.
    prompt, restart : int
        Of a run. All restarts are drawn; this one's limit the plane goes through, and its states
        are what the others are held at.
    tokens : int or sequence of int, optional
        Positions of the prompt; all by default.
    scope : {"token", "sequence"}
        What a step moves: this token alone, or the whole sequence, of which the slice sets this
        token's state. Then the residual is that of the whole sequence.
    iteration : int, optional
        Where the others are held: by default at the last iteration.
    context : Float[Tensor, "pos d_model"], optional
        Where the others are held instead, such as at a fixed point of the sequence.
    plane : {"limits", "eigen"} or Float[ndarray, "2 d_model"]
        ``limits``: principal axes of the trajectories about the origin; of their tails where these
        spread by more than 0.1 % of the norm (an orbit, several limits), of the whole approach
        otherwise. ``eigen``: leading eigenvectors of the token's block of the Jacobian at the
        origin. Or two directions.
        The origin is the verified fixed point next to the limit, or the limit where there is none.
    half : float, optional
        Half the width of the window, about the origin; by default it fits the trajectories.
    size : int
        Cells along a side, 3 to 257. The cost is size² steps a token, and what the fixed points
        take; the result says both.
    dtype : torch.dtype, optional
        What to compute in; see :func:`looplens.dynamics.maps.loop_step.loop_step`.
    progress : callable, optional
        Is told (tokens done, tokens).

    Returns
    -------
    Dataset
        Over ``token``: ``residual``, ``step_direction``, ``step_in_plane`` on the grid (v, u), with
        ``in_plane_median``; ``u_coordinate``, ``v_coordinate``; the trajectories ``path`` and
        ``path_distance`` (from the plane); ``held_path``, which starts like them while the others
        stand still (NaN for the scope ``sequence``);
        ``fixed_point_uv``, ``fixed_point_distance``, ``fixed_point_radius`` of verified points
        only, NaN in free places; ``origin``, ``plane_direction``; ``others_motion``.

    Raises
    ------
    InputError
        If an argument is out of range, or the model is not the recorded one.
    AnalysisError
        If the run does not hold what is needed.

    Notes
    -----
    A plane shows two of d_model dimensions. ``step_in_plane`` says how much of a step it shows.

    References
    ----------
    A landscape with arrows over the plane of two principal components: Ren and Liu,
    arXiv:2601.10679, as summarised in notes, paper text not read. Fixed points and slow regions of
    :math:`|f(x) - x|`: Sussillo and Barak, Neural Computation 25 (2013).

    Examples
    --------
    >>> import looplens as ll
    >>> model = ll.load_model("affine-huginn-mini")
    >>> found = ll.dynamics.landscape(model, "3+4*2", tokens=-1, size=9)
    >>> found["residual"].shape
    (1, 9, 9)
    """
    check_scope(scope)
    sources.check_size(size)
    sources.check_half(half)
    if isinstance(plane, str) and plane not in _PLANES:
        raise InputError(f"plane must be 'limits', 'eigen' or two directions; got {plane!r}")
    rec = recorded(model, source, prompt=prompt, restart=restart, dtype=dtype)
    positions = rec.positions(tokens)
    held = sources.context_of(rec, iteration, context)
    others = rec.steps_of_others(held, positions)
    seen_of_all = sources.seen_of(rec, positions, restart)
    parts, maps = [], []
    for number, (position, seen) in enumerate(zip(positions, seen_of_all, strict=True)):
        given = slice_of(rec.step, held, position, scope)
        alone = given if scope == "token" else slice_of(rec.step, held, position, "token")
        part = _of_token(given, alone, seen, plane, half, size)
        follow = np.full_like(seen.paths, np.nan)
        if scope == "token":
            follow = held_paths(given, seen.paths[:, 0], rec.iterations)
        part["held_path"] = part["plane"].coordinates(follow)
        part["regime"] = sources.regimes_of(rec, position, seen.paths)
        part["others_motion"] = others[number]
        parts.append(part)
        maps.append(given.whole)
        if progress is not None:
            progress(number + 1, len(positions))
    return labelled(
        rec,
        positions,
        _variables(parts),
        method="the step of the loop on the grid of a plane",
        maps=maps,
        coords={
            "axis": list(_AXES),
            "restart": np.arange(len(seen_of_all[0].paths)),
            "iteration": list(rec.iterations),
        },
        scope=scope,
        plane=plane if isinstance(plane, str) else "given",
        size=int(size),
        half=half,
        iteration=None if context is not None else rec.iteration(iteration),
        held="given" if context is not None else "recorded",
    )


def _of_token(
    given: Slice, alone: Slice, seen: sources.Seen, plane: Any, half: float | None, size: int
) -> dict[str, Any]:
    """Return the arrays of one token that its recorded states and the map give."""
    limit = given.rows(torch.as_tensor(seen.limit[None]))
    points = _points(given, seen, limit, seen.limits)
    origin, kind = _origin(given, points, seen)
    chosen, close = _plane(alone, origin, seen, plane)
    window = window_of(chosen, seen.tails, seen.after_start, size, half, close=close)
    found = field(given, chosen, window)
    lows = np.concatenate([window.points[valleys(found.residual)], window.between(whirls(found))])
    first = points.states if len(points.states) else limit
    points = _points(given, seen, first, chosen.states(lows))
    states = given.states(points.states).double().cpu().numpy()[:MOST_POINTS]
    known = np.isfinite(found.in_plane)
    return {
        "plane": chosen,
        "residual": found.residual.astype(np.float32),
        "step_direction": found.direction.astype(np.float32),
        "step_in_plane": found.in_plane.astype(np.float32),
        "in_plane_median": np.median(found.in_plane[known]) if known.any() else np.nan,
        "u_coordinate": window.u,
        "v_coordinate": window.v,
        "path": chosen.coordinates(seen.paths),
        "path_distance": chosen.distance(seen.paths),
        "fixed_point_uv": filled(chosen.coordinates(states), (MOST_POINTS, 2)),
        "fixed_point_distance": filled(chosen.distance(states), (MOST_POINTS,)),
        "fixed_point_radius": filled(points.radius[:MOST_POINTS], (MOST_POINTS,)),
        "origin": chosen.origin,
        "origin_is": kind,
        "plane_direction": chosen.directions,
        "evaluations": given.whole.evaluations,
    }


def _points(given: Slice, seen: sources.Seen, first: Rows, others: Floats) -> Points:
    """Search fixed points from states of the map and of the token, nearest to the limit first."""
    size = np.linalg.norm(seen.paths, axis=-1)
    largest = seen.paths.reshape(-1, seen.paths.shape[-1])[np.nanargmax(size)]
    limit, far = given.rows(torch.as_tensor(np.stack([seen.limit, largest])))
    return search(
        given.whole,
        first[None],
        given.rows(torch.as_tensor(others))[None],
        centre=limit[None],
        reach=REACH * far.norm()[None],
        walk=_WALK,
    )[0]


def _origin(given: Slice, points: Points, seen: sources.Seen) -> tuple[Floats, str]:
    """Return the fixed point that belongs to a limit, or the limit."""
    if not len(points.states):
        return seen.limit, "limit"
    nearest = given.states(points.states[:1])[0].double().cpu().numpy()
    reach = np.linalg.norm(seen.tails - seen.limit, axis=-1)
    reach = max(float(np.nanmax(reach)), 1e-2 * float(np.linalg.norm(seen.limit)))
    near = np.linalg.norm(nearest - seen.limit) <= reach
    return (nearest, "fixed point") if near else (seen.limit, "limit")


def _plane(alone: Slice, origin: Floats, seen: sources.Seen, plane: Any) -> tuple[Plane, bool]:
    """Return the plane, and whether the window is that of the tails alone."""
    if isinstance(plane, str) and plane == "limits":
        chosen, from_tails = through_limits(origin, seen.tails, seen.after_start)
        return chosen, from_tails > 0
    if isinstance(plane, str):
        x = alone.rows(torch.as_tensor(origin[None]))
        return spanned(origin, leading_directions(alone.whole, x)), seen.moves
    return spanned(origin, plane), seen.moves


def _variables(parts: list[dict[str, Any]]) -> dict[str, xr.Variable]:
    state, grid = "state units", ("v", "u")
    names: dict[str, tuple[tuple[str, ...], str, str]] = {
        "residual": (grid, "length of the step from this state, |R(s) - s|", state),
        "step_direction": ((*grid, "axis"), "step over its length, in the plane", "1"),
        "step_in_plane": (grid, "share of the squared step that lies in the plane", "1"),
        "in_plane_median": ((), "median of this share over the cells", "1"),
        "u_coordinate": (("u",), "first coordinate in the plane", state),
        "v_coordinate": (("v",), "second coordinate in the plane", state),
        "path": (("restart", "iteration", "axis"), "recorded states in the plane", state),
        "path_distance": (("restart", "iteration"), "their distance from the plane", state),
        "held_path": (
            ("restart", "iteration", "axis"),
            "states from the same start while the others are held still, in the plane",
            state,
        ),
        "regime": (("restart",), "regime of the recorded states", ""),
        "fixed_point_uv": (("point", "axis"), "verified fixed points in the plane", state),
        "fixed_point_distance": (("point",), "their distance from the plane", state),
        "fixed_point_radius": (("point",), "spectral radius there, stable below 1", "1"),
        "origin": (("d_model",), "the state at u = v = 0", state),
        "origin_is": ((), "what the plane goes through", ""),
        "plane_direction": (("axis", "d_model"), "orthonormal directions of the plane", "1"),
        "others_motion": (
            (),
            "largest step of a token that this one sees, over its norm, where they are held",
            "1",
        ),
        "evaluations": ((), "rows that were mapped", "1"),
    }
    return stacked(parts, names)
