"""The one place that decides how looplens figures look and what they may do.

It holds the figure class, the plotly configuration and the light and the dark template. It knows
nothing of runs or of any particular figure.

plotly 7 shows a button that uploads the chart to a cloud service unless every call that
renders a figure says otherwise. Two independent measures keep it away:

* the layout removes the button (``layout.modebar.remove``), which travels with the figure
  wherever it goes: ``plotly.io.show``, a JSON file, a Dash graph without a config;
* :class:`Figure` passes :data:`CONFIG` to every renderer and export that it owns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go
import plotly.io

from looplens.analysis import REGIMES
from looplens.plots._palette import (
    PALETTES,
    SYMBOLS_3D,
    TOKEN_SYMBOLS,
    Palette,
    RegimeStyle,
    palette,
)

__all__ = [
    "CONFIG",
    "PALETTES",
    "REGIMES",
    "SYMBOLS_3D",
    "TOKEN_SYMBOLS",
    "WEBGL_POINTS",
    "Figure",
    "Palette",
    "RegimeStyle",
    "figure",
    "palette",
]

_UPLOAD_BUTTON = "sendChartToCloud"
CONFIG: dict[str, Any] = {
    "showSendToCloud": False,
    "displaylogo": False,
    "responsive": True,
    "modeBarButtonsToRemove": [_UPLOAD_BUTTON, "lasso2d", "select2d", "autoScale2d"],
    "toImageButtonOptions": {"format": "png", "scale": 2},
}
"""Configuration of plotly.js for every looplens figure; pass it to ``dcc.Graph(config=...)``."""

WEBGL_POINTS = 5000
"""Above this many points a scatter figure is drawn with WebGL instead of SVG."""

FONT_FAMILY = (
    "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
)


def _template(colours: Palette) -> go.layout.Template:
    """Build the plotly template of one theme."""
    axis = {
        "showgrid": True,
        "gridcolor": colours.grid,
        "linecolor": colours.axis,
        "tickcolor": colours.axis,
        "showline": True,
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 4,
        "automargin": True,
        "title": {"standoff": 10, "font": {"size": 13}},
        "tickfont": {"size": 12},
    }
    scene_axis = {
        "backgroundcolor": colours.paper,
        "gridcolor": colours.grid,
        "linecolor": colours.axis,
        "zerolinecolor": colours.grid,
        "showbackground": True,
        "tickfont": {"size": 11},
        "title": {"font": {"size": 12}},
    }
    colourbar = {
        "outlinewidth": 0,
        "thickness": 14,
        "ticklen": 4,
        "tickfont": {"size": 12},
        "title": {"side": "right", "font": {"size": 13}},
    }
    return go.layout.Template(
        layout={
            "paper_bgcolor": colours.paper,
            "plot_bgcolor": colours.paper,
            "font": {"family": FONT_FAMILY, "size": 13, "color": colours.text},
            "title": {
                "x": 0,
                "xref": "container",
                "xanchor": "left",
                "y": 1,
                "yref": "container",
                "yanchor": "top",
                "pad": {"l": 16, "t": 14},
                "font": {"size": 17, "color": colours.text},
                "subtitle": {"font": {"size": 12, "color": colours.muted}},
            },
            "margin": {"l": 64, "r": 28, "t": 78, "b": 56},
            "colorway": list(colours.categories),
            "colorscale": {"sequential": [list(stop) for stop in colours.sequential]},
            "xaxis": axis,
            "yaxis": axis,
            "scene": {"xaxis": scene_axis, "yaxis": scene_axis, "zaxis": scene_axis},
            "legend": {"bgcolor": "rgba(0,0,0,0)", "font": {"size": 12}, "tracegroupgap": 2},
            "hoverlabel": {"font": {"family": FONT_FAMILY, "size": 12}, "align": "left"},
            "hovermode": "closest",
            "modebar": {"bgcolor": "rgba(0,0,0,0)"},
            "barcornerradius": 2,
        },
        data={
            "heatmap": [{"colorbar": colourbar}],
            "scatter": [{"marker": {"colorbar": colourbar}}],
            "scattergl": [{"marker": {"colorbar": colourbar}}],
            "scatter3d": [{"marker": {"colorbar": colourbar}}],
        },
    )


_TEMPLATES = {name: _template(colours) for name, colours in PALETTES.items()}


class Figure(go.Figure):
    """A plotly figure that takes :data:`CONFIG` along into every renderer and export."""

    @staticmethod
    def _with_config(options: dict[str, Any]) -> dict[str, Any]:
        """Lay the caller's config over ours, but never let the upload button back in."""
        chosen = {**CONFIG, **(options.pop("config", None) or {}), "showSendToCloud": False}
        return {**options, "config": chosen}

    def show(self, *args: Any, **kwargs: Any) -> None:
        """Show the figure with the default renderer; see ``plotly.graph_objects.Figure.show``."""
        plotly.io.show(self, *args, **self._with_config(kwargs))

    def to_html(self, config: Mapping[str, Any] | None = None, *args: Any, **kwargs: Any) -> str:
        """Return the figure as HTML; see ``plotly.graph_objects.Figure.to_html``."""
        return plotly.io.to_html(
            self, self._with_config({"config": config})["config"], *args, **kwargs
        )

    def write_html(
        self, file: Any, config: Mapping[str, Any] | None = None, *args: Any, **kwargs: Any
    ) -> None:
        """Write the figure to a file; see ``plotly.graph_objects.Figure.write_html``."""
        plotly.io.write_html(
            self, file, self._with_config({"config": config})["config"], *args, **kwargs
        )

    def _repr_mimebundle_(
        self, include: Any = None, exclude: Any = None, validate: bool = True, **kwargs: Any
    ) -> dict[str, Any]:
        return super()._repr_mimebundle_(include, exclude, validate, **self._with_config(kwargs))

    def _ipython_display_(self) -> None:
        if plotly.io.renderers.render_on_display and plotly.io.renderers.default:
            self.show()
        else:
            print(repr(self))


def figure(
    *,
    title: str,
    subtitle: str = "",
    theme: str = "light",
    width: int | None = None,
    height: int = 460,
) -> Figure:
    """Start a figure in the looplens style.

    Parameters
    ----------
    title : str
        What the figure shows.
    subtitle : str
        Of what: the run, prompt, restart and layer. Left out when empty.
    theme : {"light", "dark"}
        Which template.
    width, height : int
        In pixels. Without a width the figure fills what it is placed in.

    Returns
    -------
    Figure
        Empty, with the template, the title and the size set.

    Raises
    ------
    InputError
        If there is no such theme.
    """
    palette(theme)
    made = Figure()
    made.update_layout(
        template=_TEMPLATES[theme],
        title={"text": title, **({"subtitle": {"text": subtitle}} if subtitle else {})},
        modebar={"remove": [_UPLOAD_BUTTON]},
        width=width,
        height=height,
    )
    return made
