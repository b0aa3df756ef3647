"""Take the pictures of the README from a recorded run: ``make docs`` (after ``make demo``).

The report and the dashboard are opened in headless Chromium and photographed as they are.
"""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

from looplens_dashboard import create_app
from looplens_dashboard.app import make_http_server
from playwright.sync_api import Browser, sync_playwright

import looplens

RUN = Path("runs/demo")
IMAGES = Path(__file__).parent / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


def photograph_report(browser: Browser, run: looplens.Run) -> None:
    """Photograph the first screens of the HTML report."""
    page = browser.new_page(viewport={"width": 1280, "height": 1700})
    page.goto(run.report(RUN.with_suffix(".html")).resolve().as_uri())
    page.wait_for_timeout(3000)
    page.screenshot(path=IMAGES / "report.png")


def photograph_dashboard(browser: Browser, run: looplens.Run) -> None:
    """Photograph the dashboard at the last token of the first prompt."""
    server = make_http_server(create_app(run), port=0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    token = run.token_range(0).stop - 1
    for theme in ("light", "dark"):
        page = browser.new_page(viewport={"width": 1440, "height": 1500})
        page.goto(
            f"http://127.0.0.1:{server.port}/?token={token}&iteration=7&head=mean&theme={theme}"
        )
        page.wait_for_selector("#readout-table tr")
        page.wait_for_timeout(3000)
        page.screenshot(path=IMAGES / f"dashboard-{theme}.png")
    server.shutdown()


def main() -> None:
    """Take all pictures."""
    found = [path for name in BROWSERS if (path := shutil.which(name))]
    executable = os.environ.get("LOOPLENS_CHROMIUM") or next(iter(found), None)
    IMAGES.mkdir(exist_ok=True)
    run = looplens.open_run(RUN)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=FLAGS)
        photograph_report(browser, run)
        photograph_dashboard(browser, run)
        browser.close()


if __name__ == "__main__":
    main()
