"""The step of a map over a window of a plane, and where it seems to vanish."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from looplens.dynamics.maps.state_map import Rows, StateMap
from looplens.dynamics.planes.plane import Floats, Plane, Window
from looplens.dynamics.planes.slices import Slice
from looplens.dynamics.solving.krylov import begin, extend, ritz

_MINIMA = 6  # valleys of the residual that fixed points are searched from
_KRYLOV = 120  # most products with the Jacobian


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """Steps from the cells of a grid.

    Attributes
    ----------
    residual : Float[ndarray, "v u"]
        :math:`|f(s) - s|`.
    direction : Float[ndarray, "v u 2"]
        The step of the token over its length, projected onto the plane: as long as its part in it.
    in_plane : Float[ndarray, "v u"]
        Share of the squared length of the step that lies in the plane.
    """

    residual: Float[np.ndarray, "v u"]
    direction: Float[np.ndarray, "v u 2"]
    in_plane: Float[np.ndarray, "v u"]


def field(given: Slice, plane: Plane, window: Window) -> Field:
    """Sample the step of a map on the grid of a window."""
    uv = window.points
    sizes = np.empty(len(uv))
    moves = np.empty((len(uv), 2))
    shares = np.empty(len(uv))
    for first in range(0, len(uv), given.at_once):
        part = np.s_[first : first + given.at_once]
        states = torch.as_tensor(plane.states(uv[part]))
        x = given.rows(states)
        r, size = given.map(len(x)).residual(x)
        sizes[part] = size.double().cpu().numpy()
        step = given.states(r).double().cpu().numpy()
        length = np.linalg.norm(step, axis=1, keepdims=True)
        # Where nothing moves there is no direction.
        unit = np.divide(step, length, out=np.full_like(step, np.nan), where=length > 0)
        moves[part] = unit @ plane.directions.T
        shares[part] = (moves[part] ** 2).sum(1)
    shape = (len(window.v), len(window.u))
    return Field(
        residual=sizes.reshape(shape),
        direction=moves.reshape(*shape, 2),
        in_plane=shares.reshape(shape),
    )


def valleys(residual: Float[np.ndarray, "v u"], most: int = _MINIMA) -> list[int]:
    """Return the cells, counted row by row, at which the residual is least among neighbours."""
    padded = np.pad(np.where(np.isfinite(residual), residual, np.inf), 1, constant_values=np.inf)
    rows, columns = residual.shape
    around = [
        padded[1 + i : 1 + i + rows, 1 + j : 1 + j + columns]
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
        if i or j
    ]
    least = (residual <= np.min(around, axis=0)) & np.isfinite(residual)
    cells = np.flatnonzero(least)
    return cells[np.argsort(residual.ravel()[cells], kind="stable")][:most].tolist()


def whirls(found: Field, most: int = _MINIMA) -> list[tuple[float, float]]:
    """Return the middles (row, column) of the squares of cells about which the step turns round.

    Going about a zero of the projected step, its direction turns by a whole turn: one way about
    nodes and spirals, the other way about saddles (the Poincaré index). So a saddle is seen where
    the grid is too coarse for its valley.
    """
    angle = np.arctan2(found.direction[..., 1], found.direction[..., 0])
    corners = [angle[:-1, :-1], angle[:-1, 1:], angle[1:, 1:], angle[1:, :-1]]
    changes = np.stack(corners[1:] + corners[:1]) - np.stack(corners)
    turns = ((changes + np.pi) % (2 * np.pi) - np.pi).sum(0) / (2 * np.pi)
    rows, columns = np.nonzero(np.abs(turns) > 0.5)  # NaN compares as no turn
    order = np.argsort(found.residual[rows, columns], kind="stable")[:most]
    return [
        (row + 0.5, column + 0.5) for row, column in zip(rows[order], columns[order], strict=True)
    ]


def leading_directions(map_: StateMap, x: Rows, krylov: int = _KRYLOV) -> Floats:
    """Return two directions of the leading eigenvectors of the Jacobian at a state.

    Of a complex pair its real and imaginary part; else the vectors of the two eigenvalues of
    largest modulus, of the second one the real part.
    """
    draw = torch.randn(map_.size, generator=torch.Generator().manual_seed(0)).to(x)
    space = extend(begin(draw[None]), lambda v: map_.jvp(x, v), min(krylov, map_.size))
    values, vectors, _ = ritz(space)
    basis = torch.stack(space.basis[: space.steps], dim=1)[0].double().cpu()  # m n
    first, second = (vectors[0, :, number] for number in (0, 1))
    pair = bool(values[0, 0].imag.abs() > 1e-9 * values[0, 0].abs())
    parts = (first.real, first.imag) if pair else (first.real, second.real)
    return np.stack([(part.double() @ basis).numpy() for part in parts])
