"""One token from several initial states, and whether the paths end in the same place.

Left, the restarts laid over each other in the principal components of the run; right, the
distance between them by iteration. Numbers come from the analyses ``pca`` and
``path_independence``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from looplens import analysis
from looplens.errors import AnalysisError
from looplens.plots import _labels, _marks, _select, _theme

MOST_DRAWN = 16
"""Restarts in the overlay."""

_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


def restarts(
    run: Any,
    token: int,
    layer: int | None = None,
    *,
    iteration: int | None = None,
    theme: str = "light",
) -> _theme.Figure:
    """Compare the restarts of one token.

    Parameters
    ----------
    run : looplens.Run
        A run with at least two restarts.
    token : int
        Global token number.
    layer : int or None
        Overlay of the states after this core layer, or of the loop state. The distance on the right
        is always that of the loop state.
    iteration : int or None
        Where the cursors stand; None keeps them out of sight.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        Two panels: overlay, of at most 16 restarts, and distance between all of them, with its
        floor.

    Raises
    ------
    InputError
        If the token or the layer does not exist.
    AnalysisError
        If the run holds only one restart.

    References
    ----------
    Geiping et al., arXiv 2502.05171, figure 22 (overlay); Anil et al., arXiv 2211.09961 (path
    independence); the decay of the distance is read above its floor only.
    """
    token, layer = _select.token(run, token), _select.layer(run, layer)
    if run.restarts < 2:
        raise AnalysisError(
            f"Comparing restarts needs at least 2 of them, and this run holds {run.restarts}. "
            "Record it again with restarts=2 or more."
        )
    components, prefix = analysis.get(run, "pca"), ""
    if layer is not None:
        components, prefix = components.sel(layer=layer), "layer_"
    independence = analysis.get(run, "path_independence")
    return restarts_figure(
        components[prefix + "projection"].isel(token=token),
        components[prefix + "explained_variance_ratio"],
        independence.isel(token=token),
        seeds=list(run.restart_seeds),
        label=_labels.token_labels(run, [token], position=True)[0],
        subtitle=_labels.subtitle(
            run,
            f"prompt {int(run.tokens['prompt'][token])}",
            "loop state" if layer is None else f"layer {layer}",
            f"{MOST_DRAWN} of {run.restarts} restarts are drawn"
            if run.restarts > MOST_DRAWN
            else "",
        ),
        iteration=iteration,
        theme=theme,
    )


def restarts_figure(
    projection: xr.DataArray,
    explained: xr.DataArray,
    independence: xr.Dataset,
    *,
    seeds: list[Any],
    label: str,
    subtitle: str = "",
    iteration: int | None = None,
    theme: str = "light",
) -> _theme.Figure:
    """Draw the comparison of restarts from labelled arrays.

    Parameters
    ----------
    projection : DataArray (restart, iteration, component)
        One token in the principal components.
    explained : DataArray (component)
        Share of the variance that each component explains.
    independence : Dataset
        ``gap`` (iteration) and, where they are known, ``gap_max`` (iteration), ``final_gap``,
        ``gap_floor``, ``gap_rate`` with ``gap_rate_error`` and ``gap_fit_end``, and ``token_aa`` of
        that token.
    seeds : list
        Seed of each restart, for the legend.
    label, subtitle, theme
        Words and template.
    iteration : int or None
        Where the cursors stand.
    """
    colours = _theme.palette(theme)
    made = _theme.figure(
        title=f"Restarts of token {label}",
        subtitle="<br>".join(part for part in (subtitle, _verdict(independence)) if part),
        theme=theme,
        height=460,
    )
    make_subplots(rows=1, cols=2, horizontal_spacing=0.13, figure=made)
    projection = projection.transpose("restart", "iteration", "component")
    iterations = projection["iteration"].values
    points = projection.values[:MOST_DRAWN, :, :2]
    for row in range(len(points)):
        colour = colours.categories[row % len(colours.categories)]
        name = f"restart {row} (seed {seeds[row]})" if row < len(seeds) else f"restart {row}"
        made.add_trace(
            go.Scatter(
                **_marks.coordinates(points[row]),
                name=name,
                mode="lines+markers",
                line={"color": colour, "width": 1.5, "dash": _DASHES[row % len(_DASHES)]},
                marker={
                    "symbol": _theme.TOKEN_SYMBOLS[row % len(_theme.TOKEN_SYMBOLS)],
                    "size": 6,
                    "color": colour,
                },
                customdata=iterations.tolist(),
                meta={"role": "trajectory", "restart": row},
                hovertemplate=f"{name}<br>iteration %{{customdata}}<extra></extra>",
            ),
            row=1,
            col=1,
        )
    _marks.add_cursor(made, go.Scatter, points, iterations, iteration, colours, 2)
    _add_gap(made, independence, colours)
    _marks.add_line(made, iteration, colours, x="x2", y="y2")
    share = explained.values
    made.update_xaxes(title=f"PC 1 ({_labels.percent(share[0])} of variance)", row=1, col=1)
    made.update_yaxes(title=f"PC 2 ({_labels.percent(share[1])} of variance)", row=1, col=1)
    made.update_xaxes(title="iteration", row=1, col=2)
    made.update_layout(
        legend={"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"}, margin={"t": 96, "b": 96}
    )
    return made


def _verdict(independence: xr.Dataset) -> str:
    """Say in words what the analysis found about this token."""
    parts = []
    if "token_aa" in independence:
        parts.append(f"cosine of the limits {_labels.cosine(float(independence['token_aa']))}")
    rate = float(independence["gap_rate"]) if "gap_rate" in independence else np.nan
    if np.isfinite(rate):
        error = float(independence["gap_rate_error"])
        parts.append(
            f"distance changes by ×{_labels.number(rate)} ± {_labels.number(error, digits=1)} an "
            f"iteration (fitted up to {float(independence['gap_fit_end']):g})"
        )
    return ", ".join(parts)


def _floor_name(independence: xr.Dataset, floor: float) -> str:
    """Return "floor", unless the distance still falls: then it has not been reached."""
    falls = "final_gap" in independence and float(independence["final_gap"]) < 0.67 * floor
    return "last quarter, still falling:" if falls else "floor"


def _add_gap(made: _theme.Figure, independence: xr.Dataset, colours: _theme.Palette) -> None:
    """Draw the distance between restarts on a logarithmic axis, with its floor."""
    gap = independence["gap"]
    iterations = gap["iteration"].values
    drawn = []
    for variable, name, dash in (
        ("gap", "mean over pairs of restarts", "solid"),
        ("gap_max", "largest pair", "dot"),
    ):
        if variable not in independence or "iteration" not in independence[variable].dims:
            continue
        values = np.asarray(independence[variable].values, dtype=np.float64)
        drawn.append(np.where(values > 0, values, np.nan))  # no logarithm of an exact 0
        made.add_trace(
            go.Scatter(
                x=iterations,
                y=drawn[-1],
                name=name,
                mode="lines+markers",
                line={"color": colours.text, "width": 1.5, "dash": dash},
                marker={"size": 4},
                hovertemplate="iteration %{x}<br>distance %{y:.3g}<extra></extra>",
            ),
            row=1,
            col=2,
        )
    unit = gap.attrs.get("units", "")
    title = "distance between restarts"
    made.update_yaxes(title=title if unit in ("", "1") else f"{title} ({unit})", row=1, col=2)
    positive = np.concatenate([values[np.isfinite(values)] for values in drawn])
    if not positive.size:
        made.update_xaxes(range=[iterations[0] - 1, iterations[-1] + 1], row=1, col=2)
        _say_why_empty(made, bool(np.isfinite(gap.values).any()), colours)
        return
    floor = float(independence["gap_floor"]) if "gap_floor" in independence else np.nan
    low, high = np.log10(positive.min()), np.log10(positive.max())
    if np.isfinite(floor) and floor > 0:
        low, name = min(low, np.log10(floor)), _floor_name(independence, floor)
        made.add_hline(
            y=floor, line={"color": colours.accent, "width": 1.5, "dash": "dash"}, row=1, col=2
        )
        made.add_annotation(
            text=f"{name} {_labels.number(floor)}",
            x=1 if name == "floor" else 0,
            xref="x2 domain",
            y=np.log10(floor),
            yref="y2",
            xanchor="right" if name == "floor" else "left",
            yanchor="top",  # a curve lies above its floor, and one that falls ends below
            showarrow=False,
            font={"color": colours.accent},
        )
    exponents, texts = _labels.decade_ticks(np.floor(low), np.ceil(high))
    bottom, top = np.floor(low) - 0.3, np.ceil(high) + 0.15
    if np.isfinite(floor) and floor > 0:  # its label stands below it, clear of the axis
        bottom = min(bottom, np.log10(floor) - 0.15 * (top - bottom))
    made.update_yaxes(
        type="log",
        range=[bottom, top],
        tickvals=[10.0**exponent for exponent in exponents],
        ticktext=texts,
        row=1,
        col=2,
    )


def _say_why_empty(made: _theme.Figure, known: bool, colours: _theme.Palette) -> None:
    """Write why there is no distance on a logarithmic axis."""
    made.update_yaxes(range=[0, 1], showticklabels=False, ticks="", showgrid=False, row=1, col=2)
    made.add_annotation(
        text="exactly 0 at every iteration" if known else "not known",
        showarrow=False,
        x=0.5,
        y=0.5,
        xref="x2 domain",
        yref="y2 domain",
        font={"color": colours.muted},
    )
