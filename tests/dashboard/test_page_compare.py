"""The page Compare: which run, the same token in both, comparisons that no request waits for."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from dashboard_driver import Client, serving
from looplens_dashboard import pages
from looplens_dashboard.pages.compare.background import WaitError
from looplens_dashboard.selection import read, texts
from looplens_dashboard.view import View, Views
from looplens_dashboard.workspace import Workspace

import looplens
from looplens import plots
from looplens.run import open_run
from looplens.testing.runs import synthetic_run

FIGURES = [panel.name for panel in pages.compare.PANELS if panel.call]


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Path, Path]:
    """Two analysed runs of the same prompts."""
    made = tmp_path_factory.mktemp("pair")
    for seed, name in enumerate(("one", "two")):
        open_run(synthetic_run(made / name, seed=seed, iterations=32)).analyze()
    return made / "one", made / "two"


@pytest.fixture(scope="module")
def client(pair) -> Client:
    return Client(*pair)


def placed(address: str, *paths: Path):
    """Return the view of the first run and a selection in it."""
    views = Views(Workspace(list(paths)), pages.choices())
    view = views.open(views.default())
    values, notes = texts(address)
    selection, more = read(values, view.limits, [page.name for page in pages.PAGES])
    assert notes + more == []
    return view, selection


def call_of(name: str, view: View, selection):
    """Return the call of a panel, when the runs have been compared."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return pages.panels()[name].call(view, selection)
        except WaitError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.parametrize("name", FIGURES)
def test_the_python_of_a_panel_makes_its_figure(name, pair, monkeypatch) -> None:
    view, selection = placed("/compare?token=10&also=12&iteration=8", *pair)
    call = call_of(name, view, selection)
    drawn = call.draw(view.run)
    names: dict = {}
    monkeypatch.setattr(plots.Figure, "show", lambda self: None)
    exec(call.code(view.run), names)
    for one, other in zip(drawn.data, names["figure"].data, strict=True):
        for axis in ("x", "y", "z"):
            values = one.to_plotly_json().get(axis)
            if values is not None and np.asarray(values).dtype.kind in "fi":
                assert np.allclose(np.array(values, float), other[axis], equal_nan=True)
    eval(call.text(), {"looplens": looplens, "plots": plots, "run": view.run})


def test_a_token_goes_by_its_number_in_the_selected_run(four_layer_path, selected_run_path) -> None:
    """The other run holds tokens 3, 5 and 7 of each prompt, every fourth iteration."""
    view, selection = placed("/compare?token=13&iteration=6", four_layer_path, selected_run_path)
    call = call_of("compare-path-b", view, selection)
    assert call.arguments["tokens"] == [4]
    assert call.arguments["iteration"] is None  # there is no iteration 6
    made = call.draw(view.run)
    (path,) = (trace for trace in made.data if (trace.meta or {}).get("role") == "trajectory")
    assert path.meta["token"] == 13
    client = Client(four_layer_path, selected_run_path)
    apart = client.panel("compare-states", "/compare?token=13")["message"]
    assert "have 16 dimensions" not in str(apart)
    assert "are stored in different dimensions (reduce=)" in str(apart)
    assert "fault" not in str(apart)
    missing = client.panel("compare-path-b", "/compare?token=12")["message"]
    assert "does not hold the selected token" in str(missing)


def test_what_there_is_to_compare_with(client, pair, run_path, tmp_path) -> None:
    shown = str(client.panel("compare-with", "/compare"))
    assert '{"other": "two"}' in shown
    assert '{"other": "one"}' not in shown
    unknown = str(client.panel("compare-path-b", "/compare?other=tow"))
    assert "There is no run 'tow' to compare with. Did you mean 'two'?" in unknown
    alone = str(Client(pair[0]).panel("compare-tokens", "/compare"))
    assert "only one run is open. Start the app with several" in alone
    other = synthetic_run(tmp_path / "other", prompts=1, tokens=5, attention=False, iterations=32)
    apart = str(Client(pair[0], other).panel("compare-tokens", "/compare"))
    assert "is not in other. Choose another prompt" in apart
    assert "fault" not in apart


def test_no_request_waits_for_a_comparison(pair) -> None:
    fresh = Client(*pair)
    before = time.monotonic()
    first = fresh.panel("compare-differences", "/compare")
    assert "The runs are being compared" in str(first["message"])
    assert time.monotonic() - before < 5
    deadline = time.monotonic() + 60
    while "being compared" in str(found := fresh.panel("compare-differences", "/compare")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "3 prompts are few to draw from" in str(found["caption"])


@pytest.mark.browser
def test_two_runs_side_by_side_in_a_browser(visit, pair) -> None:
    with serving(*pair) as address:
        visit.open(f"{address}compare?token=10&theme=dark")
        visit.page.wait_for_selector(
            "#compare-differences-panel .js-plotly-plot .main-svg", timeout=60_000
        )
        visit.drawn()
        asked = visit.updates
        visit.page.keyboard.press("Home")
        visit.page.keyboard.press("ArrowRight")
        visit.wait_for_query(iteration="1")
        for name in ("compare-path-a", "compare-path-b"):
            visit.eventually(
                lambda name=name: visit.graph(
                    name,
                    "(() => { const by = (role) => graph.data.find((t) => (t.meta || {}).role === "
                    "role); return by('cursor').x[0] === by('trajectory').x[1]; })()",
                ),
                True,
            )
        assert visit.updates == asked
        # A click on a row of the map chooses the token in every panel.
        place = visit.page.evaluate(
            """(() => {
              const graph = looplens.graph("compare-states"), box = graph.getBoundingClientRect();
              const { xaxis, yaxis } = graph._fullLayout;
              return [box.x + xaxis._offset + xaxis.d2p(20), box.y + yaxis._offset + yaxis.d2p(6)];
            })()"""
        )
        visit.page.mouse.click(*place)
        visit.wait_for_query(token="14", iteration="20")
        visit.drawn()
        tokens = "graph.data.find((t) => (t.meta || {}).role === 'trajectory').meta.token"
        for name in ("compare-path-a", "compare-path-b"):
            visit.eventually(lambda name=name: visit.graph(name, tokens), 14)
        visit.page.click("[data-pick*='two']")
        visit.wait_for_query(other="two")
        again = visit.page.evaluate("location.origin + looplens.address()")
        visit.open(again)
        assert visit.query["other"] == "two"
        assert visit.page.evaluate("location.origin + looplens.address()") == again
        pressed = "#compare-with-panel [aria-pressed=true]"
        assert visit.page.inner_text(pressed) == "b: two"
        assert visit.complaints == []
