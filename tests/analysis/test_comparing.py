"""Two runs of the same prompts: which tokens are paired, what differs, how surely."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from selecting_runs import select_run

from looplens import analysis, plots, reports
from looplens.analysis.comparing.aligning import align
from looplens.analysis.comparing.bootstrap import PairedBootstrap
from looplens.analysis.comparing.differences import difference_of
from looplens.errors import AnalysisError, InputError
from looplens.prompts import Prompt
from looplens.run import open_run
from looplens.store import RunSpec, RunWriter
from looplens.testing.runs import synthetic_run

PROMPTS, TOKENS, ITERATIONS = 24, 4, 24
ALL = tuple(range(PROMPTS))


def write(path, rate, *, order=ALL, iterations=ITERATIONS, seeds=(0, 1), shift=0):
    """Write a run whose token i of prompt p shrinks by ``rate + p / 1000`` in an iteration."""
    prompts = [
        Prompt(
            token_ids=tuple(number * TOKENS + place + shift for place in range(TOKENS)),
            text=f"prompt {number}",
            token_texts=tuple(f"{number}.{place}" for place in range(TOKENS)),
            token_metadata={"place": tuple(map(float, range(TOKENS)))},
            metadata={"half": "first" if number < PROMPTS / 2 else "second"},
        )
        for number in order
    ]
    spec = RunSpec(
        prompts=prompts,
        iterations=iterations,
        n_layers=1,
        d_model=3,
        sites=(),
        restarts=len(seeds),
        restart_seeds=seeds,
        initial_state="noise",
        model={"name": f"rate {rate}", "source": "tests", "family": "formula", "config": {}},
    )
    time = np.arange(iterations + 1)[:, None]
    with RunWriter(path, spec) as writer:
        for place, number in enumerate(order):
            # What a state is depends on the prompt and not on its place in the run.
            rng = np.random.default_rng(number)
            start = rng.normal(size=(len(seeds), TOKENS, 1, 3))
            states = 2.0 + start * (rate + number / 1000) ** time
            writer.write(place * TOKENS, (place + 1) * TOKENS, {"loop/state": states})
    return open_run(path)


def comparison_row(found, name, key):
    return next(row for row in found.summaries if (row.analysis, row.name) == (name, key))


@pytest.fixture(scope="module")
def fast(tmp_path_factory):
    return write(tmp_path_factory.mktemp("comparing") / "fast", 0.4)


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    return write(tmp_path_factory.mktemp("comparing") / "slow", 0.6)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two synthetic runs of the same prompts with every kind of data."""
    made = tmp_path_factory.mktemp("comparing")
    runs = [
        open_run(synthetic_run(made / f"seed {seed}", seed=seed, iterations=32)) for seed in (0, 1)
    ]
    for run in runs:
        run.analyze()
    return runs


@pytest.fixture(scope="module")
def comparison(whole):
    return analysis.compare(*whole, by="difficulty", n_boot=200)


