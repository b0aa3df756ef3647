"""Take the pictures of the README from a recorded run: ``make docs`` (after ``make demo``).

The report and the dashboard are opened in headless Chromium and photographed as they are. Figures
of the dynamics lab are drawn from the run that the README makes.
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
ORBIT = Path("runs/orbit")
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


def draw_dynamics() -> None:
    """Draw what the dynamics lab finds of a token that orbits, as the README does."""
    model = looplens.load_model("phop-huginn-mini")
    run = looplens.record(
        model, ["6cbaabdbd"], out=ORBIT, iterations=64, restarts=3, overwrite=True
    )
    looplens.dynamics.investigate(model, run, tokens="all")
    looplens.dynamics.investigate(model, run, "landscape", tokens=6)
    for name, draw in (
        ("spectra", looplens.plots.spectra),
        ("landscape", looplens.plots.landscape),
    ):
        figure = draw(run, 6)
        height = figure.layout.height
        figure.write_image(IMAGES / f"{name}.png", width=900, height=height, scale=1.2)


def main() -> None:
    """Take all pictures."""
    found = [path for name in BROWSERS if (path := shutil.which(name))]
    executable = os.environ.get("LOOPLENS_CHROMIUM") or next(iter(found), None)
    IMAGES.mkdir(exist_ok=True)
    draw_dynamics()
    run = looplens.open_run(RUN)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=FLAGS)
        photograph_report(browser, run)
        photograph_dashboard(browser, run)
        browser.close()


if __name__ == "__main__":
    main()
