"""The page Layers & attention: maps that follow the scrubber, and what a token reads."""

from __future__ import annotations

import base64
import re

import numpy as np
import pytest
from dashboard_driver import selected, view_of
from looplens_dashboard.pages import layers
from looplens_dashboard.panels import attention_frames as frames

from looplens import analysis, plots
from looplens.errors import LoopLensError

PANELS = {panel.name: panel for panel in layers.PAGE.panels}
MAPS = ("heads", "attention", "attention-difference")


@pytest.fixture(scope="module")
def view(run_path):
    return view_of(run_path)


def called(view, name, query=""):
    return PANELS[name].call(view, selected(view, f"/layers?{query}"))


def decoded(sent):
    """Return the weights that a browser reads: (iteration, head, query, key)."""
    codes = np.frombuffer(base64.b64decode(sent["weights"]), dtype="<u2")
    weights = np.where(codes == frames.MISSING, np.nan, codes / 65534 * sent["scale"])
    whole = np.ones((sent["cells"], sent["cells"]), dtype=bool)
    maps = np.full((len(sent["iterations"]), sent["heads"], *whole.shape), np.nan)
    part = np.tril(whole) if sent["causal"] else whole
    maps[..., part] = weights.reshape(*maps.shape[:2], -1)
    return maps


class TestCalls:
    def test_panels_are_calls_of_the_selection(self, view):
        query = "token=12&layer=0&head=1&restart=1&iteration=9&against=4"
        assert called(view, "attention-difference", query).text() == (
            "plots.attention_difference(run, prompt=1, iteration=9, layer=0, restart=1, head=1, "
            "other=4, token=12)"
        )
        # The initial state has attended to nothing yet.
        assert "iteration=1" in called(view, "heads", "iteration=0").text()

    @pytest.mark.parametrize("name", PANELS)
    def test_every_panel_is_drawn_and_answers_a_question(self, view, name):
        assert "?" in PANELS[name].answers
        assert "iteration" not in PANELS[name].depends_on
        assert called(view, name, "token=3&iteration=7").draw(view.run).data

    @pytest.mark.parametrize("name", ["heads", "attention", "attention-change"])
    def test_a_run_without_attention_says_what_to_record(self, bare_client, name):
        drawn = bare_client.panel(name, "/layers")
        assert "attention" in str(drawn["message"])
        assert "hidden" in drawn["figure"]

    def test_maps_that_take_long_are_not_begun_by_a_click(self, view, monkeypatch):
        monkeypatch.setattr(layers, "_MOST_COMPUTED", 4)
        with pytest.raises(layers.AnalysisError, match=r"looplens analyze .* --only similarity"):
            called(view, "similarity")


class TestFrames:
    def test_every_iteration_is_sent_as_it_was_recorded(self, view):
        chosen = selected(view, "/layers?token=12&layer=1&restart=1")
        sent = PANELS["heads"].frames(view, chosen)
        expected = analysis.attention_maps(view.run, 1, layer=1, restart=1)["weight"].values
        np.testing.assert_allclose(decoded(sent), expected, atol=1e-5)
        assert sent["iterations"] == list(range(1, 33))
        assert sent["tokens"] == list(range(8, 16))
        assert sent["causal"]
        assert "note" not in sent

    def test_too_many_maps_are_thinned_by_an_odd_step_and_say_so(self, view, monkeypatch):
        monkeypatch.setattr(frames, "MOST_SENT", 2 * 64 * 17)
        sent = frames.attention_frames(view, selected(view, "/layers"), head=None, against=2)
        assert sent["iterations"] == [2, *range(2, 33, 3)][1:]
        assert sent["note"] == "1 of 3 iterations while scrubbing"
        monkeypatch.setattr(frames, "MOST_READ", 2 * 64 * 8)
        sent = frames.attention_frames(view, selected(view, "/layers"), head="mean", against=3)
        assert sent["iterations"] == [2, 3, 7, 12, 17, 22, 27, 32]


def drawn_map(figure):
    return np.array(figure.data[0].z, dtype=float)


def seen(visit, name):
    rows = visit.graph(name, "Array.from(graph.data[0].z, (row) => Array.from(row))")
    return np.array(rows, dtype=float)


