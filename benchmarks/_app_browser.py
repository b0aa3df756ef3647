"""The pages of the app in a real browser: how soon they are there, and what scrubbing costs."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_COUNT_CONTEXTS = """
(() => {
  const plain = HTMLCanvasElement.prototype.getContext;
  const known = new Set();
  HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
    const made = plain.call(this, kind, ...rest);
    if (made && String(kind).includes("webgl")) known.add(this);
    return made;
  };
  window.webglContexts = () => [...known].filter((canvas) => canvas.isConnected).length;
})();
"""
_DRAWN = """
() => document.querySelectorAll("#content > section").length > 0 &&
  [...document.querySelectorAll("[data-panel]")].every((panel) =>
    (SIGHT && panel.getBoundingClientRect().top >= window.innerHeight) ||
    !panel.textContent.includes("Drawing…"))
"""
_STEPS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What a browser saw of a page.

    Attributes
    ----------
    page : str
        Its name.
    seconds, whole : float
        From the address to the panels in sight being drawn, and to all of them.
    contexts : int
        WebGL contexts of the page.
    requests : int
        What the server was asked while the scrubber moved over the iterations.
    complaints : tuple of str
        Errors in the console.
    """

    page: str
    seconds: float
    whole: float
    contexts: int
    requests: int
    complaints: tuple[str, ...]


def look(address: str, names: Sequence[str]) -> list[Seen]:
    """Open pages one after the other in a headless Chromium.

    Parameters
    ----------
    address : str
        Of the app.
    names : sequence of str
        Of the pages.

    Raises
    ------
    RuntimeError
        If there is no Chromium.
    """
    from playwright.sync_api import sync_playwright

    found = os.environ.get("LOOPLENS_CHROMIUM") or shutil.which("chromium")
    if found is None:
        raise RuntimeError("No Chromium was found: install it, or set LOOPLENS_CHROMIUM.")
    options = ["--no-sandbox", "--disable-background-networking", "--no-first-run"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=options)
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        context.add_init_script(_COUNT_CONTEXTS)
        seen = [_look(context.new_page(), address, name) for name in names]
        browser.close()
    return seen


def _look(page: Any, address: str, name: str) -> Seen:
    complaints: list[str] = []
    requests: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: line.type == "error" and complaints.append(line.text))
    page.on("request", lambda request: requests.append(request.url))
    started = time.perf_counter()
    page.goto(f"{address}/{name}")
    page.wait_for_function(_DRAWN.replace("SIGHT", "true"), timeout=60_000)
    seconds = time.perf_counter() - started
    page.wait_for_function(_DRAWN.replace("SIGHT", "false"), timeout=60_000)
    whole = time.perf_counter() - started
    page.wait_for_timeout(1500)
    requests.clear()
    page.keyboard.press("Home")
    for _ in range(_STEPS):
        page.keyboard.press("ArrowRight")
    page.wait_for_timeout(800)
    found = Seen(
        page=name,
        seconds=seconds,
        whole=whole,
        contexts=int(page.evaluate("window.webglContexts()")),
        requests=sum(not url.startswith(("data:", "blob:")) for url in requests),
        complaints=tuple(complaints),
    )
    page.close()
    return found
