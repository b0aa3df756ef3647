"""Marks on trajectories: where they start and end, and the cursor that stands at one iteration.

All of them are traces of their own with a role in ``meta``, so that a browser can find and move
them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from looplens.errors import InputError
from looplens.plots import _select, _theme

CURSOR = "cursor"
"""Name of the trace that marks the iteration under the scrubber."""

_FEW = 8  # marks of more paths would cover them
_END: dict[int, tuple[str, int]] = {2: ("x-thin-open", 14), 3: ("diamond-open", 10)}


def coordinates(points: np.ndarray) -> dict[str, list[float | None]]:
    """Return x, y (and z) as lists, with None for what is not finite."""
    named = {}
    for column, axis in enumerate("xyz"[: points.shape[-1]]):
        values = points[:, column]
        named[axis] = [float(value) if np.isfinite(value) else None for value in values]
    return named


def _named(what: str, iterations: np.ndarray) -> str:
    """Add the iteration to a legend entry where it is the same for all tokens."""
    return f"{what} (iteration {iterations[0]})" if len(set(iterations)) == 1 else what


def add_ends(
    made: _theme.Figure,
    kind: Any,
    points: np.ndarray,
    iterations: np.ndarray,
    colours: _theme.Palette,
    dims: int,
) -> None:
    """Mark the first and the last finite state of every token."""
    finite = np.isfinite(points).all(-1)  # [token, iteration]
    rows = np.flatnonzero(finite.any(1))
    if not rows.size:
        return
    first = finite[rows].argmax(1)
    last = finite.shape[1] - 1 - finite[rows, ::-1].argmax(1)
    marks = (
        ("start", _named("start", iterations[first]), first, "circle-open", 15 if dims == 2 else 9),
        ("end", _named("last state", iterations[last]), last, *_END[dims]),
    )
    small = 1.0 if len(rows) <= _FEW else 0.6
    for role, name, where, symbol, size in marks:
        made.add_trace(
            kind(
                **coordinates(points[rows, where]),
                name=name,
                mode="markers",
                hoverinfo="skip",
                marker={
                    "symbol": symbol,
                    "size": small * size,
                    "color": colours.text,
                    "line": {"width": 2, "color": colours.text},
                },
                meta={"role": role},
            )
        )


def add_cursor(
    made: _theme.Figure,
    kind: Any,
    points: np.ndarray,
    iterations: np.ndarray,
    iteration: int | None,
    colours: _theme.Palette,
    dims: int,
) -> None:
    """Add the movable marker: one point a token, at one iteration; out of sight without one."""
    stands = int(iterations[-1] if iteration is None else iteration)
    columns = np.flatnonzero(iterations == stands)
    if not columns.size:
        held = _select.listed(iterations.tolist())
        raise InputError(f"iteration must be one of {held}, got {stands}.")
    made.add_trace(
        kind(
            **coordinates(points[:, columns[0]]),
            name=CURSOR,
            mode="markers",
            hoverinfo="skip",
            showlegend=False,
            visible=iteration is not None,
            marker={
                "symbol": "circle-open",
                "size": (20 if dims == 2 else 12) * (1.0 if len(points) <= _FEW else 0.7),
                "color": colours.accent,
                "line": {"width": 3 if len(points) <= _FEW else 2, "color": colours.accent},
            },
            meta={"role": CURSOR, "iteration": stands},
        )
    )


def add_line(
    made: _theme.Figure,
    iteration: int | None,
    colours: _theme.Palette,
    *,
    axis: str = "",
    x: str = "",
    y: str = "",
) -> None:
    """Add the movable vertical line at an iteration; out of sight without one.

    Parameters
    ----------
    made : Figure
        A figure with iterations on its horizontal axis.
    iteration : int or None
        Where it stands.
    colours : Palette
        Of the theme of the figure.
    axis : str
        Number of the axes that it lies on, ``"2"`` for ``xaxis2`` and ``yaxis2``.
    x, y : str
        Their names where their numbers differ, such as ``"x"`` and ``"y2"``.
    """
    stands = 0 if iteration is None else int(iteration)
    made.add_shape(
        type="line",
        name=CURSOR,
        xref=x or f"x{axis}",
        yref=f"{y or f'y{axis}'} domain",
        x0=stands,
        x1=stands,
        y0=0,
        y1=1,
        visible=iteration is not None,
        line={"color": colours.accent, "width": 2},
    )


def add_row(
    made: _theme.Figure,
    tokens: slice,
    token: int | None,
    colours: _theme.Palette,
    *,
    axis: str = "",
) -> None:
    """Add the movable frame around the row of a token; out of sight without one.

    Parameters
    ----------
    made : Figure
        A figure with the tokens of a prompt on its vertical axis, counted from 0. Its
        ``layout.meta`` gets ``first_token``, from which a browser finds rows.
    tokens : slice
        Global numbers of these tokens.
    token : int or None
        Global number of the one that is framed.
    colours : Palette
        Of the theme of the figure.
    axis : str
        Number of the axes that the rows lie on, ``"2"`` for ``xaxis2`` and ``yaxis2``.

    Raises
    ------
    InputError
        If the token is none of the rows.
    """
    if token is not None and not tokens.start <= token < tokens.stop:
        raise InputError(
            f"token must be one of the tokens {tokens.start} to {tokens.stop - 1} that are shown, "
            f"got {token}."
        )
    row = 0 if token is None else int(token) - tokens.start
    made.add_shape(
        type="rect",
        name="row",
        xref=f"x{axis} domain",
        yref=f"y{axis}",
        x0=0,
        x1=1,
        y0=row - 0.5,
        y1=row + 0.5,
        visible=token is not None,
        line={"color": colours.accent, "width": 2},
    )
    made.update_layout(meta={**(made.layout.meta or {}), "first_token": int(tokens.start)})
