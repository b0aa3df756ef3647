"""Take the pictures of the README and of app.md: ``make images`` (after ``make demo``).

The report and the dashboard are opened in headless Chromium and photographed as they are. Figures
of the dynamics lab are drawn from the run that the README makes.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from looplens_dashboard import create_app
from looplens_dashboard.serving import running
from playwright.sync_api import Browser, sync_playwright

import looplens

RUN = Path("runs/demo")
ORBIT = Path("runs/orbit")
ZEROS = Path("runs/orbit-zeros")
VIEWS = {
    "trajectories": "run=orbit&token=6&also=3&iteration=24",
    "restarts": "run=demo&prompt=5&iteration=4",
    "layers": "run=demo&prompt=0&iteration=5&layer=1&head=2",
    "readout": "run=demo&prompt=1&iteration=6",
    "dynamics": "run=orbit&token=6&iteration=40",
    "compare": "run=orbit&other=orbit-zeros&token=6&iteration=16",
    "live": "run=demo",
    "overview": "run=demo&prompt=3&iteration=8",  # last: by then the list of runs has been counted
}
"""What each page of the app is photographed at."""
BEGINS = {"dynamics": "spectra"}
"""The panel that a picture begins with, where it is not the first."""
SCROLL = """name => {
  const top = document.getElementById(name + "-panel").getBoundingClientRect().top;
  window.scrollBy(0, top - document.querySelector(".top").offsetHeight - 12);
}"""
IMAGES = Path(__file__).parent / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


def photograph_report(browser: Browser, run: looplens.Run) -> None:
    """Photograph the first screens of the HTML report."""
    page = browser.new_page(viewport={"width": 1280, "height": 1700})
    page.goto(run.report(RUN.with_suffix(".html")).resolve().as_uri())
    page.wait_for_timeout(3000)
    page.screenshot(path=IMAGES / "report.png")


def photograph_app(browser: Browser) -> None:
    """Photograph the first screen of every page of the app, in both themes."""
    with running(create_app([RUN, ORBIT, ZEROS])) as address:
        for name, view in VIEWS.items():
            for theme in ("light", "dark"):
                page = browser.new_page(viewport={"width": 1440, "height": 1100})
                page.goto(f"{address}{name}?{view}&theme={theme}")
                page.wait_for_selector("#content > section")
                page.wait_for_function(
                    "!document.getElementById('content').textContent.includes('Drawing…')"
                )
                page.wait_for_timeout(2500)
                if name in BEGINS:
                    page.evaluate(SCROLL, BEGINS[name])
                    page.wait_for_timeout(1500)
                page.screenshot(path=IMAGES / f"app-{name}-{theme}.png")
                page.close()


def draw_dynamics() -> None:
    """Draw what the dynamics lab finds of a token that orbits, as the README does."""
    model = looplens.load_model("phop-huginn-mini")
    run = looplens.record(
        model, ["6cbaabdbd"], out=ORBIT, iterations=64, restarts=3, overwrite=True
    )
    run.analyze()
    looplens.dynamics.investigate(model, run, tokens="all")
    looplens.dynamics.investigate(model, run, "landscape", tokens=6)
    zeros = looplens.record(
        model, ["6cbaabdbd"], out=ZEROS, iterations=64, initial_state="zeros", overwrite=True
    )
    zeros.analyze()
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
        photograph_app(browser)
        browser.close()


if __name__ == "__main__":
    main()
