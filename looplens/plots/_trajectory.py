"""Trajectories of tokens in the principal components of the run, in two or three dimensions.

The basis is the one that the analysis ``pca`` fitted once and stored, so that every viewer of a
run sees the same picture. Colour is the iteration; the symbol and the outline tell tokens apart. A
trace named ``cursor`` marks one iteration and can be moved without asking Python again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from looplens import analysis
from looplens.errors import InputError
from looplens.plots import _labels, _marks, _select, _theme


def trajectory(
    run: Any,
    tokens: int | Iterable[int],
    restart: int = 0,
    layer: int | None = None,
    *,
    dims: int = 2,
    components: Sequence[int] = (0, 1, 2),
    iteration: int | None = None,
    theme: str = "light",
) -> _theme.Figure:
    """Show the paths of some tokens through the principal components.

    Parameters
    ----------
    run : looplens.Run
        The opened run.
    tokens : int or iterable of int
        Global token numbers.
    restart : int
        Which draw of the initial state.
    layer : int or None
        States after this core layer, or None for the loop state.
    dims : {2, 3}
        Dimensions of the figure.
    components : sequence of int
        Which components lie on the axes; the first ``dims`` are used.
    iteration : int or None
        Where the cursor stands; None keeps it out of sight.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        For each token a line and markers coloured by iteration (``meta.role`` is
        ``"trajectory"``), the first and the last state marked, and the trace ``cursor``.

    Raises
    ------
    InputError
        If something asked for does not exist.
    AnalysisError
        If the run holds no states to fit the components on.

    References
    ----------
    Geiping et al., arXiv 2502.05171, section 6 (one PCA for all tokens and iterations; six
    components).
    """
    chosen, restart = _select.tokens(run, tokens), _select.restart(run, restart)
    layer = _select.layer(run, layer)
    results, prefix = analysis.get(run, "pca"), ""
    if layer is not None:
        results, prefix = results.sel(layer=layer), "layer_"
    projection = results[prefix + "projection"].isel(restart=restart, token=chosen)
    explained = results[prefix + "explained_variance_ratio"]
    prompts = sorted({int(number) for number in run.tokens["prompt"].values[chosen]})
    named = f"prompt {prompts[0]}" if len(prompts) == 1 else f"{len(prompts)} prompts"
    return trajectory_figure(
        projection,
        explained,
        tokens=chosen,
        labels=_labels.token_labels(run, chosen, position=True),
        dims=dims,
        components=components,
        iteration=iteration,
        subtitle=_labels.subtitle(
            run, named, f"restart {restart}", "loop state" if layer is None else f"layer {layer}"
        ),
        theme=theme,
    )


def trajectory_figure(
    projection: xr.DataArray,
    explained: xr.DataArray,
    *,
    tokens: Sequence[int],
    labels: Sequence[str],
    dims: int = 2,
    components: Sequence[int] = (0, 1, 2),
    iteration: int | None = None,
    subtitle: str = "",
    theme: str = "light",
) -> _theme.Figure:
    """Draw trajectories from projections.

    Parameters
    ----------
    projection : DataArray (token, iteration, component)
        Coordinates in the components; NaN where there is no state.
    explained : DataArray (component)
        Share of the variance that each component explains.
    tokens : sequence of int
        Global token numbers, kept in ``meta`` for whoever handles clicks.
    labels : sequence of str
        Legend entries.
    dims, components, iteration, subtitle, theme
        See :func:`trajectory`.
    """
    axes = _axes(components, dims, projection.sizes["component"])
    projection = projection.transpose("token", "iteration", "component")
    iterations = projection["iteration"].values
    points = projection.isel(component=axes).values  # [token, iteration, dims]
    share = explained.values
    of_variance = " of variance" if dims == 2 else ""  # three titles must fit around a cube
    titles = [f"PC {axis + 1} ({_labels.percent(share[axis])}{of_variance})" for axis in axes]
    colours = _theme.palette(theme)
    made = _theme.figure(
        title="Trajectory of one token" if len(tokens) == 1 else "Trajectories of tokens",
        subtitle=subtitle,
        theme=theme,
        height=520 if dims == 2 else 600,
    )
    kind = _kind(dims, points.shape[0] * points.shape[1])
    symbols = _theme.TOKEN_SYMBOLS if dims == 2 else _theme.SYMBOLS_3D
    for row, token in enumerate(tokens):
        colour = colours.categories[row % len(colours.categories)]
        shared = {"legendgroup": str(token), "meta": {"role": "trajectory", "token": int(token)}}
        # Plain lists on purpose: a browser that moves the cursor reads them without decoding.
        coordinates = _marks.coordinates(points[row])
        made.add_trace(
            kind(
                **coordinates,
                mode="lines",
                line={"color": colour, "width": 1.5 if dims == 2 else 3},
                opacity=0.55,
                hoverinfo="skip",
                showlegend=False,
                legendgroup=str(token),
                meta={"role": "line", "token": int(token)},
            )
        )
        made.add_trace(
            kind(
                **coordinates,
                **shared,
                name=labels[row],
                mode="markers",
                customdata=iterations.tolist(),
                marker={
                    "color": np.log1p(iterations).tolist(),
                    **_colouring(iterations, colours, bar=row == 0),
                    "symbol": symbols[row % len(symbols)],
                    "size": 7 if dims == 2 else 4,
                    "line": {"width": 1, "color": colour},
                },
                hovertemplate=f"{labels[row]}<br>iteration %{{customdata}}<extra></extra>",
            )
        )
    _marks.add_ends(made, kind, points, iterations, colours, dims)
    _marks.add_cursor(made, kind, points, iterations, iteration, colours, dims)
    _finish(made, titles, dims)
    return made


def _axes(components: Sequence[int], dims: int, available: int) -> list[int]:
    """Check which components go on the axes."""
    if dims not in (2, 3):
        raise InputError(f"dims must be 2 or 3, got {dims!r}.")
    if len(components) < dims:
        raise InputError(f"dims={dims} needs {dims} components, got {tuple(components)}.")
    return [_select.index("component", value, available) for value in components[:dims]]


def _kind(dims: int, points: int) -> Any:
    if dims == 3:
        return go.Scatter3d
    return go.Scattergl if points > _theme.WEBGL_POINTS else go.Scatter


def _colouring(iterations: np.ndarray, colours: _theme.Palette, *, bar: bool) -> dict[str, Any]:
    """Return how markers are coloured by iteration, the colour bar in the lower half of the margin.

    Most of the way is covered in the first iterations, so the colour follows their logarithm.
    """
    ticks = [int(iterations[0])] if iterations[0] == 0 else []
    ticks += [2**power for power in range(20) if iterations[0] <= 2**power <= iterations[-1]]
    return {
        "colorscale": [list(stop) for stop in colours.sequential],
        "cmin": float(np.log1p(iterations[0])),
        "cmax": float(np.log1p(iterations[-1])),
        "showscale": bar,
        "colorbar": {
            "title": {"text": "iteration"},
            "tickvals": np.log1p(ticks).tolist(),
            "ticktext": [str(tick) for tick in ticks],
            "len": 0.52,
            "y": 0,
            "yanchor": "bottom",
        },
    }


def _finish(made: _theme.Figure, titles: Sequence[str], dims: int) -> None:
    """Set axis titles, and put the legend into the upper half of the right margin."""
    if dims == 2:
        made.update_xaxes(title=titles[0])
        made.update_yaxes(title=titles[1])
    else:
        made.update_layout(
            scene={
                "xaxis_title": titles[0],
                "yaxis_title": titles[1],
                "zaxis_title": titles[2],
                "aspectmode": "cube",
                "camera": {"eye": {"x": 1.7, "y": 1.7, "z": 0.9}, "center": {"z": -0.12}},
            },
            margin={"l": 8, "b": 16},
        )
    made.update_layout(
        legend={"y": 1, "yanchor": "top", "x": 1.02, "xanchor": "left", "maxheight": 0.45},
        # a new cursor position must not reset the reader's zoom
        uirevision="trajectory",
    )
