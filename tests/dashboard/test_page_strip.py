"""The token strip: colours, filter, the way from match to match, numbers while hovering."""

from __future__ import annotations

import json

import pytest
from dashboard_driver import selected, serving, view_of
from looplens_dashboard.pages import strip
from looplens_dashboard.pages.strip import around, panel

from looplens import analysis, plots
from looplens.analysis import REGIMES
from looplens.plots import short_number
from looplens.plots._token_looks import BORDERS, SYMBOLS


@pytest.fixture(scope="module")
def view(run_path):
    return view_of(run_path)


def parts(component):
    """Return a component and everything in it."""
    found = [component]
    children = getattr(component, "children", None)
    several = children if isinstance(children, list | tuple) else [children]
    for child in several:
        if hasattr(child, "to_plotly_json"):
            found += parts(child)
    return found


def tokens(component):
    """Return the buttons of the tokens."""
    return [part for part in parts(component) if hasattr(part, "data-token")]


def picks(component):
    """Return what a click on each button chooses, by the text of its id or class."""
    return {
        getattr(part, "id", None) or part.className: json.loads(getattr(part, "data-pick"))
        for part in parts(component)
        if hasattr(part, "data-pick")
    }


def drawn(view, query=""):
    return panel.strip(view, selected(view, f"/overview?{query}"))


class TestLooks:
    def test_a_regime_is_said_by_colour_symbol_and_border(self, view):
        regimes = analysis.get(view.run, "classify")["regime"].values[1]
        buttons = tokens(drawn(view, "prompt=1&restart=1"))
        assert len(buttons) == 8
        for button, regime in zip(buttons, regimes[8:16], strict=True):
            assert button.style["--token-colour"] == plots.palette("light").regimes[regime].colour
            assert button.style["borderBottomStyle"] == BORDERS[regime]
            assert button.children[1].children == SYMBOLS[regime]
            assert regime.replace("_", " ") in getattr(button, "aria-label")

    def test_a_number_is_written_below_the_token(self, view):
        entropy = analysis.token_values(view.run, "entropy", slice(0, 8))["entropy"].values
        buttons = tokens(drawn(view, "prompt=0&colour=entropy"))
        assert [button.children[1].children for button in buttons] == [
            short_number(v) for v in entropy
        ]
        scale = [stop for _, stop in plots.palette("light").sequential]
        assert all(button.style["--token-colour"] in scale for button in buttons)

    def test_what_never_settles_says_so(self, view):
        settling = analysis.get(view.run, "convergence")["settling_iteration"].values[0, :8]
        cues = [
            button.children[1].children
            for button in tokens(drawn(view, "prompt=0&colour=settling_iteration"))
        ]
        assert [cue == "never" for cue in cues] == [value != value for value in settling]
        assert "never" in cues

    def test_every_statistic_can_colour_the_tokens(self, view):
        names = [name for name, _ in view.limits.options["colour"]]
        assert names[0] == "regime"
        for name in names:
            if analysis.token_statistics(view.run)[name].stored:
                found = drawn(view, f"colour={name}")
                assert len(tokens(found)) == 8
                assert not [part for part in parts(found) if "strip-note" in str(part)]

    def test_a_word_of_the_legend_filters_for_it_and_ends_that(self, view):
        found = picks(drawn(view, "filter=regime=orbit"))
        assert found["button legend-word"]["filter"] in (
            {"", *(f"regime={regime}" for regime in REGIMES)}
        )
        legend = [part for part in parts(drawn(view)) if "legend-word" in str(part)][-1]
        word = json.loads(getattr(legend, "data-pick"))["filter"]
        again = picks(drawn(view, f"filter={word}"))
        assert again["button legend-word"]["filter"] in ("", word)
        assert (
            sum(analysis.word_counts(view.run, "regime").values()) == view.limits.tokens
        )  # each is counted once

    @pytest.mark.parametrize(
        ("value", "text"),
        [(3.0, "3"), (0.12345, "0.123"), (2.5e-7, "2.5e−7"), (float("nan"), "–"), (-4, "−4")],
    )
    def test_numbers_are_short(self, value, text):
        assert short_number(value) == text


class TestFilter:
    def test_matches_are_marked_counted_and_reached(self, view):
        orbits = analysis.matches(view.run, "orbit")
        found = drawn(view, "token=0&filter=orbit")
        marked = [
            int(getattr(button, "data-token"))
            for button in tokens(found)
            if "match" in button.className
        ]
        assert marked == [token for token in orbits if token < 8]
        assert f"{len(orbits)} of 24 tokens match, {len(marked)} in this prompt" in str(found)
        assert picks(found)["next-match"] == {"token": str(orbits[0]), "also": ""}
        assert picks(found)["previous-match"] == {"token": str(orbits[-1]), "also": ""}

    def test_the_browser_gets_the_matches_around_the_token(self, view):
        orbits = analysis.matches(view.run, "orbit").tolist()
        at = orbits.index(next(token for token in orbits if token >= 8))
        sent = strip.PANEL.frames(
            view, selected(view, f"/overview?token={orbits[at]}&filter=orbit")
        )
        assert sent["next"] == (orbits[at + 1 :] + orbits[: at + 1])
        assert sent["previous"] == (orbits[at:] + orbits[:at])[::-1]
        assert sent["matches"] is True

    @pytest.mark.parametrize("query", ["regme=orbit", "entropy>x", "nonsense"])
    def test_a_filter_that_cannot_be_read_is_explained_and_hides_nothing(self, view, query):
        found = drawn(view, f"filter={query.replace('>', '%3E')}")
        assert len(tokens(found)) == 8
        notes = [part for part in parts(found) if getattr(part, "className", "") == "strip-note"]
        assert len(notes) == 1
        assert not [button for button in tokens(found) if "other" in button.className]

    def test_the_same_in_a_notebook_is_one_call(self, view):
        place = selected(view, "/overview?token=12&colour=entropy&layer=1")
        call = strip.PANEL.call(view, place)
        assert call.text() == "plots.tokens(run, prompt=1, colour='entropy', layer=1, token=12)"
        assert call.draw(view.run).data


