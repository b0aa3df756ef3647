"""The page Trajectories: what its panels call, and what its figures do in a browser."""

from __future__ import annotations

import functools

import pytest
from dashboard_driver import selected, serving, view_of
from looplens_dashboard.pages import trajectories

from looplens import plots
from looplens.errors import AnalysisError


@pytest.fixture(scope="module")
def view(run_path):
    return view_of(run_path)


def called(view, panel, query=""):
    return panel.call(view, selected(view, f"/trajectories?{query}"))


class TestCalls:
    def test_the_trajectory_is_one_call_with_all_that_was_chosen(self, view):
        query = "token=4&also=1,9&layers=1,state&basis=tail&dims=3&components=2-3-4&iteration=7"
        call = called(view, trajectories.TRAJECTORY, query)
        assert call.text() == (
            "plots.trajectory(run, tokens=[4, 1, 9], layers=[None, 1], basis='tail', dims=3, "
            "components=(1, 2, 3), iteration=7)"
        )
        assert call.draw(view.run).data

    def test_without_layers_together_it_follows_the_layer_of_the_bar(self, view):
        call = called(view, trajectories.TRAJECTORY, "token=4&layer=1&iteration=0")
        assert "layer=1" in call.text()
        assert "iteration=1" in call.text()  # states after a layer begin there
        assert "iteration=0" in called(view, trajectories.TRAJECTORY, "iteration=0").text()

    @pytest.mark.parametrize("panel", trajectories.PAGE.panels, ids=lambda panel: panel.name)
    def test_every_panel_follows_the_scrubber_without_being_drawn_again(self, view, panel):
        assert "iteration" not in panel.depends_on
        assert panel.answers.endswith("?")
        figure = called(view, panel, "token=4&iteration=7").draw(view.run)
        lines = [shape.x0 for shape in figure.layout.shapes if shape.name == plots.CURSOR]
        points = [t for t in figure.data if (t.meta or {}).get("role") == "cursor"]
        assert lines or points
        assert set(lines) <= {7}

    def test_a_model_of_one_layer_says_why_it_has_no_cycle(self, tmp_path):
        from looplens.testing.runs import synthetic_run

        one = view_of(synthetic_run(tmp_path / "one", prompts=1, n_layers=1, attention=False))
        with pytest.raises(AnalysisError, match="at least two core layers"):
            called(one, trajectories.CYCLE).draw(one.run)


@pytest.fixture(scope="module")
def served(run_path):
    with serving(run_path) as address:
        yield address.rstrip("/")


def markers(visit, panel="trajectory"):
    """Return where the points of the cursor stand, and the states at the scrubber."""
    return visit.graph(
        panel,
        """(() => {
          const role = (trace) => (trace.meta || {}).role;
          const paths = graph.data.filter((trace) => role(trace) === "trajectory");
          const cursor = graph.data.find((trace) => role(trace) === "cursor");
          const at = (path) => Array.from(path.customdata).indexOf(looplens.iteration);
          return { cursor: Array.from(cursor.x), states: paths.map((path) => path.x[at(path)]) };
        })()""",
    )


class TestBrowser:
    def test_several_cursors_move_with_the_scrubber_and_nothing_is_asked(self, visit, served):
        visit.open(f"{served}/trajectories?token=4&also=1&layers=state,0&iteration=9")
        before = markers(visit)
        assert len(before["cursor"]) == 4
        assert before["cursor"] == pytest.approx(before["states"])
        asked = visit.updates
        for _ in range(4):
            visit.page.keyboard.press("ArrowRight")
        visit.wait_for_query(iteration="13")
        visit.eventually(lambda: markers(visit)["cursor"] == markers(visit)["states"], True)
        assert markers(visit)["cursor"] != before["cursor"]
        lines = "graph.layout.shapes.filter((s) => s.name === 'cursor').map((s) => s.x0)"
        for name in ("trajectory", "steps"):
            visit.eventually(functools.partial(visit.graph, name, f"Math.min(...{lines})"), 13)
        assert visit.updates == asked
        assert visit.complaints == []

    def test_the_basis_and_the_dimensions_are_chosen_and_in_the_address(self, visit, served):
        visit.open(f"{served}/trajectories?token=4&basis=tail&iteration=20")
        assert "PC 1" in visit.graph("trajectory", "graph.layout.xaxis.title.text")
        caption = visit.page.locator("#trajectory-panel .caption")
        assert "each path from its own mean" in caption.inner_text()
        visit.page.locator("#trajectory-panel").get_by_text("3-D").click()
        visit.wait_for_query(dims="3", basis="tail", token="4")
        visit.drawn()
        visit.eventually(lambda: visit.graph("trajectory", "graph.data[0].type"), "scatter3d")
        contexts = "document.querySelectorAll('canvas').length"
        assert 1 <= visit.page.evaluate(contexts) <= 2
        assert len(markers(visit)["cursor"]) == 1

    def test_a_click_on_a_state_goes_to_its_iteration_and_token(self, visit, served):
        visit.open(f"{served}/trajectories?token=4&also=5&basis=token&iteration=20")
        place = visit.graph(
            "trajectory",
            """(() => {
              const path = graph.data.findIndex((t) => (t.meta || {}).token === 5);
              const at = 2, box = graph.getBoundingClientRect(), layout = graph._fullLayout;
              return [
                box.left + layout.xaxis._offset + layout.xaxis.d2p(graph.data[path].x[at]),
                box.top + layout.yaxis._offset + layout.yaxis.d2p(graph.data[path].y[at]),
              ];
            })()""",
        )
        visit.page.mouse.move(*place)
        visit.page.wait_for_timeout(300)
        visit.page.mouse.click(*place)
        visit.wait_for_query(token="5", iteration="2")
