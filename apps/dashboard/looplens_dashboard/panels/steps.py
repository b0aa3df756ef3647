"""How far the selected token moves in each iteration, and how far it is from its limit."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from looplens import plots
from looplens.errors import AnalysisError
from looplens_dashboard.panels.frame import add_cursor, figure_panel
from looplens_dashboard.selection import Selection
from looplens_dashboard.view import View


def make(view: View, selection: Selection) -> go.Figure:
    """Draw the curves of the token; the line at the selected iteration is moved by the browser."""
    results = view.results("convergence")
    chosen = {"restart": selection.restart, "token": selection.token}
    if selection.layer is None:
        curves = [
            (results["relative_step"].isel(chosen), "step", "solid"),
            (results["distance_to_limit"].isel(chosen), "distance to the limit", "dot"),
        ]
        settled = results["settling_iteration"].isel(chosen)
    elif "layer_relative_step" not in results:
        raise AnalysisError(
            "This run holds no states after each layer. Record with sites=('resid_post',), "
            "or choose the loop state."
        )
    else:
        results = results.sel(layer=selection.layer)
        curves = [(results["layer_relative_step"].isel(chosen), "step", "solid")]
        settled = results["layer_settling_iteration"].isel(chosen)
    figure = _draw(curves, selection.theme)
    tolerance = settled.attrs.get("tolerance")
    if isinstance(tolerance, int | float):
        _add_tolerance(figure, float(tolerance), float(settled), selection.theme)
    _set_range(figure, tolerance)
    shown = "loop state" if selection.layer is None else f"after layer {selection.layer}"
    parts = (
        view.run.model_name,
        f"prompt {selection.prompt}",
        f"restart {selection.restart}",
        shown,
    )
    figure.update_layout(title_subtitle_text=" · ".join(parts))
    add_cursor(figure, selection)
    return figure


def _draw(curves: list[tuple[xr.DataArray, str, str]], theme: str) -> go.Figure:
    colours = plots.palette(theme)
    axis = {
        "gridcolor": colours.grid,
        "linecolor": colours.axis,
        "showline": True,
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": colours.axis,
        "automargin": True,
    }
    figure = plots.Figure()
    figure.update_layout(
        template="none",
        font={"size": 12, "color": colours.text},
        plot_bgcolor=colours.paper,
        xaxis={**axis, "title": {"text": "iteration", "font": {"size": 13}}},
        yaxis={
            **axis,
            "title": {"text": "relative to the state", "font": {"size": 13}},
            "type": "log",
            "exponentformat": "power",
            "tickfont": {"size": 10},  # powers are drawn a quarter larger
        },
        modebar={"remove": ["sendChartToCloud"], "bgcolor": "rgba(0,0,0,0)"},
    )
    for row, (values, name, dash) in enumerate(curves):
        figure.add_trace(
            go.Scatter(
                x=values["iteration"].values,
                # a logarithmic axis has no place for an exact 0
                y=np.where(values.values > 0, values.values, np.nan),
                name=name,
                mode="lines+markers",
                line={"color": colours.categories[row], "width": 2, "dash": dash},
                marker={"size": 4, "symbol": ("circle", "square")[row]},
                hovertemplate=f"iteration %{{x}}<br>{name} %{{y:.3g}}<extra></extra>",
            )
        )
    return figure


def _set_range(figure: go.Figure, tolerance: float | None) -> None:
    """Show all of the curves and the tolerance, with a tick at every power of ten that fits."""
    values = np.concatenate([np.asarray(trace.y, dtype=float) for trace in figure.data])
    shown = np.log10([*values[np.isfinite(values)], *([tolerance] if tolerance else [])])
    if shown.size:
        low, high = float(shown.min()) - 0.3, float(shown.max()) + 0.3
        figure.update_yaxes(range=[low, high], dtick=max(1, int(np.ceil((high - low) / 7))))


def _add_tolerance(figure: go.Figure, tolerance: float, settled: float, theme: str) -> None:
    """Draw the step below which a token counts as settled, and say when it settles."""
    settles = f"settles at iteration {settled:g}" if np.isfinite(settled) else "never settles"
    colours = plots.palette(theme)
    figure.add_hline(y=tolerance, line={"color": colours.muted, "width": 1, "dash": "dash"})
    figure.add_annotation(
        text=f"tolerance {tolerance:g}: {settles}",
        x=1,
        xref="x domain",
        xanchor="right",
        y=float(np.log10(tolerance)),  # annotations of a logarithmic axis lie at exponents
        yanchor="bottom",
        showarrow=False,
        bgcolor=colours.paper,
        opacity=0.85,
        font={"size": 12, "color": colours.muted},
    )


PANEL = figure_panel(
    name="steps",
    title="Step size",
    keys=("token", "restart", "layer", "theme"),
    make=make,
)
