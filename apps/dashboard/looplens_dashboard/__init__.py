"""The looplens dashboard: scrub iterations, click tokens, compare restarts of recorded runs.

A thin shell: every number comes from ``looplens.analysis``, every figure from ``looplens.plots``.
It needs no torch, no model and no network.
"""

from __future__ import annotations

from typing import Any

__all__ = ["create_app", "launch", "serve", "show"]


def __getattr__(name: str) -> Any:
    """Import the app when it is asked for: its parts can be used without the page."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from looplens_dashboard import starting

    return getattr(starting, name)