class TestDifferences:
    def test_a_known_change_of_the_rate(self, fast, slow):
        found = analysis.compare(fast, slow, "convergence", n_boot=200)
        rate = found["convergence.rate"]
        assert rate.a == pytest.approx(0.4 + np.mean(ALL) / 1000, abs=2e-3)
        assert rate.difference == pytest.approx(0.2, abs=2e-3)
        assert rate.low <= rate.difference <= rate.high
        assert rate.clear
        assert rate.tokens == PROMPTS * TOKENS
        curve = found["convergence.relative_step"]
        assert curve.iteration.tolist() == list(range(1, ITERATIONS + 1))
        assert (curve.b > curve.a)[5:].all()
        summary = next(row for row in found.summaries if row.name == "median_rate")
        assert summary.difference == pytest.approx(0.2, abs=2e-3)
        assert summary.low < summary.difference < summary.high
        assert "0.4" in found.settings[0][1]

    def test_exchanging_the_runs_exchanges_the_sign(self, fast, slow):
        one = analysis.compare(fast, slow, "convergence", n_boot=200)
        other = analysis.compare(slow, fast, "convergence", n_boot=200)
        for row in one.statistics:
            back = other[row.key]
            assert back.difference == pytest.approx(-row.difference)
            assert (back.low, back.high) == pytest.approx((-row.high, -row.low), nan_ok=True)

    def test_a_run_does_not_differ_from_itself(self, whole):
        found = analysis.compare(whole[0], whole[0], n_boot=100)
        assert all(row.difference == 0 for row in found.statistics)
        assert all(row.share == 1 for row in found.agreements)
        table = found["classify.regime"].table
        assert table.sum() == pytest.approx(1)
        assert np.trace(table) == pytest.approx(1)
        assert not found.settings

    def test_every_standard_analysis_takes_part(self, comparison):
        parts = {row.analysis for row in (*comparison.statistics, *comparison.summaries)}
        named = {name for name, one in analysis.ANALYZERS.items() if one.standard}
        left_out = {key.partition(".")[0] for key in comparison.skipped}
        possible = {n for n in named if analysis.ANALYZERS[n].needs(comparison.a) is None}
        assert possible <= parts | left_out
        assert {"predictions", "convergence", "classify", "readout"} <= parts

    def test_shares_of_words_are_differences_too(self, whole, comparison):
        shares = [(run.results("classify")["regime"].values == "orbit").mean() for run in whole]
        row = comparison["classify.regime.orbit"]
        assert (row.a, row.b) == pytest.approx(tuple(shares))

    def test_groups_are_of_their_tokens(self, fast, slow):
        found = analysis.compare(fast, slow, "convergence", by="half", n_boot=100)
        rates = {
            label: next(row for row in rows if row.name == "rate")
            for label, rows in found.groups.items()
        }
        assert set(rates) == {"first", "second"}
        assert rates["second"].a - rates["first"].a == pytest.approx(0.012, abs=2e-3)
        assert rates["first"].tokens == PROMPTS * TOKENS / 2

    def test_runs_with_nothing_in_common_come_first(self, fast, slow):
        found = analysis.compare(fast, slow, "convergence", n_boot=100)
        row = found["convergence.rate"]
        apart = dataclasses.replace(row, name="apart", a=0.0, b=1.0, difference=1.0, spread=0.5)
        tiny = dataclasses.replace(apart, name="tiny", a=1.0, b=1.0 - 2e-16, difference=-2e-16)
        again = dataclasses.replace(apart, name="again")
        made = dataclasses.replace(found, statistics=(row, tiny, apart, again))
        assert [one.name for one in made.largest(9)] == ["apart", "rate"]
        assert apart.effect == 2
        assert abs(row.effect) < 2

    def test_constant_values_have_an_effect(self):
        prompt = np.arange(4)
        draw = PairedBootstrap(4, n_boot=100)
        row = difference_of("a", "b", "c", "", np.zeros(4), np.ones(4), prompt, draw)
        assert row is not None
        assert (row.effect, row.low, row.high) == (2, 1, 1)

    def test_the_final_accuracy_is_that_of_the_shared_tokens(self, whole, comparison):
        row = comparison_row(comparison, "readout", "final_accuracy")
        own = [run.summary()["readout"]["final_accuracy"] for run in whole]
        assert (row.a, row.b) == pytest.approx(tuple(own))
        assert row.low <= row.difference <= row.high

    def test_each_call_keeps_what_it_computed(self, fast, slow, monkeypatch):
        analysis.compare(fast, slow, "geometry", n_boot=100)
        monkeypatch.setattr("looplens.analysis.suite.computed", None)  # nothing is computed again
        fast.compare(slow, "geometry", n_boot=100)


