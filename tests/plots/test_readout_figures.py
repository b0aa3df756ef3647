"""Figures of single tokens' predictions and of one exit rule: they draw what the analyses say."""

import numpy as np
import pytest

from looplens import analysis, plots
from looplens.errors import InputError
from looplens.plots import _select


def named(figure, name):
    return next(trace for trace in figure.data if trace.name == name)


def cursors(figure):
    return [shape for shape in figure.layout.shapes if shape.name == plots.CURSOR]


class TestPredictions:
    def test_cells_are_the_recorded_probabilities(self, run):
        found = analysis.token_readout(run, 11, 1)
        cells = named(plots.predictions(run, 11, 1), "predictions")
        np.testing.assert_allclose(cells.z, found["probability"].values.T, atol=1e-6)
        assert list(cells.y) == [1, 2, 3, 4, 5]
        assert cells.text[0][3] == found["text"].values[3, 0]

    def test_a_word_is_written_once_for_as_long_as_it_keeps_its_rank(self, run):
        figure = plots.predictions(run, 9)
        best = analysis.token_readout(run, 9)["text"].values[:, 0]
        written = [
            (x, word)
            for trace in figure.data
            if trace.name == "words"
            for x, y, word in zip(trace.x, trace.y, trace.text, strict=True)
            if y == 1
        ]
        assert written
        assert len(written) <= 1 + (best[1:] != best[:-1]).sum()
        assert all(best[int(np.ceil(x)) - 1] == word for x, word in written)

    def test_the_right_answer_is_framed_where_it_ranks(self, run):
        found = analysis.token_readout(run, 11)
        frames = named(plots.predictions(run, 11), "right answer")
        corners = np.array([x for x in frames.x if x is not None]).reshape(-1, 5)
        covered = (corners[:, 1] - corners[:, 0]).sum()
        assert covered == (found["token_id"].values == found.attrs["target"]).sum()
        assert not any(
            trace.name == "right answer" for trace in plots.predictions(run, 0).data
        )  # the first token has no target

    def test_both_panels_have_the_cursor(self, run):
        shapes = cursors(plots.predictions(run, 3, iteration=7))
        assert [shape.x0 for shape in shapes] == [7, 7]
        assert not any(shape.visible for shape in cursors(plots.predictions(run, 3)))


class TestRankTrajectories:
    def test_curves_are_the_candidates(self, run):
        found = analysis.candidates(run, 11, most=3)
        figure = plots.rank_trajectories(run, 11, most=3)
        assert len(figure.data) == 6
        for number in range(3):
            above, below = figure.data[2 * number : 2 * number + 2]
            np.testing.assert_allclose(above.y, found["probability"].values[number])
            np.testing.assert_allclose(below.y, found["rank"].values[number] + 1)
        assert figure.data[0].name.endswith("(right answer)")
        assert len({(trace.line.dash, trace.marker.symbol) for trace in figure.data}) == 3

    def test_rank_one_is_at_the_top(self, run):
        low, high = plots.rank_trajectories(run, 11).layout.yaxis2.range
        assert low > high


class TestFlips:
    def test_every_change_has_a_symbol_and_is_counted(self, run):
        changes = analysis.prediction_changes(run, run.token_range(2), 1)
        figure = plots.flips(run, 2, 1, token=18, iteration=4)
        np.testing.assert_array_equal(named(figure, "changes").y, changes["changes"])
        drawn = sum(
            len(trace.x)
            for trace in figure.data
            if trace.type == "scatter" and trace.name != "right"
        )
        assert drawn == changes["changed"].values.sum() > 0
        row = next(shape for shape in figure.layout.shapes if shape.name == "row")
        assert row.y0 + 0.5 == 18 - figure.layout.meta["first_token"] == 2

    def test_a_change_away_from_the_right_answer_is_told_from_one_towards_it(self, run):
        changes = analysis.prediction_changes(run, run.token_range(0))
        right = changes["right"].values
        towards = (changes["changed"].values & (right == 1)).sum()
        names = [trace.name for trace in plots.flips(run, 0).data if trace.name]
        assert (f"to right ({towards})" in names) == (towards > 0)

    def test_a_long_prompt_is_shown_around_the_token(self):
        shown, note = _select.window(slice(100, 1100), 700, 240)
        assert (shown, note) == (slice(580, 820), "positions 480 to 719 of 1000")
        assert _select.window(slice(100, 1100), 1099, 240)[0] == slice(860, 1100)
        assert _select.window(slice(0, 240), None, 240) == (slice(0, 240), "")
        with pytest.raises(InputError, match="token 5 is not in the prompt, which has the tokens"):
            _select.window(slice(100, 110), 5, 240)


