"""Figures of a run, one a file, each returned as a plotly figure.

Every function takes an opened run, fetches what it needs from :mod:`looplens.analysis` (computing
it in memory when the run does not hold it yet) and draws it. Beside each stands a ``..._figure``
function that draws labelled arrays and needs no run. A figure never computes a number of its own.
:func:`loop_span` alone draws no run but a result of :func:`looplens.analysis.choose_loop_span`.

Figures are :class:`Figure` objects, which carry :data:`CONFIG` wherever they are shown; pass it
to ``dcc.Graph(config=plots.CONFIG)`` in Dash.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from looplens.plots._attention import attention, attention_change, attention_figure
from looplens.plots._convergence_heatmap import (
    convergence_heatmap,
    convergence_heatmap_figure,
)
from looplens.plots._cycle import cycle, cycle_figure
from looplens.plots._loop_span import loop_span
from looplens.plots._marks import CURSOR
from looplens.plots._readout import readout, readout_figure
from looplens.plots._regimes import regime_examples, regimes, regimes_figure
from looplens.plots._restarts import restarts, restarts_figure
from looplens.plots._settling import settling, settling_figure
from looplens.plots._theme import CONFIG, PALETTES, REGIMES, Figure, Palette, RegimeStyle, palette
from looplens.plots._trajectory import trajectory, trajectory_figure

FIGURES: dict[str, Callable[..., Any]] = {
    "convergence_heatmap": convergence_heatmap,
    "trajectory": trajectory,
    "restarts": restarts,
    "cycle": cycle,
    "attention": attention,
    "attention_change": attention_change,
    "regimes": regimes,
    "readout": readout,
    "settling": settling,
}
"""Every figure of a run, by name."""

__all__ = [
    "CONFIG",
    "CURSOR",
    "FIGURES",
    "PALETTES",
    "REGIMES",
    "Figure",
    "Palette",
    "RegimeStyle",
    "attention",
    "attention_change",
    "attention_figure",
    "convergence_heatmap",
    "convergence_heatmap_figure",
    "cycle",
    "cycle_figure",
    "loop_span",
    "palette",
    "readout",
    "readout_figure",
    "regime_examples",
    "regimes",
    "regimes_figure",
    "restarts",
    "restarts_figure",
    "settling",
    "settling_figure",
    "trajectory",
    "trajectory_figure",
]
