"""The page Compare."""

from __future__ import annotations

from looplens_dashboard.panels.panel import Page

PAGE = Page(name="compare", title="Compare", panels=())
