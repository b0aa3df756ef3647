"""docs/app.md says what there is: every panel, every key, a picture of every page."""

from __future__ import annotations

import runpy
from pathlib import Path

from looplens_dashboard import pages
from looplens_dashboard.shell.layout import KEYS

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_on_the_app_lists_every_panel_key_and_picture() -> None:
    text = (DOCS / "app.md").read_text(encoding="utf-8")
    tables = runpy.run_path(str(DOCS / "list_panels.py"))["tables"]()
    assert tables in text, "python docs/list_panels.py writes the tables anew"
    for keys, _ in KEYS:
        assert f"| {keys} |" in text
    for page in pages.PAGES:
        for theme in ("light", "dark"):
            assert (DOCS / "images" / f"app-{page.name}-{theme}.png").is_file()
