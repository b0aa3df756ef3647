"""Flips, agreement and lost answers, by hand and over a run of a model that loses its answers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import looplens as ll
from looplens import analysis, plots
from looplens.analysis.analyzers import exits as exits_analyzer
from looplens.analysis.analyzers import readout as readout_analyzer
from looplens.analysis.analyzers._analyzer import readouts
from looplens.errors import AnalysisError, InputError
from looplens.prompts import Prompt
from looplens.testing import synthetic_run


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=1, max_size=5))
def test_agreement_is_the_share_of_equal_answers(rows):
    predicted = np.array(rows)
    matrix = analysis.agreement_matrix(predicted)
    expected = (predicted[:, :, None] == predicted[:, None, :]).mean(0)
    np.testing.assert_allclose(matrix, expected)
    assert (np.diag(matrix) == 1).all()
    # Neighbours agree where nothing flips.
    flips = analysis.prediction_flips(predicted).sum()
    assert (1 - np.diag(matrix, 1)).sum() * len(rows) == pytest.approx(flips)


def test_what_did_not_run_is_not_compared():
    matrix = analysis.agreement_matrix([[1, 1, -1], [2, 3, -1]])
    assert matrix[0, 1] == 0.5
    assert np.isnan(matrix[:, 2]).all()


def test_what_left_by_itself_keeps_its_answer():
    predicted = np.array([[4, 5, -1, -1], [1, 1, 2, 2], [-1, -1, -1, -1]])
    ranks = np.array([[3, 0, -1, -1], [0, 0, 1, 1], [-1, -1, -1, -1]])
    held = analysis.carried(predicted, predicted)
    assert held.tolist() == [[4, 5, 5, 5], [1, 1, 2, 2], [-1, -1, -1, -1]]
    assert analysis.prediction_flips(held).tolist() == [1, 1, 0]
    assert analysis.prediction_settling(held).tolist() == [2, 3, 1]
    right = analysis.carried(ranks, predicted) == 0
    assert right.mean(0).tolist() == [1 / 3, 2 / 3, 1 / 3, 1 / 3]
    np.testing.assert_array_equal(analysis.last_right(right), [np.nan, 2, np.nan])


def test_overthinking_by_hand():
    found = analysis.overthinking([[0.0, 0.8, 0.6], [0.1, 0.2, 0.9]])
    np.testing.assert_allclose(found.score, [0.2, 0.0])
    assert found.best_iteration.tolist() == [2, 3]
    last = analysis.last_right([[0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 1, 1]])
    np.testing.assert_array_equal(last, [3, np.nan, np.nan])
    with pytest.raises(InputError, match="axis of iterations"):
        analysis.overthinking(np.zeros((2, 0)))


@pytest.fixture(scope="module")
def losing(tmp_path_factory):
    """A run of a model trained for 4 iterations, run for 32."""
    model = ll.load_model("phop-ouro-mini")
    rng = np.random.default_rng(0)
    prompts = []
    for _ in range(4):
        ids = (3, *map(int, rng.integers(8, 12, 16)))
        answers = model(list(ids), iterations=4)[0].argmax(-1).tolist()
        metadata = {"difficulty": tuple(float(i % 3) for i in range(17))}
        prompts.append(
            Prompt(
                token_ids=ids,
                text="",
                token_texts=("x",) * 17,
                targets=(-1, *answers[1:]),
                token_metadata=metadata,
            )
        )
    out = tmp_path_factory.mktemp("losing") / "run"
    return ll.record(model, prompts, out=out, iterations=32, progress=False)


def test_lost_answers_are_counted(losing):
    found = analysis.get(losing, "readout")
    summary = losing.summary()["readout"]
    assert summary["best_iteration"] == 4
    assert summary["best_accuracy"] == 1
    assert summary["overthinking"] == pytest.approx(1 - summary["final_accuracy"])
    assert summary["lost_share"] == pytest.approx(summary["overthinking"])
    assert summary["worst_overthinking"] >= summary["overthinking"]
    assert (found["last_right"].values[np.isfinite(found["last_right"].values)] >= 4).all()
    # Accuracy per operation, first class: eight times the depth for fewer right answers.
    ratio = found["accuracy_per_gflop"].values
    assert ratio[3] == pytest.approx(1 / found["gflops"].values[3])
    assert summary["best_accuracy_per_gflop"] > 7 * summary["final_accuracy_per_gflop"]
    depth = analysis.get(losing, "exits")
    at = int(np.flatnonzero((depth["rule"] == "depth") & (depth["threshold"] == 4))[0])
    assert depth["accuracy_per_gflop"].values[at] == pytest.approx(ratio[3])
    assert losing.summary()["exits"]["best_rule"] == "depth:4"


def test_a_model_that_leaves_early_loses_nothing_by_it(tmp_path):
    run = ll.open_run(synthetic_run(tmp_path / "run", prompts=1, tokens=4, iterations=8))
    whole = analysis.get(run, "readout")

    def stopped(source, names, **place):
        for tokens, part in readouts(source, names, **place):
            for values in part.values():  # as the recorder fills what did not run
                values[..., 4:] = -1 if values.dtype.kind == "i" else np.nan
            yield tokens, part

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readout_analyzer, "readouts", stopped)
        patch.setattr(exits_analyzer, "readouts", stopped)
        found = analysis.ANALYZERS["readout"].compute(run)
        exits = analysis.ANALYZERS["exits"].compute(run)
    np.testing.assert_array_equal(found["accuracy"][:4], whole["accuracy"][:4])
    assert (found["accuracy"][3:] == whole["accuracy"][3]).all()
    assert (found["prediction_settling"] <= 4).all()
    assert np.isnan(found["last_right"]).all() == np.isnan(whole["last_right"]).all()
    assert np.isnan(found["entropy"][4:]).all()
    assert exits["exit_iteration"].max() == 4
    depths = exits.isel(policy=exits["rule"].values == "depth")
    np.testing.assert_array_equal(depths["accuracy"], found["accuracy"])
    assert (depths["agreement"][3:] == 1).all()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_figures(losing, tmp_path, theme):
    matrix = plots.prediction_agreement(losing, theme=theme)
    np.testing.assert_array_equal(
        matrix.data[0].z, analysis.get(losing, "readout")["prediction_agreement"]
    )
    ranks = plots.target_ranks(losing, 1, theme=theme)
    assert np.asarray(ranks.data[0].z).shape == (16, 32)
    with pytest.raises(InputError, match="prompt 9"):
        plots.target_ranks(losing, 9)


def test_a_prompt_without_targets_has_no_ranks(tmp_path):
    model = ll.load_model("phop-ouro-mini")
    run = ll.record(model, [[1, 8, 9]], out=tmp_path / "run", iterations=4, progress=False)
    with pytest.raises(AnalysisError, match="No token of prompt 0 has a target"):
        plots.target_ranks(run, 0)


def test_many_iterations_are_compared_in_equal_ratios(tmp_path):
    run = ll.open_run(synthetic_run(tmp_path / "run", iterations=150, prompts=1, restarts=1))
    found = analysis.get(run, "readout")
    compared = found["compared"].values
    assert len(compared) <= 64
    assert compared[0] == 1
    assert compared[-1] == 150
    assert "gflops" not in found
