"""The pages in the order of the navigation; a new panel is one declaration in its page's file."""

from __future__ import annotations

from looplens_dashboard.pages import (
    compare,
    dynamics,
    layers,
    live,
    overview,
    readout,
    restarts,
    strip,
    trajectories,
)
from looplens_dashboard.panels.panel import Page, Panel
from looplens_dashboard.selection import Choice

PAGES: tuple[Page, ...] = (
    overview.PAGE,
    trajectories.PAGE,
    restarts.PAGE,
    layers.PAGE,
    readout.PAGE,
    dynamics.PAGE,
    compare.PAGE,
    live.PAGE,
)
"""Every page of the app."""

BAR: tuple[Panel, ...] = (strip.PANEL,)
"""Panels that stay in sight on every page of a run."""


def panels() -> dict[str, Panel]:
    """Return every panel by its name."""
    found: dict[str, Panel] = {}
    for panel in (*BAR, *(panel for page in PAGES for panel in page.panels)):
        if found.setdefault(panel.name, panel) is not panel:
            raise ValueError(f"two panels are called {panel.name!r}")
    return found


def choices() -> dict[str, Choice]:
    """Return every choice of the panels by its name."""
    found: dict[str, Choice] = {}
    for panel in panels().values():
        for choice in panel.choices:
            if found.setdefault(choice.name, choice) is not choice:
                raise ValueError(f"two choices are called {choice.name!r}: share one, or rename it")
    return found
