"""The page Readout & exits: what its panels call, the table at the scrubber, the threshold."""

from __future__ import annotations

import numpy as np
import pytest
from dashboard_driver import selected, serving, view_of
from looplens_dashboard.pages import readout

from looplens import analysis, plots
from looplens.errors import AnalysisError
from looplens.prompts import Prompt
from looplens.store import RunSpec, RunWriter


@pytest.fixture(scope="module")
def view(run_path):
    return view_of(run_path)


def called(view, panel, query=""):
    return panel.call(view, selected(view, f"/readout?{query}"))


def shown(view, panel):
    """Draw a panel, or return what is sent for it."""
    if panel.call is not None:
        return called(view, panel).draw(view.run)
    return panel.frames(view, selected(view, "/readout"))


FIGURES = [panel for panel in readout.PAGE.panels if panel.call is not None]


class TestCalls:
    @pytest.mark.parametrize("panel", FIGURES, ids=lambda panel: panel.name)
    def test_every_panel_is_one_call_that_follows_the_scrubber_by_itself(self, view, panel):
        assert "iteration" not in panel.depends_on
        assert panel.answers.endswith("?")
        call = called(view, panel, "token=4&iteration=7")
        figure = call.draw(view.run)
        assert "run" in call.text()
        lines = {shape.x0 for shape in figure.layout.shapes if shape.name == plots.CURSOR}
        assert lines == ({7} if panel.follows else set())

    def test_rows_of_a_page_are_full_at_both_widths(self):
        for of in ("span", "wide"):
            spans = [getattr(panel, of) for panel in readout.PAGE.panels]
            ends = np.cumsum(spans)
            assert set(range(12, ends[-1] + 1, 12)) <= set(ends.tolist())
            assert ends[-1] % 12 == 0

    def test_the_threshold_belongs_to_the_chosen_rule(self, view):
        call = called(view, readout.BENCH, "token=4&rule=kl&threshold=0.01")
        assert "rule='kl', threshold=0.01" in call.text()
        other = called(view, readout.BENCH, "token=4&rule=argmax-stability&threshold=0.01")
        assert "threshold" not in other.text()
        assert other.draw(view.run).layout.meta["bench"]["rule"] == "argmax-stability"
        assert "rule" not in called(view, readout.BENCH, "token=4").text()

    def test_only_rules_that_the_run_can_judge_are_offered(self, view):
        offered = {name for name, _ in view.limits.options["rule"]} - {""}
        judged = set(map(str, analysis.get(view.run, "exits")["rule"].values))
        assert offered == judged
        assert "gate" not in offered

    def test_accuracy_is_split_by_what_it_is_known_by(self, tmp_path):
        from looplens.run import open_run
        from looplens.testing import synthetic_run

        path = synthetic_run(tmp_path / "run", prompts=2, iterations=16)
        open_run(path).analyze("readout")
        other = view_of(path)
        assert "difficulty" in dict(other.limits.options["accuracy_by"])
        assert "by='difficulty'" in called(other, readout.CURVES, "accuracy_by=difficulty").text()


class TestTable:
    def test_the_browser_gets_the_predictions_of_all_iterations(self, view):
        sent = readout.NOW.frames(view, selected(view, "/readout?token=11&restart=1"))
        part = view.run.readout.isel(token=11, restart=1)
        np.testing.assert_allclose(sent["probabilities"], np.exp(part["topk_logprobs"]), rtol=1e-5)
        assert sent["change"][0] is None  # nothing comes before iteration 1
        assert sent["target"]["rank"] == part["target_rank"].values.tolist()
        assert len(sent["words"]) == len(sent["iterations"]) == 32

    def test_a_run_without_readouts_says_how_to_get_them(self, tmp_path):
        prompt = Prompt(token_ids=(0, 1), token_texts=("a", "b"), text="ab")
        spec = RunSpec(prompts=[prompt], iterations=4, n_layers=1, d_model=2, sites=())
        with RunWriter(tmp_path / "bare", spec) as writer:
            writer.write(0, 2, {"loop/state": np.zeros((1, 2, 5, 2), np.float32)})
        bare = view_of(tmp_path / "bare")
        for panel in readout.PAGE.panels:
            with pytest.raises(AnalysisError, match="readout"):
                shown(bare, panel)