class TestSomeOfThePrompts:
    def test_only_some_prompts_are_compared_and_read(self, whole, fast, slow, monkeypatch):
        found = analysis.compare(fast, slow, "convergence", most_tokens=40, n_boot=100)
        prompts = np.arange(1, PROMPTS, 3)  # every third of 24, from the middle of the first three
        assert (found.n_prompts, found.n_tokens) == (8, 32)
        assert found["convergence.rate"].a == pytest.approx(0.4 + prompts.mean() / 1000, abs=2e-3)
        summary = next(row for row in found.summaries if row.name == "median_rate")
        assert summary.a == pytest.approx(0.4 + np.median(prompts) / 1000, abs=2e-3)
        assert any("8 of the 24 shared prompts are compared" in note for note in found.notes)
        assert not any("most_tokens" in note for note in analysis.compare(fast, slow, "pca").notes)
        few = analysis.compare(*whole, ["classify", "predictions"], most_tokens=8, n_boot=100)
        assert (few.n_prompts, few.n_tokens) == (1, 8)
        assert few["predictions.correct.last"].tokens <= 8

    def test_a_number_below_one(self, fast, slow):
        with pytest.raises(InputError, match="most_tokens must be at least 1, or None for all"):
            analysis.compare(fast, slow, most_tokens=0)


class TestOnePrompt:
    def test_states_of_closed_form(self, fast, slow):
        rate = np.array([0.4, 0.6]) + 5 / 1000
        found = analysis.state_distance(fast, slow, 5, restart=1)["distance"]
        assert found.sizes == {"token": TOKENS, "iteration": ITERATIONS + 1}
        start = np.random.default_rng(5).normal(size=(2, TOKENS, 1, 3))[1]
        a, b = (2 + start * r ** np.arange(ITERATIONS + 1)[:, None] for r in rate)
        size = np.sqrt(((a**2).sum(-1) + (b**2).sum(-1)) / 2)
        assert found.values == pytest.approx(np.linalg.norm(b - a, axis=-1) / size, abs=1e-5)
        back = analysis.state_distance(slow, fast, 5, restart=1)["distance"]
        assert back.values == pytest.approx(found.values)
        assert not analysis.state_distance(fast, fast, 5)["distance"].values.any()

    def test_the_same_prompt_at_another_place(self, fast, slow, tmp_path):
        mixed = write(tmp_path / "mixed", 0.6, order=ALL[::-1], seeds=(0,))
        tokens, others = analysis.shared_tokens(fast, mixed, 3)
        assert tokens.tolist() == [12, 13, 14, 15]
        assert others.tolist() == [80, 81, 82, 83]
        found = analysis.compare_prompt(fast, mixed, 3, "rate", restart=1)
        assert found["other_token"].values.tolist() == others.tolist()
        assert found.attrs["restarts"] == (1, 0)
        rates = found["rate"].mean("token")
        assert rates.values == pytest.approx([0.403, 0.603], abs=2e-3)
        straight = analysis.state_distance(fast, slow, 3)["distance"].values
        assert analysis.state_distance(fast, mixed, 3)["distance"].values == pytest.approx(straight)

    def test_what_cannot_be_compared(self, fast, whole, tmp_path):
        other = write(tmp_path / "other", 0.6, order=(1, 2))
        with pytest.raises(InputError, match="Prompt 0 of fast, 'prompt 0', is not in other"):
            analysis.shared_tokens(fast, other, 0)
        shifted = write(tmp_path / "shifted", 0.6, shift=1)
        with pytest.raises(InputError, match="but none of its tokens: they have other ids"):
            analysis.shared_tokens(fast, shifted, 0)
        with pytest.raises(InputError, match="prompt must lie between 0 and 23, got 24"):
            analysis.compare_prompt(fast, other, 24)
        with pytest.raises(InputError, match="knows no 'speed' of its tokens; it knows: "):
            analysis.compare_prompt(fast, fast, 0, "speed")
        with pytest.raises(AnalysisError, match="have 3 dimensions, those of seed 0 16: there is"):
            analysis.state_distance(fast, whole[0], 0)

    def test_of_a_long_prompt_the_tokens_around_one_are_shown(self, tmp_path):
        sizes = {"prompts": 1, "tokens": 200, "iterations": 24, "d_model": 4, "attention": False}
        runs = [open_run(synthetic_run(tmp_path / f"{n}", seed=n, **sizes)) for n in (0, 1)]
        states = plots.compare_states(*runs, token=190)
        (map_,) = (trace for trace in states.data if trace.type == "heatmap")
        assert map_.z.shape == (160, 25)
        assert states.layout.meta["first_token"] == 40
        assert "positions 40 to 199 of 200" in states.layout.title.subtitle.text
        tokens = plots.compare_tokens(*runs, token=190)
        assert "positions 40 to 199 of 200" in tokens.layout.title.subtitle.text
        assert len(tokens.layout.xaxis.tickvals) <= 40

    @pytest.mark.parametrize("theme", ["light", "dark"])
    def test_figures(self, whole, theme):
        made = plots.compare_tokens(*whole, 1, token=10, theme=theme)
        marks = [trace for trace in made.data if (trace.name or "").startswith(("a:", "b:"))]
        drawn = [place for trace in marks for place in trace.meta["tokens"]]
        assert sorted(drawn) == sorted(2 * list(range(8, 16)))  # one mark a token and run
        regimes = [trace for trace in made.data if trace.yaxis == "y2"]
        assert sum(len(trace.x) for trace in regimes) == 16
        states = plots.compare_states(*whole, 1, token=10, iteration=4, theme=theme)
        assert {shape.name for shape in states.layout.shapes} == {"row", plots.CURSOR}
        assert states.layout.meta["first_token"] == 8
        with pytest.raises(InputError, match=r"token 3 is not among the tokens .*: 8 to 15"):
            plots.compare_states(*whole, 1, token=3)
        with pytest.raises(InputError, match="value must be a number, and 'regime' is a word"):
            plots.compare_tokens(*whole, 1, "regime")