class TestExitBench:
    def test_every_threshold_comes_with_its_histogram(self, run):
        results = analysis.get(run, "exits")
        figure = plots.exit_bench(run, "kl", 1e-2, token=11, restart=1, iteration=9)
        bench = figure.layout.meta["bench"]
        places = np.flatnonzero(results["rule"].values == "kl")
        assert bench["thresholds"] == results["threshold"].values[places].tolist()
        assert bench["thresholds"][bench["stands"]] == 1e-2
        np.testing.assert_allclose(
            bench["exit_share"], results["exit_share"].values[places], atol=1e-5
        )
        np.testing.assert_allclose(
            named(figure, "leave").y, results["exit_share"].values[places[bench["stands"]]]
        )
        own = named(figure, "token 3 " + run.tokens["text"].values[11])
        np.testing.assert_array_equal(
            own.y, results["exit_iteration"].values[1, 11, places].astype(float)
        )
        lines = [shape.x0 for shape in figure.layout.shapes if shape.name == "threshold"]
        assert lines == [bench["stands"]] * 2
        assert [shape.x0 for shape in cursors(figure)] == [9]

    def test_shares_and_means_of_exits_belong_together(self, run):
        results = analysis.get(run, "exits")
        shares = results["exit_share"].values.astype(float)
        np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-5)
        mean = shares @ results["iteration"].values
        np.testing.assert_allclose(mean, results["iterations"], rtol=1e-5)

    def test_thresholds_run_from_early_to_late_exits(self, run):
        for rule in ("kl", "latent-diff", "argmax-stability", "depth"):
            mean = named(plots.exit_bench(run, rule), "mean exit").y
            assert (np.diff(mean) >= 0).all()

    @pytest.mark.parametrize(
        ("rule", "threshold", "message"),
        [
            ("k", None, r"'k' is not on the bench of this run.*Did you mean 'kl'\?"),
            ("kl", 0.5, r"no threshold 0.5 of this rule; it has: 1, 0.316"),
        ],
    )
    def test_what_is_not_on_the_bench(self, run, rule, threshold, message):
        with pytest.raises(InputError, match=message):
            plots.exit_bench(run, rule, threshold)


class TestTokens:
    def test_every_token_is_a_cell_with_its_text_and_value(self, run):
        figure = plots.tokens(run, 1, "settling_iteration", restart=1, token=12)
        cells = named(figure, "tokens")
        texts = [text for text in np.ravel(cells.text) if text]
        settling = analysis.get(run, "convergence")["settling_iteration"].values[1, 8:16]
        tokens = run.tokens["text"].values[8:16]
        assert texts == [
            f"{token}<br>{'never' if np.isnan(value) else int(value)}"
            for token, value in zip(tokens, settling, strict=True)
        ]
        frame = figure.layout.shapes[0]
        across = np.shape(cells.z)[1]
        assert (frame.y0 + 0.5) * across + frame.x0 + 0.5 == 4

    def test_a_scale_goes_from_end_to_end(self, run):
        looks = plots.token_looks(run, "settling_iteration")
        assert looks.logarithmic
        assert (looks.share(1), looks.share(8), looks.share(64)) == (0, pytest.approx(0.5), 1)
        stops = plots.palette("light").sequential
        assert looks.of(1.0).colour == stops[0][1]
        assert looks.of(64.0).colour == stops[-1][1]

    def test_words_have_colours_and_borders_of_their_own(self, run):
        looks = plots.token_looks(run, "kind")
        seen = {(look.colour, look.border) for look in looks.of_words.values()}
        assert len(seen) == len(looks.counts) > 1
        assert sum(looks.counts.values()) == run.n_tokens

    def test_many_words_have_no_colours(self, run):
        looks = plots.token_looks(run, "reason")
        if len(analysis.word_counts(run, "reason")) > 18:
            assert not looks.of_words
        assert looks.of("").cue == "–"
