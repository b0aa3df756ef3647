"""The panels in the order of the page. A new one is one new file, and one line here."""

from __future__ import annotations

from looplens_dashboard.panels import (
    analyses,
    attention,
    heatmap,
    numbers,
    overview,
    readout,
    restarts,
    steps,
    strip,
    trajectory,
)
from looplens_dashboard.panels.frame import Panel

PANELS: tuple[Panel, ...] = (
    overview.PANEL,
    strip.PANEL,
    heatmap.PANEL,
    trajectory.PANEL,
    steps.PANEL,
    restarts.PANEL,
    attention.PANEL,
    readout.PANEL,
    analyses.PANEL,
    numbers.PANEL,
)
"""Every panel of the dashboard; the grid of ``assets/page.css`` places each by its name."""
