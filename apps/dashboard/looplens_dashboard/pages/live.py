"""The page Live."""

from __future__ import annotations

from looplens_dashboard.panels.panel import Page

PAGE = Page(name="live", title="Live", panels=(), of_run=False)
