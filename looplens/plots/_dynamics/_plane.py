"""What the two figures of a plane share: axes, colour bar, marks, and how much a plane shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from looplens.plots import _labels, _theme

_ON_PLANE = 0.02  # of the window: a point closer to the plane than this lies on it


def shares_of_steps(found: xr.Dataset) -> list[str]:
    """Return what must be known to read a landscape: what it leaves out."""
    shown = _labels.percent(float(found["in_plane_median"]))
    told = [f"the plane shows {shown} of the squared step in the median cell"]
    others = float(found["others_motion"])
    if found.attrs["scope"] == "token" and others > 1e-3:
        told.append(
            "the other tokens are held still here; in the model they still move, by up to "
            f"{_labels.percent(others)} of their norm a step"
        )
    return told


def colour_bar(logarithms: np.ndarray, title: str) -> dict[str, Any]:
    """Return a colour bar of base-10 logarithms, with round numbers also within a decade."""
    finite = logarithms[np.isfinite(logarithms)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (-1.0, 0.0)
    exponents, texts = _labels.decade_ticks(low, high)
    ticks = [float(exponent) for exponent in exponents]
    if len(ticks) < 3:
        first, last = int(np.floor(low)), int(np.ceil(high))
        values = [m * 10.0**e for e in range(first, last + 1) for m in (1, 2, 5)]
        values = [value for value in values if low <= np.log10(value) <= high]
        ticks, texts = [float(np.log10(v)) for v in values], [_labels.number(v) for v in values]
    return {"title": {"text": title}, "tickvals": ticks, "ticktext": texts, "len": 0.8}


def plane_layout(made: _theme.Figure, u: np.ndarray, v: np.ndarray, columns: int = 1) -> None:
    """Set axes of one scale, no longer than the window, and a legend below."""
    half_u, half_v = (float(axis[1] - axis[0]) / 2 for axis in (u, v))
    for column in range(1, columns + 1):
        number, first = ("", True) if column == 1 else (str(column), False)
        made.update_layout(
            {
                f"xaxis{number}": {
                    "title": "u, state units",
                    "range": [float(u[0]) - half_u, float(u[-1]) + half_u],
                    "constrain": "domain",
                    "showgrid": False,
                    "matches": None if first else "x",
                },
                f"yaxis{number}": {
                    "title": "v, state units" if first else None,
                    "range": [float(v[0]) - half_v, float(v[-1]) + half_v],
                    "scaleanchor": f"x{number}",
                    "constrain": "domain",
                    "showgrid": False,
                    "matches": None if first else "y",
                    "showticklabels": first,
                },
            }
        )
    made.update_layout(
        legend={
            "orientation": "h",
            "x": 0,
            "y": -0.13,
            "yanchor": "top",
        },
        margin={"t": 108, "b": 110},
    )


def add_marks(
    made: _theme.Figure,
    found: xr.Dataset,
    colours: _theme.Palette,
    name: str,
    uv: np.ndarray,
    chosen: np.ndarray,
    *,
    symbol: str,
    hover: Sequence[str],
    texts: Sequence[str] | None = None,
    size: int = 16,
) -> None:
    """Mark points of the plane; those out of the window are counted in the legend."""
    rows = np.flatnonzero(chosen).tolist()
    if not rows:
        return
    inside = np.ones(len(rows), dtype=bool)
    for column, axis in enumerate(("u_coordinate", "v_coordinate")):
        values = found[axis].values
        inside &= (uv[rows, column] >= values[0]) & (uv[rows, column] <= values[-1])
    if not inside.all():
        name += f" ({int((~inside).sum())} outside)"
    # Words stand on all colours of a heat map.
    halo = ", ".join(f"0 0 3px {colours.paper}" for _ in range(3))
    shown = [texts[row] if texts and known else "" for row, known in zip(rows, inside, strict=True)]
    made.add_trace(
        go.Scatter(
            x=uv[rows, 0],
            y=uv[rows, 1],
            mode="markers+text",
            name=name,
            text=shown,
            textposition="top center",
            textfont={"size": 12, "color": colours.text, "shadow": halo},
            hovertext=[hover[row] for row in rows],
            hovertemplate="%{hovertext}<extra></extra>",
            marker={
                "symbol": symbol,
                "size": size,
                "color": colours.text if symbol.endswith("open") else colours.categories[2],
                "line": {"width": 2, "color": colours.text},
            },
        )
    )


def off_plane(found: xr.Dataset, away: np.ndarray) -> list[str]:
    """Return a word beside each point that does not lie on the plane: how far off it is."""
    u = found["u_coordinate"].values
    width = float(u[-1] - u[0])
    return [
        f"{_labels.number(gap, digits=2)} off" if gap > _ON_PLANE * width else "" for gap in away
    ]