class TestSizes:
    def test_a_large_run_without_analyses_says_how_to_get_regimes(self, run_path, monkeypatch):
        monkeypatch.setattr(panel, "_SMALL", 0)
        large = view_of(run_path)
        assert large.limits.options["colour"][0][0] == "entropy"
        assert ("regime", "Regime (computed first)") in large.limits.options["colour"]
        found = drawn(large)
        assert f"looplens analyze {run_path}" in str(found)
        assert len(tokens(found)) == 8

    def test_a_long_prompt_is_shown_in_pieces(self, view, monkeypatch):
        monkeypatch.setattr(around, "MOST_TOKENS", 3)
        found = drawn(view, "prompt=1&token=12")
        assert [getattr(button, "data-token") for button in tokens(found)] == ["11", "12", "13"]
        assert "positions 3 to 5 of 8" in str(found)
        assert {"token": "10"} in [
            json.loads(getattr(part, "data-pick"))
            for part in parts(found)
            if hasattr(part, "data-pick")
        ]

    def test_numbers_of_every_token_are_sent_for_hovering(self, view):
        sent = strip.PANEL.frames(view, selected(view, "/overview?prompt=2"))
        assert len(sent["rows"]) == 8
        assert {len(row) for row in sent["rows"]} == {1 + len(sent["names"])}
        assert sent["first"] == 16
        assert "Regime" in sent["names"]
        json.dumps(sent)


@pytest.fixture(scope="module")
def served(run_path):
    with serving(run_path) as address:
        yield address.rstrip("/")


class TestBrowser:
    def test_filter_to_orbits_and_step_from_one_to_the_next(self, visit, served, view):
        orbits = [str(token) for token in analysis.matches(view.run, "orbit")]
        visit.open(f"{served}/trajectories?token=0")
        visit.page.click(".legend-word:has-text('orbit')")
        visit.wait_for_query(filter="regime=orbit")
        visit.drawn()
        marked = "[...document.querySelectorAll('.token.match')].map((b) => b.dataset.token)"
        visit.eventually(lambda: visit.page.evaluate(marked), [o for o in orbits if int(o) < 8])
        visit.page.keyboard.press("n")
        visit.wait_for_query(token=orbits[0])
        visit.drawn()
        visit.page.keyboard.press("Shift+N")
        visit.wait_for_query(token=orbits[-1])
        visit.drawn()
        visit.page.click("#next-match")
        visit.wait_for_query(token=orbits[0])
        assert visit.complaints == []

    def test_several_keys_in_a_row_count_from_where_they_began(self, visit, served, view):
        orbits = [str(token) for token in analysis.matches(view.run, "orbit")]
        visit.open(f"{served}/trajectories?token={orbits[0]}&filter=orbit")
        visit.page.keyboard.press("n")
        visit.page.keyboard.press("n")
        visit.wait_for_query(token=orbits[2])

    def test_a_filter_is_typed_and_its_errors_are_read(self, visit, served):
        visit.open(f"{served}/trajectories?token=3")
        box = visit.page.get_by_label("Filter, such as regime=orbit").first
        box.fill("regme=orbit")
        visit.page.wait_for_selector(".strip-note >> text=Did you mean 'regime'?")
        box.fill("position>=6")
        visit.page.wait_for_selector(".matches >> text=6 of 24 tokens match")
        visit.wait_for_query(filter="position>=6")
        assert visit.page.evaluate("document.activeElement.tagName") == "INPUT"  # still typing
        assert visit.complaints == []

    def test_hovering_and_focus_show_the_numbers(self, visit, served):
        visit.open(f"{served}/trajectories?token=3")
        visit.page.hover("[data-token='5']")
        tip = visit.page.locator("#token-tip")
        tip.wait_for(state="visible")
        assert "token 5" in tip.inner_text()
        assert "Entropy of the prediction" in tip.inner_text()
        visit.page.keyboard.press("Escape")
        tip.wait_for(state="hidden")

    def test_colours_are_chosen_and_are_in_the_link(self, visit, served):
        visit.open(f"{served}/trajectories?token=3&colour=entropy")
        cue = ".token[data-token='3'] .cue"
        number = visit.page.inner_text(cue)
        assert float(number.replace("−", "-")) > 0
        visit.page.get_by_label("Colour of the tokens").first.click()
        visit.page.get_by_role("option", name="Rank of the target", exact=True).click()
        visit.wait_for_query(colour="target_rank")
        visit.drawn()
        assert visit.page.inner_text(cue) != number
