"""What several rooms of the tests share: a synthetic run, and one headless browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selecting_runs import select_run

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
def four_layer_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run of four layers, of which the next two keep a part."""
    return synthetic_run(tmp_path_factory.mktemp("runs") / "four-layers", n_layers=4)


@pytest.fixture(scope="session")
def selected_run_path(four_layer_path: Path) -> Path:
    """Layers 1 and 3, every 4th iteration, three tokens of each prompt, 6 of 16 dimensions."""
    return select_run(
        four_layer_path,
        four_layer_path.parent / "selected",
        layers=(1, 3),
        iterations=range(4, 65, 4),
        positions=(3, 5, 7),
        components=6,
    )


@pytest.fixture(scope="session")
def few_layers_path(four_layer_path: Path) -> Path:
    """Layers 1 and 3 of all iterations, so that every analysis is possible; 6 of 16 dimensions."""
    out = four_layer_path.parent / "few-layers"
    return select_run(four_layer_path, out, layers=(1, 3), positions=(3, 5, 7), components=6)


@pytest.fixture(scope="session")
def part_run_path(four_layer_path: Path) -> Path:
    """The first and the last of three blocks, which are the three prompts."""
    out = four_layer_path.parent / "part"
    return select_run(four_layer_path, out, block_tokens=8, only_blocks=(0, 2))


@pytest.fixture(scope="session")
def lab_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prompt of phop-huginn-mini with what the dynamics lab says of its tokens 5 to 7.

    Token 6 goes around a cycle of two iterations by itself, and drives token 7.
    """
    pytest.importorskip("torch")
    import looplens as ll
    from looplens.dynamics import investigate

    model = ll.load_model("phop-huginn-mini")
    out = tmp_path_factory.mktemp("runs") / "lab"
    run = ll.record(
        model, ["6cbaabdbd"], out=out, iterations=64, restarts=2, attention=1, progress=False
    )
    run.analyze()
    investigate(model, run, tokens=[5, 6, 7])
    return out


@pytest.fixture(scope="session")
def chromium_launcher() -> Iterator[Callable[[], Any]]:
    """What opens a headless Chromium. The sync API of Playwright cannot be started twice.

    Without a Chromium, skip, or fail where everything has to run.
    """
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("LOOPLENS_CHROMIUM") or next(
        filter(None, map(shutil.which, names)), None
    )
    if found is None:
        pytest.fail(NO_BROWSER) if os.environ.get("CI") else pytest.skip(NO_BROWSER)
    from playwright.sync_api import sync_playwright

    options = (
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--no-first-run",
        "--disable-dev-shm-usage",  # containers have 64 MB there, and pages that need more hang
    )
    with sync_playwright() as playwright:
        yield lambda: playwright.chromium.launch(executable_path=found, args=list(options))


@pytest.fixture(scope="module")
def chromium(chromium_launcher: Callable[[], Any]) -> Iterator[Any]:
    """A browser context, of a browser of its own for each file: what one leaves behind ends."""
    browser = chromium_launcher()
    yield browser.new_context(viewport={"width": 1280, "height": 1700})
    browser.close()
