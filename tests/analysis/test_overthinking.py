"""Flips, agreement and lost answers, by hand and over a run of a model that loses its answers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import looplens as ll
from looplens import analysis, plots
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
