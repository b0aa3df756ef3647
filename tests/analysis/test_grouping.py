"""Tokens in groups, analyses summed up in them, and pieces of analyses."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from looplens import analysis, plots
from looplens.analysis.grouped import describe, final_accuracy, single_values
from looplens.analysis.grouping import OTHER, all_columns, group_tokens, metadata_columns
from looplens.analysis.selecting import plain
from looplens.errors import AnalysisError, InputError
from looplens.prompts import Prompt
from looplens.run import open_run
from looplens.store import RunSpec, RunWriter
from looplens.testing.runs import synthetic_run

TASKS = ("sum", "sum", "copy")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    opened = open_run(synthetic_run(tmp_path_factory.mktemp("grouping") / "run", iterations=32))
    opened.analyze(["convergence", "classify", "readout", "attention_change"])
    return opened


@pytest.fixture(scope="module")
def tasks_run(tmp_path_factory):
    """Three prompts of two tasks; every token of task "copy" settles later."""
    rng = np.random.default_rng(0)
    prompts = [
        Prompt(
            token_ids=tuple(range(20)),
            text=f"prompt {number}",
            token_texts=tuple(f"w{i}" for i in range(20)),
            metadata={"task": task, "size": float(number)},
        )
        for number, task in enumerate(TASKS)
    ]
    spec = RunSpec(
        prompts=prompts,
        iterations=32,
        n_layers=1,
        d_model=4,
        restarts=1,
        restart_seeds=(0,),
        initial_state="noise",
        sites=(),
        model={"name": "tasks", "source": "tests", "family": "formula", "config": {}},
    )
    path = tmp_path_factory.mktemp("grouping") / "tasks"
    with RunWriter(path, spec) as writer:
        for number, task in enumerate(TASKS):
            decay = {"sum": 0.4, "copy": 0.7}[task] ** np.arange(33)[:, None]
            states = 3.0 + rng.normal(size=(1, 20, 1, 4)) * decay
            writer.write(number * 20, (number + 1) * 20, {"loop/state": states})
    return open_run(path)


class TestColumns:
    def test_numbers_and_words_of_tokens_and_prompts(self, tasks_run):
        assert metadata_columns(tasks_run) == ["size", "task"]
        by_task = group_tokens(tasks_run, "task")
        assert by_task.labels == ("sum", "copy")  # the most frequent first
        assert by_task.number.tolist() == [0] * 40 + [1] * 20
        assert by_task.prompts.tolist() == [0, 0, 1]
        assert group_tokens(tasks_run, "size").labels == ("0", "1", "2")

    def test_many_words_are_bounded(self, tasks_run):
        found = group_tokens(tasks_run, "text")
        assert len(found.labels) == 16
        assert found.labels[-1] == OTHER
        assert (found.number >= 0).all()

    def test_a_column_that_is_not_there(self, run):
        with pytest.raises(InputError, match="Did you mean 'difficulty'"):
            group_tokens(run, "dificulty")
        assert all_columns(run)[0] == "difficulty"


class TestGroupBy:
    def test_each_group_is_what_its_tokens_say(self, run):
        found = analysis.group_by(run, "convergence", "difficulty")
        number = group_tokens(run, "difficulty").number
        whole = run.results("convergence")["settling_iteration"].values
        for group in range(found.sizes["group"]):
            inside = whole[:, number == group]
            known = inside[np.isfinite(inside)]
            row = found["settling_iteration"][group]
            assert float(row.sel(statistic="known")) == pytest.approx(known.size / inside.size)
            if known.size:
                expected = [known.mean(), *np.quantile(known, [0.25, 0.5, 0.75])]
                assert row[1:].values == pytest.approx(expected)
            assert int(found["count"][group]) == (number == group).sum()
        assert found["relative_step"].dims == ("group", "statistic", "iteration")

    def test_words_become_shares(self, run):
        found = analysis.group_by(run, "classify", "difficulty")
        assert found["regime_share"].dims == ("group", "regime")
        assert found["regime_share"].sum("regime").values == pytest.approx(1)
        number = group_tokens(run, "difficulty").number
        orbits = run.results("classify")["regime"].values == "orbit"
        shares = [orbits[:, number == group].mean() for group in range(found.sizes["group"])]
        assert single_values(found)["regime.orbit"] == pytest.approx(shares)

    def test_by_task_the_slower_one_settles_later(self, tasks_run):
        found = analysis.group_by(tasks_run, "convergence", "task")
        settles = found["settling_iteration"].sel(statistic="median")
        assert float(settles.sel(group="copy")) > float(settles.sel(group="sum"))

    def test_what_cannot_be_grouped_says_so(self, run):
        with pytest.raises(AnalysisError, match="Nothing in 'attention_change'"):
            analysis.group_by(run, "attention_change", "difficulty")
        with pytest.raises(InputError, match="Did you mean 'rate'"):
            analysis.group_by(run, "convergence", variables=("rat",))

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), min_size=1, max_size=12))
    def test_describe_is_numpys_quantiles(self, values):
        known = np.array([value for value in values if np.isfinite(value)])
        found = describe(np.array(values))
        assert found[0] == pytest.approx(known.size / len(values))
        if known.size:
            expected = [known.mean(), *np.quantile(known, [0.25, 0.5, 0.75])]
            assert found[1:] == pytest.approx(expected, rel=1e-9, abs=1e-6)
        else:
            assert np.isnan(found[1:]).all()

    def test_accuracy_of_groups(self, run):
        groups = group_tokens(run, "difficulty")
        ranks = run.readout["target_rank"].isel(iteration=-1).values
        judged = (run.tokens["target"].values >= 0) & (groups.number == 1)
        assert final_accuracy(run, groups)[1] == pytest.approx((ranks[:, judged] == 0).mean())

    @pytest.mark.parametrize("theme", ["light", "dark"])
    def test_figures(self, run, theme):
        drawn = plots.grouped(run, theme=theme)
        assert "by difficulty" in drawn.layout.title.text
        drawn = plots.grouped(run, "text", name="classify", variable="regime", theme=theme)
        shares = np.sum([trace.y for trace in drawn.data], axis=0)
        assert shares == pytest.approx(1)
        with pytest.raises(InputError, match="several values a token"):
            plots.grouped(run, variable="relative_step")

    def test_a_number_that_no_token_has_is_said_to_be_unknown(self, run):
        found = run.group_by("convergence", "difficulty", variables=("settling_iteration",))
        found["settling_iteration"][:] = np.nan
        drawn = plots.grouped_figure(found, "settling_iteration")
        assert [note.text for note in drawn.layout.annotations] == ["known for no token"]


class TestSelect:
    def test_one_token_with_its_text(self, run):
        found = analysis.select(run, "convergence", tokens=2, restart=1, layer=0)
        whole = run.results("convergence")
        assert float(found["settling_iteration"]) == float(whole["settling_iteration"][1, 2])
        assert found["layer_relative_step"].dims == ("iteration",)
        assert str(found["text"].values) == str(run.tokens["text"].values[2])

    def test_a_prompt_and_its_json(self, run):
        found = analysis.select(run, "classify", prompt=1)
        tokens = run.token_range(1)
        assert found["token"].values.tolist() == list(range(tokens.start, tokens.stop))
        sent = json.loads(json.dumps(plain(found), allow_nan=False))
        assert sent["variables"]["regime"]["dims"] == ["restart", "token"]
        assert sent["coords"]["text"]["values"] == list(run.tokens["text"].values[tokens])

    def test_prompts_of_an_analysis_of_prompts(self, run):
        found = analysis.select(run, "attention_change", tokens=[0], head=1, restart=0)
        assert found["prompt"].values.tolist() == [0]
        assert "head" not in found["change"].dims

    @pytest.mark.parametrize(
        ("place", "words"),
        [
            ({"tokens": 99}, "token 99 is not in"),
            ({"restart": 2}, "0 to 1"),
            ({"layer": "x"}, "'x'"),
        ],
    )
    def test_what_is_not_there(self, run, place, words):
        with pytest.raises(InputError, match=words):
            analysis.select(run, "convergence", **place)