@pytest.fixture(scope="module")
def served(run_path):
    with serving(run_path) as address:
        yield address.rstrip("/")


class TestBrowser:
    def test_the_table_follows_the_scrubber_and_nothing_is_asked(self, visit, served, view):
        visit.open(f"{served}/readout?token=12&iteration=3")
        words = analysis.token_readout(view.run, 12)["text"].values[:, 0]
        shown = ".readout-now tbody tr:first-child th"
        first = f"document.querySelector('{shown}')?.firstChild.textContent"
        visit.eventually(lambda: visit.page.evaluate(first), words[2])
        asked = visit.updates
        visit.page.keyboard.press("End")
        visit.eventually(lambda: visit.page.evaluate(first), words[31])
        visit.page.keyboard.press("Home")
        visit.page.wait_for_selector(".readout-now >> text=nothing has been read out yet")
        visit.page.keyboard.press("ArrowRight")
        visit.eventually(lambda: visit.page.evaluate(first), words[0])
        lines = "graph.layout.shapes.filter((s) => s.name === 'cursor').map((s) => s.x0)"
        visit.eventually(lambda: visit.graph("predictions", lines), [1, 1])
        assert visit.updates == asked
        assert visit.complaints == []

    def test_the_threshold_moves_in_the_browser_and_is_kept_in_the_link(self, visit, served, view):
        visit.open(f"{served}/readout?token=12&rule=kl")
        visit.page.locator("#bench-panel").scroll_into_view_if_needed()
        slider = visit.page.locator("#threshold-slider")
        slider.wait_for()
        results = analysis.get(view.run, "exits")
        places = np.flatnonzero(results["rule"].values == "kl")
        assert slider.get_attribute("max") == str(len(places) - 1)
        visit.settle()
        asked = visit.updates
        move = "(slider, kind) => slider.dispatchEvent(new Event(kind, { bubbles: true }))"
        slider.evaluate("(slider) => (slider.value = '2')")
        slider.evaluate(move, "input")
        drawn = "graph.data.find((t) => (t.meta || {}).role === 'histogram').y"
        wanted = [round(float(v), 5) for v in results["exit_share"].values[places[2]]]
        visit.eventually(lambda: list(visit.graph("bench", drawn)), wanted)
        marks = "graph.layout.shapes.filter((s) => s.name === 'threshold').map((s) => s.x0)"
        assert visit.graph("bench", marks) == [2, 2]
        assert visit.updates == asked
        slider.evaluate(move, "change")
        visit.wait_for_query(rule="kl", threshold=f"{results['threshold'].values[places[2]]:g}")
        visit.drawn()
        visit.eventually(lambda: visit.graph("bench", marks), [2, 2])
        visit.open(visit.page.url)
        visit.page.locator("#bench-panel").scroll_into_view_if_needed()
        visit.eventually(lambda: visit.graph("bench", marks), [2, 2])
        assert slider.get_attribute("aria-valuetext").startswith("threshold")
        assert visit.complaints == []

    def test_the_row_of_the_selected_token_is_framed(self, visit, served):
        visit.open(f"{served}/readout?prompt=1&token=12")
        visit.page.locator("#flips-panel").scroll_into_view_if_needed()
        framed = "graph.layout.shapes.find((s) => s.name === 'row').y0 + 0.5"
        visit.eventually(lambda: visit.graph("flips", framed), 4)
        visit.page.keyboard.press("]")
        visit.wait_for_query(token="13")
        visit.eventually(lambda: visit.graph("flips", framed), 5)