@pytest.mark.browser
class TestBrowser:
    def test_maps_follow_the_scrubber_and_nothing_is_asked(self, visit, address, run):
        visit.open(f"{address}layers?token=4&head=1&layer=0&iteration=1&against=2")
        asked = visit.updates
        for _ in range(5):
            visit.page.keyboard.press("ArrowRight")
        visit.wait_for_query(iteration="6")
        expected = {
            "heads": plots.attention_heads(run, 0, 6, layer=0),
            "attention": plots.attention(run, 0, 6, layer=0, head=1),
            "attention-difference": plots.attention_difference(run, 0, 6, 2, layer=0, head=1),
        }
        for name, figure in expected.items():
            wanted = drawn_map(figure)
            visit.eventually(
                lambda name=name, wanted=wanted: np.allclose(
                    seen(visit, name), wanted, atol=1e-4, equal_nan=True
                ),
                True,
            )
        end = visit.graph("attention-difference", "graph.data[0].zmax")
        assert end == pytest.approx(expected["attention-difference"].data[0].zmax, abs=1e-4)
        signs = expected["attention-difference"].data[1]
        marked = "graph.data[1].x.map((x, n) => [x, graph.data[1].y[n], graph.data[1].text[n]])"
        wanted = sorted(zip(signs.x, signs.y, signs.text, strict=True))
        assert sorted(map(tuple, visit.graph("attention-difference", marked))) == wanted
        assert visit.updates == asked
        visit.page.keyboard.press("Home")
        visit.eventually(lambda: bool(np.isnan(seen(visit, "attention")).all()), True)
        assert visit.complaints == []

    def test_pointing_at_a_map_shows_in_the_tokens_what_is_read(self, visit, address, run):
        visit.open(f"{address}layers?token=4&head=0&layer=1&iteration=3")
        cell = visit.page.locator("#attention-panel .nsewdrag").first
        cell.scroll_into_view_if_needed()
        box = cell.bounding_box()
        # The middle of the row of the sixth of eight queries, in its first column.
        visit.page.mouse.move(box["x"] + box["width"] / 16, box["y"] + box["height"] * 11 / 16)
        strip = visit.page.locator("#strip-panel")
        visit.eventually(lambda: "reading" in strip.get_attribute("class"), True)
        weights = plots.attention(run, 0, 3, layer=1, head=0).data[0].z[5]
        for token in range(6):
            element = strip.locator(f"[data-token='{token}']")
            read = float(element.evaluate("(token) => token.style.getPropertyValue('--read')"))
            assert read**2 == pytest.approx(float(weights[token]), abs=0.01)
        assert "reads" in strip.locator("[data-token='5']").get_attribute("class")
        visit.page.mouse.move(2, 2)
        visit.eventually(lambda: "reading" in strip.get_attribute("class"), False)
        # A token of the bar does the same.
        strip.locator("[data-token='2']").hover()
        visit.eventually(lambda: "reading" in strip.get_attribute("class"), True)
        assert "reads" in strip.locator("[data-token='2']").get_attribute("class")

    def test_a_click_on_a_head_chooses_it_and_moves_the_frame(self, visit, address):
        visit.open(f"{address}layers?token=4&iteration=9")
        frame = "graph.layout.shapes.find((shape) => shape.name === 'head')"
        visit.eventually(lambda: visit.graph("heads", f"{frame}.visible"), False)
        box = visit.page.locator("#heads-panel .nsewdrag").first.bounding_box()
        visit.page.mouse.move(box["x"] + box["width"] * 0.58, box["y"] + box["height"] * 0.8)
        label = visit.page.locator("#heads-panel .hovertext")
        label.wait_for()
        words = label.evaluate("(label) => label.textContent")
        assert re.fullmatch(r"head 1[a-l] attends to [a-l]weight [0-9.]+", words)
        visit.page.mouse.click(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.8)
        visit.wait_for_query(head="1")
        visit.eventually(lambda: visit.graph("heads", f"{frame}.visible"), True)
        left = visit.graph("heads", "graph.data[0].meta.tiles[1][1] - 0.5")
        visit.eventually(lambda: visit.graph("heads", f"{frame}.x0"), left)
        visit.drawn()
        assert "head 1" in visit.page.locator("#attention-panel .caption").inner_text()

    def test_a_click_on_a_query_selects_its_token_and_not_an_iteration(self, visit, address):
        visit.open(f"{address}layers?token=4&iteration=9")
        box = visit.page.locator("#attention-panel .nsewdrag").first.bounding_box()
        visit.page.mouse.click(box["x"] + box["width"] / 16, box["y"] + box["height"] * 13 / 16)
        visit.wait_for_query(token="6")
        assert visit.query["iteration"] == "9"


def test_the_data_of_the_heads_are_a_map_for_each(view):
    from looplens_dashboard.exporting import data

    figure = called(view, "heads", "iteration=7&layer=1").draw(view.run)
    rows = [line.split(",") for line in data.as_csv(figure).splitlines()[1:]]
    weights = analysis.attention_maps(view.run, 0, 7, layer=1)["weight"].values
    assert len(rows) == weights.size
    drawn = {(name, int(y), int(x)): value for name, x, y, value, *_ in rows}
    assert drawn["head 1", 0, 5] == ""  # a key after the query
    assert float(drawn["head 1", 5, 2]) == pytest.approx(float(weights[1, 5, 2]))


@pytest.mark.parametrize("kept", ["selected_run_path", "few_layers_path", "part_run_path"])
def test_runs_that_keep_a_part_are_drawn_or_say_what_is_missing(kept, request):
    part = view_of(request.getfixturevalue(kept))
    chosen = selected(part, "/layers")
    for name, panel in PANELS.items():
        figure, said = None, ""
        try:
            figure = panel.call(part, chosen).draw(part.run)
        except LoopLensError as error:
            said = str(error)
        if figure is None:
            assert re.search(r"Record|not recorded|keep_iterations", said), name
            continue
        if panel.frames:
            sent = panel.frames(part, chosen)
            assert decoded(sent).shape[0] == len(part.run.kept_iterations)
            assert set(sent["tokens"]) - {-1} == set(part.limits.tokens_of(0))
