"""The looplens dashboard: scrub iterations, click tokens, compare restarts of recorded runs.

A thin shell: every number comes from ``looplens.analysis``, every figure from ``looplens.plots``.
It needs no torch, no model and no network.
"""

from __future__ import annotations

import importlib
from typing import Any

_NAMES = {
    "create_app": "looplens_dashboard.app",
    "launch": "looplens_dashboard.starting",
    "panel": "looplens_dashboard.as_function",
    "panel_names": "looplens_dashboard.as_function",
    "serve": "looplens_dashboard.starting",
    "show": "looplens_dashboard.starting",
}

__all__ = ["create_app", "launch", "panel", "panel_names", "serve", "show"]


def __getattr__(name: str) -> Any:
    """Import the app when it is asked for: its parts can be used without the page."""
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_NAMES[name]), name)
