"""Maps over virtual depth: every layer of every iteration against every other one.

The states, the attention of a prompt, and how much the band at an offset of one iteration stands
out. All of it is the analysis ``similarity``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from looplens import analysis
from looplens.errors import AnalysisError, InputError, near_matches
from looplens.plots import _heatmap, _labels, _marks, _select, _theme

QUANTITIES: dict[str, tuple[str, str]] = {
    "distance": ("state_distance", "distance / norm"),
    "cosine": ("state_cosine", "cosine"),
}
"""What the left map can show: variable and words."""

_MOST_TICKS = 8


def similarity(
    run: Any,
    prompt: int | None = None,
    *,
    quantity: str = "distance",
    iteration: int | None = None,
    theme: str = "light",
) -> _theme.Figure:
    """Compare all layers of all iterations of a prompt with each other.

    Parameters
    ----------
    run : looplens.Run
        A run with ``resid_post``; attention is shown where it was recorded.
    prompt : int or None
        Prompt number; None for the first one that has a map.
    quantity : {"distance", "cosine"}
        What the map of the states shows: the relative distance, with logarithmic colour, or the
        mean cosine.
    iteration : int or None
        Where the cursor stands, at the first layer of the iteration; None keeps it out of sight.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        Two maps, and beside them the contrast of the band by iteration (with two layers or more).

    Raises
    ------
    InputError
        If the prompt or the quantity does not exist.
    AnalysisError
        If the run holds no states after layers, or the prompt has no map.

    References
    ----------
    Blayney et al., arXiv 2604.11791, figures 2, 19, 20 and 21, as summarised in public notes; paper
    text not read.
    """
    if quantity not in QUANTITIES:
        raise InputError(
            f"quantity must be one of {', '.join(map(repr, QUANTITIES))}, got {quantity!r}."
            f"{near_matches(str(quantity), QUANTITIES)}"
        )
    found = analysis.get(run, "similarity")
    mapped = [int(number) for number in found["prompt"].values]
    prompt = _select.prompt(run, prompt if prompt is not None else mapped[0] if mapped else 0)
    if prompt not in mapped:
        raise AnalysisError(
            f"Prompt {prompt} has no map (mapped: {_select.listed(mapped) or 'none'}). Make more "
            "with run.analyze('similarity', map_prompts=...)."
        )
    restart = int(found.attrs["map_restart"])
    return similarity_figure(
        found.sel(prompt=prompt),
        layers=len(run.recorded_layers),
        quantity=quantity,
        iteration=iteration,
        subtitle=_labels.subtitle(run, f"prompt {prompt}", f"restart {restart}"),
        theme=theme,
    )


def similarity_figure(
    maps: xr.Dataset,
    *,
    layers: int,
    quantity: str = "distance",
    iteration: int | None = None,
    subtitle: str = "",
    theme: str = "light",
) -> _theme.Figure:
    """Draw the maps of one prompt.

    Parameters
    ----------
    maps : Dataset
        Of one prompt, with the variables of the analysis ``similarity``.
    layers : int
        How many layers an iteration has.
    quantity : {"distance", "cosine"}
        What the map of the states shows.
    iteration : int or None
        Where the cursor stands.
    subtitle, theme : str
        Words and template.
    """
    banded = layers > 1
    made = _theme.figure(
        title="Similarity over virtual depth",
        subtitle=subtitle,
        theme=theme,
        height=430,
    )
    make_subplots(
        rows=1,
        cols=2 + banded,
        column_widths=[0.34, 0.34, 0.32] if banded else None,
        horizontal_spacing=0.12,
        subplot_titles=[
            f"states: {QUANTITIES[quantity][1]}",
            "attention: distance",
            *([f"band, {_offset(maps)} on"] if banded else []),
        ],
        figure=made,
    )
    states = maps[QUANTITIES[quantity][0]]
    _add_map(made, states, 1, theme, logarithmic=quantity == "distance")
    _add_map(made, maps["attention_distance"], 2, theme, logarithmic=True)
    if banded:
        _add_contrast(made, maps, theme)
    for axis in ("", "2", "3")[: 2 + banded]:
        _marks.add_line(made, iteration, _theme.palette(theme), x=f"x{axis}", y=f"y{axis}")
    for title in made.layout.annotations:
        title.font = {"size": 13, "color": _theme.palette(theme).text}
    made.update_layout(margin={"t": 96, "b": 84})
    return made


def _offset(maps: xr.Dataset) -> str:
    """Say how far on the band is: one iteration, or more where they are thinned."""
    step = int(np.diff(np.unique(maps["depth_iteration"].values)).max(initial=1))
    return "one iteration" if step == 1 else f"{step} iterations"


def _add_map(
    made: _theme.Figure,
    values: xr.DataArray,
    column: int,
    theme: str,
    *,
    logarithmic: bool,
) -> None:
    """Draw one map; near is dark, as a settled state is in the other figures."""
    colours = _theme.palette(theme)
    numbers = values.values.astype(np.float64)
    across = made.layout["xaxis" if column == 1 else "xaxis2"].domain
    low, high = made.layout.yaxis.domain
    drawn, scale = (_logarithmic if logarithmic else _linear)(numbers, colours)
    scale["colorbar"] |= {"x": across[1], "xpad": 4}
    scale["colorbar"] |= {"y": high, "yanchor": "top", "len": float(high) - float(low)}
    iteration, layer = values["depth_iteration"].values, values["depth_layer"].values
    kept = np.unique(iteration)
    step = int(np.diff(kept).max(initial=1))
    lowest, layers = int(layer[0]), len(np.unique(layer))
    # An iteration takes as much room as there is to the next: its first layer lies at its number.
    place = iteration + step * (np.arange(len(layer)) % layers) / layers
    made.add_trace(
        go.Heatmap(
            name="states" if column == 1 else "attention",
            z=drawn.astype(np.float32),
            x=place,
            y=place,
            customdata=numbers.astype(np.float32),
            hovertemplate=f"iteration + layer / {layers}: %{{y:.4~g}} and %{{x:.4~g}}<br>"
            "%{customdata:.3g}<extra></extra>",
            hoverongaps=False,
            **scale,
        ),
        row=1,
        col=column,
    )
    first = kept[:: max(1, -(-len(kept) // _MOST_TICKS))]
    half = step / layers / 2
    shared = {"tickvals": first.tolist(), "showgrid": False, "constrain": "domain"}
    ends = [place[0] - half, place[-1] + half]
    words = f"iteration, at its layer {lowest}" if layers > 1 else "iteration"
    made.update_xaxes(title=words, range=ends, row=1, col=column, **shared)
    made.update_yaxes(range=ends[::-1], row=1, col=column, **shared)
    made.update_yaxes(scaleanchor="x" if column == 1 else "x2", row=1, col=column)
    made.update_yaxes(title="iteration", row=1, col=1)
    if not np.isfinite(numbers).any():
        made.add_annotation(
            text="not recorded for this prompt",
            showarrow=False,
            xref="x2 domain",
            yref="y2 domain",
            x=0.5,
            y=0.5,
            font={"color": colours.muted},
        )


def _logarithmic(numbers: np.ndarray, colours: _theme.Palette) -> tuple[np.ndarray, dict[str, Any]]:
    """Return what is drawn of distances, and its colours."""
    # A map lies at no distance from itself; that is no smallest value of the others.
    apart = np.where(np.eye(len(numbers), dtype=bool), np.nan, numbers)
    drawn = _heatmap.log_values(apart)
    known = drawn[np.isfinite(drawn)]
    low, high = (float(known.min()), float(known.max())) if known.size else (-1.0, 0.0)
    if high - low < 1:  # less than a decade: widen it, so that the colour bar has ticks
        low, high = float(np.floor(low)), float(np.ceil(high + 1e-9))
    positions, texts = _labels.decade_ticks(low, high)
    return drawn, {
        "zmin": low,
        "zmax": high,
        "colorscale": [list(stop) for stop in colours.sequential],
        "colorbar": {"tickvals": positions, "ticktext": texts},
    }


def _linear(numbers: np.ndarray, colours: _theme.Palette) -> tuple[np.ndarray, dict[str, Any]]:
    """Return cosines and their colours: near is dark here too."""
    known = numbers[np.isfinite(numbers)]
    backwards = [[1 - stop, colour] for stop, colour in reversed(colours.sequential)]
    return numbers, {
        "zmin": float(min(known.min(), 0.9)) if known.size else 0.0,
        "zmax": 1.0,
        "colorscale": backwards,
        "colorbar": {},
    }


def _add_contrast(made: _theme.Figure, maps: xr.Dataset, theme: str) -> None:
    colours = _theme.palette(theme)
    for place, (what, dash, symbol) in enumerate(
        (("state", "solid", "circle"), ("attention", "dash", "square"))
    ):
        values = maps[f"{what}_contrast"]
        if np.isfinite(values.values).any():
            made.add_trace(
                go.Scatter(
                    name="states" if what == "state" else what,
                    x=values["iteration"].values,
                    y=values.values,
                    mode="lines+markers",
                    line={"color": colours.categories[place], "dash": dash, "width": 2},
                    marker={"symbol": symbol, "size": 5},
                    hovertemplate=f"{what}<br>iteration %{{x}}<br>%{{y:.3f}}<extra></extra>",
                ),
                row=1,
                col=3,
            )
    made.update_xaxes(title="iteration", row=1, col=3)
    made.update_yaxes(title="contrast", range=[-0.1, 1.1], row=1, col=3)
    made.update_layout(
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": -0.2, "yanchor": "top"}
    )
