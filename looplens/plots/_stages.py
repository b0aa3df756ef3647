"""Stages of inference, layer after layer through all loops, alone or beside a feed-forward model.

The numbers are those of the analysis ``stages`` and of ``analysis.compare_stages``.
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

_PANELS: dict[str, str] = {
    "concentration": "concentration above uniform",
    "sink_rate": "share of heads with a sink",
    "mixing": "mixing of a query (nats)",
    "matrix_entropy": "matrix entropy (nats)",
}
_MOST_MARKED = 8  # layers with a symbol of their own
_MOST_BORDERS = 16
_MOST_JOINED = 100  # points in their order, above which each layer has a line of its own


def stages(
    run: Any,
    prompt: int | None = None,
    restart: int | None = None,
    *,
    iteration: int | None = None,
    theme: str = "light",
) -> _theme.Figure:
    """Show the stages of inference at every layer of every loop.

    Parameters
    ----------
    run : looplens.Run
        A run with recorded attention, or with the residual stream after each layer.
    prompt : int or None
        Prompt number; None for the mean over the prompts that were measured.
    restart : int or None
        Which draw of the initial state; None for the mean.
    iteration : int or None
        Where the cursor stands; None keeps it out of sight.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        One panel a stage that the run allows, over iterations; the layers of an iteration lie
        between its tick and the next, joined in their order, or layer by layer where they are many.
        Dotted: uniform attention.

    Raises
    ------
    InputError
        If the prompt or the restart does not exist.
    AnalysisError
        If the run does not hold the data, or the stages of this prompt were not measured.

    References
    ----------
    Blayney et al., arXiv 2604.11791, figures on stages of inference over realised depth.
    """
    results = analysis.get(run, "stages")
    parts = []
    if prompt is not None:
        prompt = _select.prompt(run, prompt)
        if prompt not in results["prompt"].values:
            measured = _select.listed(results["prompt"].values.tolist())
            raise AnalysisError(
                f"The stages of prompt {prompt} were not measured (measured: {measured}). Record "
                "its attention, or analyse with a larger stage_prompts."
            )
        results = results.sel(prompt=[prompt])
        parts.append(f"prompt {prompt}")
    else:
        parts.append(f"mean of {results.sizes['prompt']} prompts")
    if restart is not None:
        results = results.isel(restart=[_select.restart(run, restart)])
        parts.append(f"restart {restart}")
    elif run.restarts > 1:
        parts.append(f"mean of {run.restarts} restarts")
    return stages_figure(
        results, subtitle=_labels.subtitle(run, *parts), iteration=iteration, theme=theme
    )


def stages_figure(
    results: xr.Dataset,
    *,
    subtitle: str = "",
    iteration: int | None = None,
    theme: str = "light",
) -> _theme.Figure:
    """Draw the dataset of the analysis ``stages``, mean over its prompts and restarts.

    Parameters
    ----------
    results : Dataset
        ``concentration``, ``sink_rate``, ``mixing``, ``matrix_entropy`` (prompt, restart, layer,
        iteration), with NaN where one was not recorded, and ``mixing_baseline`` (prompt).
    subtitle, iteration, theme
        As for :func:`stages`.
    """
    means = {name: _mean(results[name], ("iteration", "layer")) for name in _PANELS}
    made, places = _panels(means, "Stages of inference, layer by layer", subtitle, theme)
    colours = _theme.palette(theme)
    layers = results["layer"].values
    iterations = results["iteration"].values
    loops = len(iterations) > 1
    x = iterations[:, None] + np.arange(len(layers)) / len(layers) if loops else layers[None]
    marked = len(layers) if len(layers) <= _MOST_MARKED else 0
    by_layer = marked > 1 and x.size > _MOST_JOINED  # joined in order, they fill the panel
    uniform = {"concentration": 0.0, "mixing": _mean(results["mixing_baseline"], ()).item()}
    for name, place in places.items():
        values = means[name]
        if not by_layer:
            made.add_trace(
                go.Scatter(
                    x=x.ravel(),
                    y=values.ravel(),
                    mode="lines",
                    line={"color": colours.muted, "width": 1.2},
                    showlegend=False,
                    hoverinfo="skip" if marked else None,
                    hovertemplate=f"{'iteration' if loops else 'layer'} %{{x:.2f}}<br>"
                    "%{y:.4g}<extra></extra>",
                ),
                **place,
            )
        for row in range(marked):
            colour = colours.categories[row % len(colours.categories)]
            made.add_trace(
                go.Scatter(
                    x=x[:, row],
                    y=values[:, row],
                    customdata=iterations,
                    name=f"after layer {layers[row]}",
                    legendgroup=f"layer {layers[row]}",
                    showlegend=name == next(iter(places)) and len(layers) > 1,
                    mode="lines+markers" if by_layer else "markers",
                    line={"color": colour, "width": 1.2},
                    marker={
                        "color": colour,
                        "symbol": _theme.TOKEN_SYMBOLS[row % len(_theme.TOKEN_SYMBOLS)],
                        "size": 5 if by_layer else 6,
                    },
                    hovertemplate=f"iteration %{{customdata}}, after layer {layers[row]}<br>"
                    "%{y:.4g}<extra></extra>",
                ),
                **place,
            )
        if np.isfinite(uniform.get(name, np.nan)):
            _dotted(made, uniform[name], colours, place)
    for place in places.values() if loops else ():
        subplot = made.get_subplot(**place)
        _marks.add_line(made, iteration, colours, x=subplot.yaxis.anchor, y=subplot.xaxis.anchor)
    between = " (its layers up to the next)" if len(layers) > 1 else ""
    _name_depth(made, places, f"iteration{between}" if loops else "layer")
    if not any(trace.showlegend for trace in made.data):
        made.update_layout(height=made.layout.height - 50, margin={"b": 50})
    return made


def compare_stages(
    run: Any, feed_forward: Any, loops: int | None = None, *, theme: str = "light"
) -> _theme.Figure:
    """Show the stages of a looped model beside those of a feed-forward model.

    Parameters
    ----------
    run, feed_forward : looplens.Run
        A looped model, and one that runs once, recorded on the same prompts.
    loops : int or None
        How many loops; see :func:`looplens.analysis.compare_stages`, whose errors apply.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        One panel a stage, over the depth; thin vertical lines are the ends of loops.
    """
    found = analysis.compare_stages(run, feed_forward, loops=loops)
    names = (_labels.escape(str(one.model_name)) for one in (run, feed_forward))
    return compare_stages_figure(found, names=tuple(names), theme=theme)


def compare_stages_figure(
    found: xr.Dataset, *, names: tuple[str, ...], theme: str = "light"
) -> _theme.Figure:
    """Draw the dataset of :func:`looplens.analysis.compare_stages`.

    Parameters
    ----------
    found : Dataset
        ``looped`` (stage, iteration, layer), ``feed_forward`` (stage, depth) and the coordinates.
    names : tuple of two str
        What the looped and the feed-forward model are called.
    theme : str
        Template.
    """
    colours = _theme.palette(theme)
    depth, other_depth = found.attrs["depth"], found.attrs["feed_forward_depth"]
    equal = depth == other_depth
    means = {str(name): found["looped"].sel(stage=name).values for name in found["stage"].values}
    compared = "equal depth" if equal else f"{depth} and {other_depth} layers, stretched"
    subtitle = f"{names[0]} · {names[1]} · {found.attrs['prompts']} prompts · {compared}"
    made, places = _panels(means, "Stages of a loop and of a feed-forward model", subtitle, theme)
    # Relative depths are those of the middles of layers, as in the comparison.
    unit, other_unit, middle = (1, 1, 0.0) if equal else (depth, other_depth, 0.5)
    x = (found["looped_depth"].values + middle) / unit
    per_loop = depth / found["iteration"].values[-1]
    ends = (found["iteration"].values[:-1] * per_loop - 0.5 + middle) / unit
    for name, place in places.items():
        first = name == next(iter(places))
        for values, at, label, style in (
            (means[name].ravel(), x.ravel(), f"{names[0]} (loops)", ("solid", "circle")),
            (
                found["feed_forward"].sel(stage=name).values,
                (found["depth"].values + middle) / other_unit,
                f"{names[1]} (feed-forward)",
                ("dash", "square-open"),
            ),
        ):
            made.add_trace(
                go.Scatter(
                    x=at,
                    y=values,
                    name=label,
                    legendgroup=label,
                    showlegend=first,
                    mode="lines+markers",
                    line={"color": colours.categories[style[0] == "dash"], "dash": style[0]},
                    marker={"symbol": style[1], "size": 6},
                    hovertemplate="depth %{x:.3g}<br>%{y:.4g}<extra></extra>",
                ),
                **place,
            )
        border = {"color": colours.axis, "width": 1, "dash": "dot"}
        for end in ends if len(ends) <= _MOST_BORDERS else ():
            made.add_vline(end, line=border, layer="below", **place)
    _name_depth(made, places, "layer, counted through the loops" if equal else "relative depth")
    return made


def _name_depth(made: _theme.Figure, places: dict[str, dict[str, int]], words: str) -> None:
    """Write what the horizontal axis is under the lowest panels."""
    for axis in made.select_xaxes(row=max(place["row"] for place in places.values())):
        axis.title.text = words


def _panels(
    means: dict[str, np.ndarray], title: str, subtitle: str, theme: str
) -> tuple[_theme.Figure, dict[str, dict[str, int]]]:
    """Start a figure with a panel for every stage that is known."""
    known = [name for name in _PANELS if np.isfinite(means[name]).any()]
    if not known:
        raise AnalysisError("No stage could be measured: the recording holds no finite number.")
    columns = min(2, len(known))
    rows = -(-len(known) // columns)
    made = _theme.figure(title=title, subtitle=subtitle, theme=theme, height=150 + 220 * rows)
    make_subplots(
        rows=rows,
        cols=columns,
        horizontal_spacing=0.1,
        vertical_spacing=0.36 / rows,
        subplot_titles=[_PANELS[name] for name in known],
        figure=made,
    )
    made.update_annotations(font={"size": 13})
    made.update_layout(
        legend={"orientation": "h", "x": 0, "y": -0.26 / rows, "yanchor": "top"},
        margin={"t": 104, "b": 100},
    )
    places = {
        name: {"row": place // columns + 1, "col": place % columns + 1}
        for place, name in enumerate(known)
    }
    if "sink_rate" in places:
        made.update_yaxes(range=[-0.04, 1.04], tickformat=".0%", **places["sink_rate"])
    return made, places


def _mean(values: xr.DataArray, kept: tuple[str, ...]) -> np.ndarray:
    over = [dim for dim in values.dims if dim not in kept]
    return values.mean(over).transpose(*kept).values


def _dotted(
    made: _theme.Figure, level: float, colours: _theme.Palette, place: dict[str, int]
) -> None:
    made.add_hline(level, line={"color": colours.text, "width": 1, "dash": "dot"}, **place)
