"""Predictions of single tokens: against the recorded arrays, and of models that leave the loop."""

import numpy as np
import pytest

from looplens import analysis
from looplens.errors import AnalysisError, InputError
from looplens.prompts import Prompt
from looplens.run import open_run
from looplens.store import RunSpec, RunWriter


@pytest.fixture(scope="module")
def run(synthetic_run_path):
    return open_run(synthetic_run_path)


def written(path, ids, logprobs, *, target=(), entropy=None):
    """Return a run of one prompt with the given best tokens (token, iteration, rank)."""
    tokens, iterations, ranks = ids.shape
    spec = RunSpec(
        prompts=[
            Prompt(
                token_ids=tuple(range(tokens)),
                token_texts=tuple("abcdef"[:tokens]),
                text="abcdef"[:tokens],
                targets=tuple(target) or (-1,) * tokens,
            )
        ],
        iterations=iterations,
        n_layers=1,
        d_model=2,
        sites=(),
        readout_top_k=ranks,
        vocabulary=dict(enumerate("abcd")),
        model={"name": "written", "config": {}},
    )
    flat = np.zeros((1, tokens, iterations), np.float32)
    wanted = np.asarray(spec.prompts[0].targets)[:, None, None]
    hit = ids == wanted
    rank = np.where(wanted[..., 0] < 0, -1, np.where(hit.any(-1), hit.argmax(-1), ranks + 3))
    known = np.where(hit.any(-1), np.where(hit, logprobs, 0).sum(-1), -9.0)
    with RunWriter(path, spec) as writer:
        writer.write(
            0,
            tokens,
            {
                "loop/state": np.zeros((1, tokens, iterations + 1, 2), np.float32),
                "readout/topk_ids": ids[None].astype(np.int32),
                "readout/topk_logprobs": logprobs[None].astype(np.float32),
                "readout/entropy": flat if entropy is None else entropy[None],
                "readout/target_logprob": known[None].astype(np.float32),
                "readout/target_rank": rank[None].astype(np.int32),
                "readout/kl_to_previous": flat,
                "readout/kl_to_last": flat,
            },
        )
    return open_run(path)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Token 0 goes from b to c; the target of token 1 is outside of the two best at first."""
    ids = np.array([[[1, 2], [1, 2], [2, 1], [2, 0]], [[0, 1], [0, 1], [0, 3], [3, 0]]])
    share = np.array(
        [
            [[0.6, 0.3], [0.5, 0.4], [0.8, 0.1], [0.9, 0.05]],
            [[0.7, 0.2], [0.7, 0.2], [0.6, 0.3], [0.5, 0.4]],
        ]
    )
    path = tmp_path_factory.mktemp("small") / "run"
    return written(path, ids, np.log(share), target=(-1, 3))


def test_the_readout_of_a_token_is_what_was_recorded(run):
    token = 11
    found = analysis.token_readout(run, token, restart=1)
    part = run.readout.isel(restart=1, token=token)
    np.testing.assert_array_equal(found["token_id"], part["topk_ids"])
    np.testing.assert_allclose(found["probability"], np.exp(part["topk_logprobs"]), rtol=1e-6)
    np.testing.assert_allclose(found["target_probability"], np.exp(part["target_logprob"]))
    assert found.attrs["target_text"] == run.vocabulary[found.attrs["target"]]
    assert found["text"].values[5, 0] == run.vocabulary[int(found["token_id"].values[5, 0])]


def test_candidates_are_followed_in_and_out_of_the_recorded_ones(small):
    found = analysis.candidates(small, 0)
    assert list(found["text"].values) == ["c", "b", "a"]  # by the highest probability
    np.testing.assert_allclose(
        found["probability"], [[0.3, 0.4, 0.8, 0.9], [0.6, 0.5, 0.1, np.nan], [np.nan] * 3 + [0.05]]
    )
    np.testing.assert_array_equal(found["rank"][0], [1, 1, 0, 0])
    fewer = analysis.candidates(small, 0, most=1)
    assert fewer.attrs["left_out"] == 2
    assert list(fewer["text"].values) == ["c"]


def test_the_target_comes_first_and_is_known_wherever_it_ranks(small):
    found = analysis.candidates(small, 1)
    assert list(found["text"].values) == ["d", "a", "b"]
    assert list(found["is_target"].values) == [True, False, False]
    np.testing.assert_array_equal(found["rank"][0], [5, 5, 1, 0])
    np.testing.assert_allclose(found["probability"][0], [np.exp(-9), np.exp(-9), 0.3, 0.5])


def test_changes_say_whether_they_were_right(small):
    found = analysis.prediction_changes(small, slice(None))
    np.testing.assert_array_equal(found["changed"], [[0, 0, 1, 0], [0, 0, 0, 1]])
    np.testing.assert_array_equal(found["changes"], [0, 0, 1, 1])
    np.testing.assert_array_equal(found["right"], [[np.nan] * 4, [0, 0, 0, 1]])
    assert found["text"].values[0].tolist() == ["b", "b", "c", "c"]


def test_a_model_that_left_answers_what_it_left_with(tmp_path):
    ids = np.array([[[1, 0], [2, 1], [-1, -1], [-1, -1]], [[1, 0]] * 4])
    share = np.where(ids < 0, np.nan, 0.4)
    entropy = np.where(ids[..., 0] < 0, np.nan, [[0.5, 0.25, 0, 0], [1, 2, 3, 4]])
    run = written(tmp_path / "run", ids, np.log(share), entropy=entropy.astype(np.float32))
    found = analysis.token_readout(run, 0)
    assert found["text"].values[:, 0].tolist() == ["b", "c", "c", "c"]
    np.testing.assert_allclose(found["entropy"], [0.5, 0.25, 0.25, 0.25])
    np.testing.assert_array_equal(
        analysis.prediction_changes(run, [0, 1])["changed"], [[0, 1, 0, 0], [0, 0, 0, 0]]
    )
    last = analysis.token_values(run, ["entropy", "prediction"])
    np.testing.assert_allclose(last["entropy"], [0.25, 4])
    assert last["prediction"].values.tolist() == ["c", "b"]


def test_what_is_not_there_is_said(run, tmp_path):
    with pytest.raises(InputError, match="There is no token 24"):
        analysis.token_readout(run, 24)
    with pytest.raises(InputError, match="There is no restart 5"):
        analysis.candidates(run, 0, 5)
    prompt = Prompt(token_ids=(0,), token_texts=("a",), text="a")
    spec = RunSpec(prompts=[prompt], iterations=2, n_layers=1, d_model=2, sites=())
    with RunWriter(tmp_path / "run", spec) as writer:
        writer.write(0, 1, {"loop/state": np.zeros((1, 1, 3, 2), np.float32)})
    with pytest.raises(AnalysisError, match="readout=True"):
        analysis.prediction_changes(open_run(tmp_path / "run"), slice(None))
