"""The one place that decides how looplens figures look and what they may do.

It holds the figure class, the plotly configuration, the light and the dark template, the colours,
and the symbols and dashes that repeat what a colour says. It knows nothing of runs, analyses or
any particular figure.

plotly 7 shows a button that uploads the chart to a cloud service unless every call that
renders a figure says otherwise. Two independent measures keep it away:

* the template removes the button (``layout.modebar.remove``), which travels with the figure wherever
  it goes: ``plotly.io.show``, a JSON file, a Dash graph without a config;
* :class:`Figure` passes :data:`CONFIG` to every renderer and export that it owns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import plotly.graph_objects as go
import plotly.io

from looplens.errors import InputError, near_matches

Theme = Literal["light", "dark"]

CONFIG: dict[str, Any] = {
    "showSendToCloud": False,
    "displaylogo": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["sendChartToCloud", "lasso2d", "select2d", "autoScale2d"],
    "toImageButtonOptions": {"format": "png", "scale": 2},
}
"""Configuration of plotly.js for every looplens figure; pass it to ``dcc.Graph(config=...)``."""

REGIMES: tuple[str, ...] = ("fixed_point", "orbit", "slider", "unresolved")
"""The four regimes, in the order in which figures and tables list them."""

WEBGL_POINTS = 5000
"""Above this many points a scatter figure is drawn with WebGL instead of SVG."""

FONT_FAMILY = (
    "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RegimeStyle:
    """How one regime is drawn: a colour, and three ways to tell it without colour."""

    label: str
    colour: str
    symbol: str
    dash: str
    pattern: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Palette:
    """The colours of one theme."""

    paper: str
    text: str
    muted: str
    grid: str
    axis: str
    accent: str
    missing: str
    categories: tuple[str, ...]
    sequential: tuple[tuple[float, str], ...]
    from_paper: tuple[tuple[float, str], ...]
    regimes: Mapping[str, RegimeStyle]


def _regime_styles(fixed: str, orbit: str, slider: str, unresolved: str) -> dict[str, RegimeStyle]:
    return {
        "fixed_point": RegimeStyle(
            label="fixed point", colour=fixed, symbol="circle", dash="solid", pattern=""
        ),
        "orbit": RegimeStyle(
            label="orbit", colour=orbit, symbol="diamond", dash="dash", pattern="x"
        ),
        "slider": RegimeStyle(
            label="slider", colour=slider, symbol="triangle-right", dash="dashdot", pattern="/"
        ),
        "unresolved": RegimeStyle(
            label="unresolved", colour=unresolved, symbol="x-thin-open", dash="dot", pattern="."
        ),
    }


# Viridis without the end that vanishes into the background of the theme.
_VIRIDIS = ("#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58")
_LIGHT_SEQUENTIAL = tuple((i / 7, colour) for i, colour in enumerate(_VIRIDIS))
_DARK_SEQUENTIAL = tuple(
    (i / 6, colour)
    for i, colour in enumerate(
        ("#5b5fb0", "#3f7fb8", "#2a9aa5", "#2fb38f", "#5fc96e", "#aadc32", "#fde725")
    )
)

PALETTES: dict[str, Palette] = {
    "light": Palette(
        paper="#ffffff",
        text="#1f2430",
        muted="#5f6775",
        grid="#e6e8ec",
        axis="#9aa1ad",
        accent="#d55e00",
        missing="#f1f2f4",
        # Okabe and Ito (2008) without black and yellow, which vanish on one of the two papers.
        categories=("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"),
        sequential=_LIGHT_SEQUENTIAL,
        from_paper=((0, "#ffffff"), (0.35, "#8fc1e3"), (0.7, "#0072b2"), (1, "#06253f")),
        regimes=_regime_styles("#0072b2", "#d55e00", "#009e73", "#6b7280"),
    ),
    "dark": Palette(
        paper="#242424",
        text="#e6e8ec",
        muted="#a4abb8",
        grid="#3a3d42",
        axis="#70757f",
        accent="#e69f00",
        missing="#2f3135",
        categories=("#56b4e9", "#e69f00", "#2fc99a", "#e29ac3", "#f0e442", "#ff8c4d"),
        sequential=_DARK_SEQUENTIAL,
        from_paper=((0, "#242424"), (0.35, "#1f5f8b"), (0.7, "#56b4e9"), (1, "#f2faff")),
        regimes=_regime_styles("#56b4e9", "#e69f00", "#2fc99a", "#a4abb8"),
    ),
}

TOKEN_SYMBOLS: tuple[str, ...] = (
    "circle",
    "square",
    "diamond",
    "triangle-up",
    "cross",
    "triangle-down",
    "pentagon",
    "star",
)
"""Marker symbols that tell tokens or restarts apart; 3-D figures know only some of them."""

SYMBOLS_3D: tuple[str, ...] = ("circle", "square", "diamond", "cross", "x", "circle-open")


def palette(theme: str) -> Palette:
    """Return the colours of a theme.

    Parameters
    ----------
    theme : {"light", "dark"}
        Name of the theme.

    Raises
    ------
    InputError
        If there is no such theme.
    """
    if theme not in PALETTES:
        raise InputError(
            f"theme must be 'light' or 'dark', got {theme!r}.{near_matches(str(theme), PALETTES)}"
        )
    return PALETTES[theme]


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
            # The second line of defence against the upload button: it travels with the figure.
            "modebar": {"remove": ["sendChartToCloud"], "bgcolor": "rgba(0,0,0,0)"},
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
        return plotly.io.to_html(self, self._with_config({"config": config})["config"], *args, **kwargs)

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
        width=width,
        height=height,
    )
    return made