class TestAlignment:
    def test_the_order_of_prompts_does_not_matter(self, fast, slow, tmp_path):
        mixed = write(tmp_path / "mixed", 0.6, order=ALL[::-1])
        with pytest.warns(UserWarning, match="24 prompts with 96 tokens are in both"):
            found = analysis.compare(fast, mixed, "convergence", n_boot=100)
        straight = analysis.compare(fast, slow, "convergence", n_boot=100)
        for row in straight.statistics:
            assert found[row.key].difference == pytest.approx(row.difference, nan_ok=True)

    def test_only_what_both_have_is_compared(self, fast, tmp_path):
        part = write(tmp_path / "part", 0.6, order=(3, 7, 5), iterations=12, seeds=(5,))
        with pytest.warns(UserWarning, match="3 prompts .*of 24 prompts.*token 0 .'0.0'. against"):
            found = analysis.compare(fast, part, "convergence", n_boot=100)
        assert (found.n_prompts, found.n_tokens) == (3, 12)
        assert found["convergence.relative_step"].iteration[-1] == 12
        assert found["convergence.rate"].a == pytest.approx(0.405, abs=2e-3)
        assert any("24 and 12 iterations" in note for note in found.notes)

    def test_nothing_in_common_names_the_first_difference(self, fast, tmp_path):
        other = write(tmp_path / "other", 0.6, shift=1)
        with pytest.raises(InputError, match=r"prompt 0, position 0: token 0 \('0.0'\) against 1"):
            analysis.compare(fast, other)

    def test_other_tokens_of_the_same_prompt(self, selected_run_path, four_layer_path):
        whole, part = open_run(four_layer_path), open_run(selected_run_path)
        pairs = align(whole, part)
        assert len(pairs.tokens_b) == part.n_tokens
        for name in ("token_id", "position", "text"):
            one, other = whole.tokens[name].values, part.tokens[name].values
            assert (one[pairs.tokens_a] == other[pairs.tokens_b]).all()

    def test_runs_of_which_only_a_part_is_there(
        self, four_layer_path, few_layers_path, part_run_path
    ):
        whole = open_run(four_layer_path)
        with pytest.warns(UserWarning, match="9 tokens are in both runs"):
            found = analysis.compare(whole, open_run(few_layers_path), "classify", n_boot=100)
        assert found["classify.regime"].share > 0.8  # of random components of the same states
        found = analysis.compare(whole, open_run(part_run_path), ["classify", "readout"])
        assert found["classify.regime"].share == 1
        assert found["readout.prediction_flips"].tokens == 16
        assert any("2 of 3 blocks" in note for note in found.notes)

    def test_summaries_are_of_the_shared_prompts(self, whole, tmp_path):
        part = select_run(whole[0].path, tmp_path / "part", block_tokens=8, only_blocks=(0, 2))
        found = analysis.compare(whole[0], open_run(part), ["readout", "token_collapse"])
        for name, key in (("readout", "final_accuracy"), ("token_collapse", "max_token_cosine")):
            row = comparison_row(found, name, key)
            assert row.a == pytest.approx(row.b), key
            assert row.difference == pytest.approx(0, abs=1e-6)


