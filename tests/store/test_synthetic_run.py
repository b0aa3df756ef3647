from __future__ import annotations

import numpy as np
import pytest

from looplens.store import open_stored
from looplens.testing.runs import TOKEN_KINDS, synthetic_run


@pytest.fixture(scope="module")
def run(synthetic_run_path):
    return open_stored(synthetic_run_path)


def tokens_of_kind(run, kind):
    return [i for i in range(run.n_tokens) if TOKEN_KINDS[i % 8][0] == kind]


def test_each_token_does_what_its_kind_says(run):
    tail = run.state().sel(iteration=slice(44, None)).astype(float)
    steps = np.linalg.norm(tail.diff("iteration"), axis=-1)  # (restart, token, iteration)
    assert steps[:, tokens_of_kind(run, "fixed_point")].max() < 1e-2
    assert steps[:, tokens_of_kind(run, "two_basins")].max() < 1e-6
    two = tail.values[:, tokens_of_kind(run, "period_two")]
    assert np.abs(two[:, :, 2:] - two[:, :, :-2]).max() < 1e-6
    assert np.linalg.norm(two[:, :, 1:] - two[:, :, :-1], axis=-1).min() > 1
    rotation = tail.values[:, tokens_of_kind(run, "rotation")]
    radius = np.linalg.norm(rotation - rotation.mean(2, keepdims=True), axis=-1)
    assert 0.8 * radius.max() < radius.min()
    drift = steps[:, tokens_of_kind(run, "slider")]
    np.testing.assert_allclose(drift, 0.05 * np.sqrt(run.d_model), rtol=1e-3)


def test_only_the_token_with_two_basins_remembers_the_restart(run):
    last = run.state().sel(iteration=64)
    gap = np.linalg.norm(last[0] - last[1], axis=-1)
    basins = np.isin(np.arange(run.n_tokens), tokens_of_kind(run, "two_basins"))
    assert gap[basins].min() > 1
    assert gap[~basins].max() < 1e-2


def test_the_parts_agree_with_each_other(run):
    np.testing.assert_array_equal(
        run.site(layer=run.n_layers - 1).values, run.state().sel(iteration=slice(1, None)).values
    )
    np.testing.assert_allclose(run.attention(1).sum("key"), 1, rtol=1e-5)
    readout = run.readout.load()
    best = readout["target_rank"] == 0
    hit = readout["topk_ids"].isel(rank=0) == run.tokens["target"]
    assert (best == hit).all()
    assert (np.isnan(readout["target_logprob"]) == (run.tokens["target"] == -1)).all()
    assert np.isnan(readout["kl_to_previous"].sel(iteration=1)).all()
    assert (readout["kl_to_last"].sel(iteration=64) == 0).all()
    assert best.sel(iteration=64).mean() > best.sel(iteration=1).mean()
    assert not run.non_finite


def test_sizes_are_free(tmp_path):
    run = open_stored(
        synthetic_run(
            tmp_path / "run", prompts=1, tokens=3, iterations=5, restarts=1, n_layers=1, d_model=2,
            attention=False,
        )
    )  # fmt: skip
    assert run.attention_prompts == ()
    assert run.site().shape == (1, 3, 1, 5, 2)
