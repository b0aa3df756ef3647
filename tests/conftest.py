"""What several rooms of the tests share: a synthetic run, and one headless browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from looplens.testing import synthetic_run

NO_BROWSER = (
    "No Chromium was found for the browser tests. Install it (Debian: apt-get install chromium) or "
    "set LOOPLENS_CHROMIUM to a Chromium or Chrome binary."
)


@pytest.fixture(scope="session")
def synthetic_run_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run with known regimes. Shared by all tests: read it, do not change it."""
    return synthetic_run(tmp_path_factory.mktemp("runs") / "synthetic")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Open a headless Chromium, once: the sync API of Playwright cannot be started twice.

    Without a Chromium, skip, or fail where everything has to run.
    """
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("LOOPLENS_CHROMIUM") or next(
        filter(None, map(shutil.which, names)), None
    )
    if found is None:
        pytest.fail(NO_BROWSER) if os.environ.get("CI") else pytest.skip(NO_BROWSER)
    from playwright.sync_api import sync_playwright

    options = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(options))
        yield browser.new_context(viewport={"width": 1280, "height": 1700})
        browser.close()