class TestBootstrap:
    def test_it_is_the_normal_interval_for_many_prompts(self):
        rng = np.random.default_rng(0)
        values = rng.normal(size=400)
        found = PairedBootstrap(400, n_boot=2000).interval(values, np.ones(400))
        error = values.std() / 20
        expected = values.mean() + np.array([-1.96, 1.96]) * error
        assert np.array(found) == pytest.approx(expected, abs=0.15 * error)

    def test_prompts_count_by_their_tokens_and_one_says_nothing(self):
        total, known = np.array([2.0, 60.0]), np.array([2.0, 30.0])
        low, high = PairedBootstrap(2, n_boot=200).interval(total, known)
        assert (low, high) == (1.0, 2.0)
        alone = PairedBootstrap(1).interval(np.ones((1, 3)), np.ones((1, 3)))
        assert np.isnan(alone).all()
        assert alone[0].shape == (3,)

    @pytest.mark.parametrize(("options", "words"), [({"n_boot": 5}, "100"), ({"level": 2}, "0.95")])
    def test_bad_options(self, options, words):
        with pytest.raises(InputError, match=words):
            PairedBootstrap(3, **options)


class TestReportAndFigures:
    def test_every_format(self, comparison, tmp_path):
        html = reports.write_comparison(comparison, tmp_path / "c.html").read_text()
        assert "seed 0 and seed 1 compared" in html
        assert "cloud.plotly" not in html
        text = reports.write_comparison(comparison, tmp_path / "c.md").read_text()
        assert "By difficulty" in text
        sent = json.loads(reports.write_comparison(comparison, tmp_path / "c.json").read_text())
        row = sent["summary"]["classify"]["orbit_share"]
        assert set(row) == {"a", "b", "difference", "low", "high"}
        with pytest.raises(InputError, match="inside the run"):
            reports.write_comparison(comparison, comparison.b.path / "c.html")

    def test_conditions(self, comparison):
        numbers = comparison.numbers()
        assert reports.check(["compared.prompts == 3"], numbers)
        assert not reports.check(["agreement.classify.regime.share > 1"], numbers)
        assert not reports.check(["tokens.convergence.floor.difference > 1e6"], numbers)
        assert "groups.1.convergence" in numbers

    @pytest.mark.parametrize("theme", ["light", "dark"])
    def test_figures(self, comparison, theme):
        rows = plots.compare_forest(comparison, theme=theme)
        assert 1 <= sum(len(trace.y) for trace in rows.data) <= 24
        assert plots.compare_words(comparison, theme=theme).data
        assert plots.compare_curve(comparison, "predictions.correct", theme=theme).data
        with pytest.raises(InputError, match=r"Did you mean 'convergence.relative_step'"):
            plots.compare_curve(comparison, "convergence.relativ_step")
