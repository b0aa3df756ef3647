"""The page Overview: the list of runs, the facts of one, and its panels."""

from __future__ import annotations

import json
import shutil

import pytest
from dashboard_driver import selected, serving, view_of
from looplens_dashboard.pages import facts, overview, runs_list
from looplens_dashboard.view import Views
from looplens_dashboard.workspace import Workspace

from looplens import analysis, open_run, plots
from looplens.errors import CorruptRunError
from looplens.plots import CURSOR


@pytest.fixture(scope="module")
def analysed_path(run_path, tmp_path_factory):
    path = shutil.copytree(run_path, tmp_path_factory.mktemp("overview") / "analysed")
    open_run(path).analyze(["classify", "convergence", "path_independence", "readout", "pca"])
    return path


@pytest.fixture(scope="module")
def view(analysed_path):
    return view_of(analysed_path)


def shown(panel, view, query=""):
    """Return what a panel shows as text, and what its buttons pick."""
    drawn = panel.body(view, selected(view, f"/overview?{query}")).to_plotly_json()
    text = json.dumps(drawn, default=lambda part: part.to_plotly_json(), ensure_ascii=False)
    return text, [json.loads(pick) for pick in _values(json.loads(text), "data-pick")]


def _values(part, name):
    """Return the values of a name anywhere in a tree."""
    if isinstance(part, list):
        return [value for one in part for value in _values(one, name)]
    if not isinstance(part, dict):
        return []
    own = [part[name]] if name in part else []
    return own + [value for one in part.values() for value in _values(one, name)]


def test_numbers_of_the_facts_are_those_of_the_analyses(view):
    text, _ = shown(facts.PANEL, view)
    found = analysis.summary(view.run)
    assert f"{found['path_independence']['aa_score']:.4f}" in text
    assert f"{100 * found['convergence']['settled_share']:.1f} %" in text
    assert f"{found['convergence']['median_settling_iteration']:g}" in text
    assert "Not stored yet: geometry" in text
    assert f"looplens analyze {view.run.path}" in text


def test_examples_of_a_regime_are_tokens_of_it(view):
    _, picks = shown(facts.PANEL, view)
    regimes = analysis.get(view.run, "classify")["regime"]
    assert {pick["page"] for pick in picks} == {"trajectories"}
    found = {
        str(regimes.isel(restart=int(pick["restart"]), token=int(pick["token"])).values)
        for pick in picks
    }
    assert found == set(map(str, regimes.values.ravel()))


def test_facts_of_a_bare_run_need_no_analysis(bare_path):
    view = view_of(bare_path)
    text, picks = shown(facts.PANEL, view)
    assert "loop states" in text
    assert "Not stored yet" in text
    assert picks == []


def test_a_damaged_result_leaves_the_other_facts(analysed_path, tmp_path):
    path = shutil.copytree(analysed_path, tmp_path / "damaged")
    for file in (path / "analysis/classify/regime/c").rglob("*"):
        if file.is_file():
            file.write_bytes(b"?" * file.stat().st_size)
    view = view_of(path)
    text, picks = shown(facts.PANEL, view)
    assert picks == []
    assert "Alignment of restarts" in text
    with pytest.raises(CorruptRunError, match=r"'classify' is damaged.*Run the analysis again"):
        overview.REGIMES.call(view, selected(view)).draw(view.run)


def test_the_list_has_every_run_and_says_what_is_wrong_with_one(analysed_path, bare_path, tmp_path):
    broken = shutil.copytree(bare_path, tmp_path / "broken")
    (broken / "zarr.json").write_text("{")
    workspace = Workspace([analysed_path, bare_path, broken])
    view = Views(workspace, {}).open("analysed")
    text, picks = shown(runs_list.PANEL, view)
    assert [pick["run"] for pick in picks] == ["analysed", "bare", "broken"]
    counts = analysis.get(view.run, "classify")["regime"].to_series().value_counts()
    for regime, count in counts.items():
        assert f"{count:,} {plots.palette('light').regimes[regime].label}" in text
    assert "not analysed" in text
    assert "cannot be read" in text


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (87_274_400, "87 MB")]
)
def test_sizes_are_short(size, words):
    assert runs_list.size_text(size) == words


def test_the_heat_map_is_of_the_prompt_with_the_row_of_the_token(view):
    call = overview.HEATMAP.call(
        view, selected(view, "/overview?prompt=1&token=11&iteration=7&quantity=relative_step")
    )
    assert call.text() == (
        "plots.convergence_heatmap(run, prompt=1, quantity='relative_step', iteration=7, token=11)"
    )
    figure = call.draw(view.run)
    places = {shape.name: (shape.x0, shape.y0) for shape in figure.layout.shapes}
    assert places[CURSOR][0] == 7
    assert places["row"][1] == 11 - view.run.token_range(1).start - 0.5


def test_all_panels_group_by_one_choice(view):
    selection = selected(view, "/overview?by=position")
    for panel in (overview.REGIMES, overview.SETTLING):
        assert "by='position'" in panel.call(view, selection).text()


class TestBrowser:
    def test_a_run_and_an_example_are_a_click_away(self, visit, analysed_path, bare_path):
        with serving(analysed_path, bare_path) as address:
            visit.open(f"{address.rstrip('/')}/overview")
            visit.page.locator("#facts-panel .example button").first.click()
            visit.page.wait_for_url("**/trajectories?*")
            visit.page.go_back()
            visit.page.wait_for_url("**/overview?*")
            visit.drawn()
            visit.page.locator("#runs-panel").get_by_role("button", name="bare").click()
            visit.wait_for_query(run="bare")
            visit.drawn()
            current = visit.page.locator("#runs-panel tr.current th")
            assert current.inner_text() == "bare"
            assert visit.complaints == []

    def test_the_heat_map_follows_the_scrubber_alone(self, visit, analysed_path):
        with serving(analysed_path) as address:
            visit.open(f"{address.rstrip('/')}/overview?iteration=20")
            visit.page.locator("#heatmap-panel").scroll_into_view_if_needed()
            asked = visit.updates
            visit.page.keyboard.press("ArrowLeft")
            visit.wait_for_query(iteration="19")
            place = "graph.layout.shapes.find((shape) => shape.name === 'cursor').x0"
            visit.eventually(lambda: visit.graph("heatmap", place), 19)
            assert visit.updates == asked

    def test_panels_in_sight_are_drawn_first_and_the_others_by_themselves(
        self, visit, analysed_path
    ):
        asked = []
        visit.page.on("request", lambda request: asked.append(request.post_data or ""))
        visit.page.set_viewport_size({"width": 1280, "height": 700})
        with serving(analysed_path) as address:
            visit.open(f"{address.rstrip('/')}/overview")
            places = {
                name: min(n for n, body in enumerate(asked) if f'"panel":"{name}"' in body)
                for name in ("runs", "facts", "any-figure", "numbers")
            }
            assert max(places["runs"], places["facts"]) < min(
                places["any-figure"], places["numbers"]
            )
            assert visit.graph("any-figure", "graph.data.length") > 0
