"""How far tokens move in each iteration, and how far they still are from their limits.

Above, relative steps with the noise floor of each token and the tolerance under which a token
counts as settled; below, the distance to the limit. The numbers are those of the analyses
``convergence`` and ``classify``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from looplens import analysis
from looplens.errors import AnalysisError
from looplens.plots import _labels, _marks, _paths, _select, _theme

_MOST = 12  # tokens; more curves cannot be told apart
_SETTLES = "settles"


def steps(
    run: Any,
    tokens: int | Iterable[int],
    restart: int = 0,
    layer: int | None = None,
    *,
    iteration: int | None = None,
    theme: str = "light",
) -> _theme.Figure:
    """Show the steps of some tokens over the iterations, and their distances to their limits.

    Parameters
    ----------
    run : looplens.Run
        The opened run.
    tokens : int or iterable of int
        Global token numbers. Of many, evenly spaced ones are drawn and the subtitle says so.
    restart : int
        Which draw of the initial state.
    layer : int or None
        States after this core layer, or None for the loop state. Only the latter has distances to
        the limit and noise floors.
    iteration : int or None
        Where the cursor stands; None keeps it out of sight.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        Curves on logarithmic axes. A large mark stands where a token settles: from there on all
        of its steps are below the tolerance, the dashed line. Dotted lines are noise floors.

    Raises
    ------
    InputError
        If a token, the restart or the layer does not exist.
    AnalysisError
        If the run does not keep all iterations, or does not hold the layer.
    """
    chosen, restart = _select.tokens(run, tokens), _select.restart(run, restart)
    layer = _select.layer(run, layer)
    shown = _paths.spaced(chosen, _MOST)
    place: dict[str, Any] = {"restart": restart, "token": shown}
    results = analysis.get(run, "convergence")
    if layer is None:
        found = results[["relative_step", "distance_to_limit", "settling_iteration"]].isel(place)
        found = found.assign(floor=analysis.get(run, "classify")["floor"].isel(place))
    else:
        if "layer_relative_step" not in results:
            raise AnalysisError(
                "The stored steps of this run are not of layers. Run `looplens analyze` again."
            )
        found = results[["layer_relative_step", "layer_settling_iteration"]].sel(layer=layer)
        found = found.isel(place).rename(
            layer_relative_step="relative_step", layer_settling_iteration="settling_iteration"
        )
    return steps_figure(
        found,
        labels=_labels.token_labels(run, shown, position=True),
        iteration=iteration,
        subtitle=_labels.subtitle(
            run,
            _prompts(run, shown),
            f"restart {restart}",
            "loop state" if layer is None else f"layer {layer}",
            f"{len(shown)} of {len(chosen)} tokens are drawn" if len(shown) < len(chosen) else "",
        ),
        theme=theme,
    )


def _prompts(run: Any, tokens: Sequence[int]) -> str:
    prompts = {int(number) for number in run.tokens["prompt"].values[list(tokens)]}
    return f"prompt {min(prompts)}" if len(prompts) == 1 else f"{len(prompts)} prompts"


def steps_figure(
    found: xr.Dataset,
    *,
    labels: Sequence[str],
    iteration: int | None = None,
    subtitle: str = "",
    theme: str = "light",
) -> _theme.Figure:
    """Draw steps and distances.

    Parameters
    ----------
    found : Dataset
        ``relative_step`` (token, iteration) and ``settling_iteration`` (token), its attribute
        ``tolerance`` being the step under which a token counts as settled; where they are known,
        ``distance_to_limit`` (token, iteration) and ``floor`` (token).
    labels : sequence of str
        One a token.
    iteration, subtitle, theme
        See :func:`steps`.
    """
    colours = _theme.palette(theme)
    found = found.transpose("token", ...)
    settling = found["settling_iteration"]
    tolerance = float(settling.attrs.get("tolerance", np.nan))
    settled = np.asarray(settling.values, dtype=np.float64)
    limits = "distance_to_limit" in found
    made = _theme.figure(
        title="Step size" if not limits else "Step size and distance to the limit",
        subtitle="<br>".join(filter(None, (subtitle, _in_words(settled, tolerance)))),
        theme=theme,
        height=520 if limits else 380,
    )
    make_subplots(rows=1 + limits, cols=1, shared_xaxes=True, vertical_spacing=0.07, figure=made)
    iterations = found["iteration"].values
    relative = _positive(found["relative_step"].values)
    _add_curves(made, 1, iterations, relative, found, labels, colours, "relative step")
    shown = [relative]
    if limits:
        away = _positive(found["distance_to_limit"].values)
        _add_curves(made, 2, iterations, away, found, labels, colours, "distance to the limit")
        made.update_yaxes(title="distance / |limit|", **_labels.log_axis(away), row=2, col=1)
    _add_settling(made, iterations, relative, settled, colours)
    if np.isfinite(tolerance):
        shown.append(np.array([tolerance]))
        _add_level(made, iterations, tolerance, f"tolerance {tolerance:g}", colours.muted, "dash")
    if "floor" in found:
        floors = _positive(found["floor"].values)
        shown.append(floors)
        for row, floor in enumerate(floors):
            if np.isfinite(floor):
                colour = colours.categories[row % len(colours.categories)]
                _add_level(made, iterations, floor, "noise floor", colour, "dot", first=row == 0)
    made.update_yaxes(title="step / |state|", **_labels.log_axis(*shown), row=1, col=1)
    last = float(iterations[-1])
    made.update_xaxes(range=[float(iterations[0]) - 0.5, last + 0.5])
    made.update_xaxes(title="iteration", row=1 + limits, col=1)
    for axis in ("", "2")[: 1 + limits]:
        _marks.add_line(made, iteration, colours, axis=axis)
    _paths.legend_above(made)
    return made


def _positive(values: np.ndarray) -> np.ndarray:
    """Leave a gap at an exact zero, for which a logarithmic axis has no place."""
    values = np.asarray(values, dtype=np.float64)
    return np.where(values > 0, values, np.nan)


def _in_words(settled: np.ndarray, tolerance: float) -> str:
    """Say when one token settles, or how many of several do."""
    if not np.isfinite(tolerance):
        return ""
    below = f"all steps below {tolerance:g}"
    if settled.size == 1:
        at = float(settled[0])
        return (
            f"settles at iteration {at:g}: from there on {below}"
            if at == at
            else (f"never settles: the last step is not below {tolerance:g}")
        )
    return f"{int(np.isfinite(settled).sum())} of {settled.size} settle ({below} from there on)"


def _add_curves(
    made: _theme.Figure,
    row: int,
    iterations: np.ndarray,
    curves: np.ndarray,
    found: xr.Dataset,
    labels: Sequence[str],
    colours: _theme.Palette,
    what: str,
) -> None:
    """Draw one curve a token in one of the two panels."""
    for number, (token, label) in enumerate(zip(found["token"].values, labels, strict=True)):
        made.add_trace(
            go.Scatter(
                x=iterations,
                y=curves[number],
                name=label,
                legendgroup=str(token),
                showlegend=row == 1,
                mode="lines+markers" if len(iterations) <= 160 else "lines",
                line={"color": colours.categories[number % len(colours.categories)], "width": 1.5},
                marker={
                    "size": 5,
                    "symbol": _theme.TOKEN_SYMBOLS[number % len(_theme.TOKEN_SYMBOLS)],
                },
                hovertemplate=f"{label}<br>iteration %{{x}}<br>{what} %{{y:.3g}}<extra></extra>",
                meta={"role": "steps", "token": int(token)},
            ),
            row=row,
            col=1,
        )


def _add_settling(
    made: _theme.Figure,
    iterations: np.ndarray,
    curves: np.ndarray,
    settled: np.ndarray,
    colours: _theme.Palette,
) -> None:
    """Mark on the curves where the tokens settle."""
    rows = np.flatnonzero(np.isfinite(settled))
    if not rows.size:
        return
    columns = np.searchsorted(iterations, settled[rows])
    made.add_trace(
        go.Scatter(
            x=settled[rows],
            y=curves[rows, columns],
            name=_SETTLES,
            mode="markers",
            marker={
                "symbol": "diamond-open",
                "size": 13,
                "color": colours.text,
                "line": {"width": 2, "color": colours.text},
            },
            hovertemplate="settles at iteration %{x}<extra></extra>",
            meta={"role": _SETTLES},
        ),
        row=1,
        col=1,
    )


def _add_level(
    made: _theme.Figure,
    iterations: np.ndarray,
    height: float,
    name: str,
    colour: str,
    dash: str,
    *,
    first: bool = True,
) -> None:
    """Draw a horizontal line through the upper panel."""
    made.add_trace(
        go.Scatter(
            x=[iterations[0] - 0.5, iterations[-1] + 0.5],
            y=[height, height],
            name=name,
            legendgroup=name,
            showlegend=first,
            mode="lines",
            line={"color": colour, "width": 1.5, "dash": dash},
            hovertemplate=f"{name}: %{{y:.3g}}<extra></extra>",
            meta={"role": name.split(" ")[0]},
        ),
        row=1,
        col=1,
    )
