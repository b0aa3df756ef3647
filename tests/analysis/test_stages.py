"""Stages of inference: closed forms, invariants, partial runs, and a feed-forward twin."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import looplens as ll
from looplens import analysis, plots
from looplens.analysis import feed_forward
from looplens.analysis.measures.stages import profile_correlation
from looplens.errors import AnalysisError, InputError
from looplens.models import LoopedConfig, LoopedTransformer
from looplens.reports._material import Material
from looplens.reports._sections.stages import stages as section


def uniform(tokens):
    seen = np.tril(np.ones((tokens, tokens)))
    return seen / seen.sum(-1, keepdims=True)


def test_patterns_with_a_known_concentration():
    sink = np.zeros((16, 16))
    sink[:, 0] = 1
    found = analysis.attention_stages(np.stack([np.eye(16), sink, uniform(16)]))
    above = found.concentration + found.concentration_baseline
    np.testing.assert_allclose(above, [0, 1, found.concentration_baseline], atol=1e-12)
    np.testing.assert_allclose(found.concentration[2], 0, atol=1e-12)
    harmonic = (1 / np.arange(1, 17)).sum() / 16  # what the first key gets of uniform attention
    np.testing.assert_allclose(found.sink_score, [1 / 16, 1, harmonic])
    assert found.sink_key.tolist()[1:] == [0, 0]
    rows = np.log(np.arange(1, 17)).mean()
    np.testing.assert_allclose(found.mixing, [0, 0, rows], atol=1e-12)
    assert (found.sink_baseline, found.mixing_baseline) == pytest.approx((harmonic, rows))


@pytest.mark.parametrize(("tokens", "baseline"), [(16, 0.131), (64, 0.097), (256, 0.075)])
def test_the_baseline_of_causal_attention(tokens, baseline):
    assert analysis.attention_stages(uniform(tokens)[None]).concentration_baseline == pytest.approx(
        baseline, abs=6e-4
    )


def test_attention_that_sees_everything_has_another_baseline():
    found = analysis.attention_stages(np.full((1, 8, 8), 1 / 8))
    np.testing.assert_allclose(found.concentration_baseline, 0, atol=1e-12)
    np.testing.assert_allclose(found.mixing_baseline, np.log(8))


@settings(max_examples=25, deadline=None)
@given(arrays(np.float64, (2, 6, 6), elements=st.floats(0, 30)))
def test_stages_of_attention_stay_in_their_bounds(scores):
    weights = np.exp(scores) * np.tril(np.ones((6, 6)))
    found = analysis.attention_stages(weights / weights.sum(-1, keepdims=True))
    above = found.concentration + found.concentration_baseline
    assert (above > -1e-9).all()
    assert (above < 1 + 1e-9).all()
    assert (found.sink_score >= 1 / 6 - 1e-9).all()
    assert (found.mixing <= found.mixing_baseline + 1e-9).all()


def test_sinks_are_not_counted_where_the_prompt_is_too_short():
    assert analysis.sink_rate([0.2, 0.5], 0.1) == 0.5
    assert np.isnan(analysis.sink_rate([0.2, 0.5], 0.34))
    short = analysis.attention_stages(uniform(9)[None])
    assert np.isnan(analysis.sink_rate(short.sink_score, short.sink_baseline))
    with pytest.raises(InputError, match="between 0 and 1"):
        analysis.sink_rate([0.2], 0.1, threshold=30)


def test_what_is_not_finite_or_not_square_is_not_measured():
    infinite = uniform(4)
    infinite[2, 1] = np.inf
    leaking = uniform(4)
    leaking[0, 1] = 1e-9
    broken = np.stack([uniform(4), np.full((4, 4), np.nan), infinite, leaking])
    found = analysis.attention_stages(broken)
    for values in (found.concentration, found.sink_score, found.mixing):
        assert np.isnan(values).tolist() == [False, True, True, False]
    assert found.sink_key.tolist() == [0, -1, -1, 0]
    np.testing.assert_allclose(found.concentration[[0, 3]], 0, atol=1e-6)  # still causal
    with pytest.raises(InputError, match="3 queries and 4 keys"):
        analysis.attention_stages(np.ones((1, 3, 4)) / 4)


def test_matrix_entropy_of_known_spectra():
    assert analysis.matrix_entropy(np.eye(5, 8)) == pytest.approx(np.log(5))
    assert analysis.matrix_entropy(np.outer([1, 2, 3], np.ones(4))) == pytest.approx(0, abs=1e-9)
    two = np.diag([3.0, 1.0])  # eigenvalues 9 and 1 of 10
    assert analysis.matrix_entropy(two) == pytest.approx(-(0.9 * np.log(0.9) + 0.1 * np.log(0.1)))
    assert np.isnan(analysis.matrix_entropy(np.zeros((3, 3))))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 999), st.sampled_from([1e-150, 1e-3, 1e6, 1e160]))
def test_matrix_entropy_does_not_see_rotation_scale_and_order(seed, scale):
    rng = np.random.default_rng(seed)
    states = rng.standard_normal((3, 5, 7))
    turned = states[:, rng.permutation(5)] @ np.linalg.qr(rng.standard_normal((7, 7)))[0]
    np.testing.assert_allclose(
        analysis.matrix_entropy(turned * scale), analysis.matrix_entropy(states), atol=1e-9
    )


def test_profiles_need_three_layers_and_a_shape():
    assert np.isnan(profile_correlation([1.0, 2.0], [1.0, 2.0]))
    assert np.isnan(profile_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]))
    assert profile_correlation([1.0, 2.0, 4.0], [-2.0, -4.0, -8.0]) == pytest.approx(-1)


# ---------------------------------------------------------------------- of a run


def test_the_analysis_holds_what_the_array_functions_say(synthetic_run_path):
    run = ll.open_run(synthetic_run_path)
    found = analysis.get(run, "stages")
    pattern = run.attention(1, restart=1, layer=1).sel(iteration=20).values
    there = {"prompt": 1, "restart": 1, "layer": 1, "iteration": 20}
    direct = analysis.attention_stages(pattern)
    assert float(found["concentration"].sel(there)) == pytest.approx(direct.concentration.mean())
    assert float(found["mixing"].sel(there)) == pytest.approx(direct.mixing.mean())
    states = run.site(restart=1, layer=1, tokens=run.token_range(1)).sel(iteration=20).values
    assert float(found["matrix_entropy"].sel(there)) == pytest.approx(
        analysis.matrix_entropy(states)
    )
    assert np.isnan(found["sink_rate"]).all()  # 8 tokens are too few
    summary = analysis.ANALYZERS["stages"].summary(found, run)
    assert summary["short_prompts"] == summary["stage_prompts"] == 3
    assert summary["final_sink_rate"] is None


def test_without_attention_only_the_stream_is_measured(tmp_path):
    path = ll.testing.synthetic_run(tmp_path / "run", iterations=6, n_layers=3, attention=False)
    run = ll.open_run(path)
    found = run.analyze("stages", stage_prompts=2)["stages"]
    assert found["prompt"].values.tolist() == [0, 2]
    assert np.isnan(found["concentration"]).all()
    assert np.isfinite(found["matrix_entropy"]).all()
    np.testing.assert_allclose(found["similarity_to_last"].sel(stage="matrix_entropy")[-1], 1)
    with pytest.raises(InputError, match="stage_prompts"):
        run.analyze("stages", stage_prompts=0)


def test_prompts_of_one_token_have_no_stages(tmp_path):
    model = ll.load_model("phop-huginn-mini")
    options = {"iterations": 2, "attention": True, "progress": False}
    some = ll.record(model, [[1], [1, 2, 3]], out=tmp_path / "some", **options)
    assert analysis.get(some, "stages")["prompt"].values.tolist() == [1]
    none = ll.record(model, [[1], [2]], out=tmp_path / "none", **options)
    with pytest.raises(AnalysisError, match="one token"):
        analysis.get(none, "stages")


def test_reduced_and_partial_runs(few_layers_path, part_run_path):
    reduced = analysis.get(ll.open_run(few_layers_path), "stages")
    assert np.isnan(reduced["matrix_entropy"]).all()
    part = analysis.get(ll.open_run(part_run_path), "stages")
    assert part["prompt"].values.tolist() == [0, 2]
    assert np.isfinite(part["mixing"]).all()


def test_figure_and_section(synthetic_run_path):
    run = ll.open_run(synthetic_run_path)
    assert len(plots.stages(run).layout.annotations) >= 3
    assert "restart 1" in plots.stages(run, 0, 1, theme="dark").layout.title.subtitle.text
    made = section(Material(run))
    assert [fact.label for fact in made.facts][:2] == ["Concentration of attention", "Mixing"]
    assert "too short" in made.text[-1]
    with pytest.raises(InputError, match="prompt 9"):
        plots.stages(run, 9)


# ---------------------------------------------------------------------- beside a feed-forward model

SIZES = {
    "d_model": 16,
    "n_heads": 2,
    "d_mlp": 32,
    "d_vocab": 12,
    "n_ctx": 32,
    "norm": "pre",
    "injection": "none",
    "initial_state": "embedding",
    "n_prelude": 0,
    "n_coda": 0,
}
PROMPTS = [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0], [5, 5, 4, 1, 2, 3, 4, 9, 9, 0, 1, 7]]


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """A loop of 3 layers, and 9 layers that are the same three times over."""
    folder = tmp_path_factory.mktemp("twins")
    torch.manual_seed(0)
    loop = LoopedTransformer(LoopedConfig(**SIZES, n_core=3), name="loop")
    deep = LoopedTransformer(LoopedConfig(**SIZES, n_core=9), name="deep")
    weights = loop.state_dict()
    for name, weight in deep.state_dict().items():
        parts = name.split(".")
        if parts[0] == "core":
            parts[1] = str(int(parts[1]) % 3)
        weight.copy_(weights[".".join(parts)])
    options = {"attention": True, "progress": False}
    return (
        ll.record(loop, PROMPTS, out=folder / "loop", iterations=5, **options),
        ll.record(deep, PROMPTS, out=folder / "deep", iterations=1, **options),
    )


def test_an_unrolled_loop_has_the_stages_of_its_feed_forward_twin(twins):
    found = analysis.compare_stages(*twins)
    assert found.attrs == {"depth": 9, "feed_forward_depth": 9, "prompts": 2}
    assert found["looped_depth"].values.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    np.testing.assert_allclose(found["difference"], 0, atol=1e-6)
    like = found["like_part"].sel(stage=["concentration", "mixing", "matrix_entropy"])
    np.testing.assert_allclose(like, 1, atol=1e-4)
    # The first of three layers lies in the middle of the first three of nine, and so on.
    mixing = found.sel(stage="mixing")
    stretched = mixing["feed_forward"].values[[1, 4, 7]]
    for loop, like in zip(mixing["looped"].values, mixing["like_whole"].values, strict=True):
        assert like == pytest.approx(np.corrcoef(loop, stretched)[0, 1])


def test_means_are_of_prompts_that_both_runs_know(twins):
    ours, theirs = (analysis.get(run, "stages") for run in twins)
    ours = ours.copy(deep=True)
    ours["mixing"].values[0] = np.nan
    for found in feed_forward._known_in_both(ours, theirs):
        assert np.isnan(found["mixing"].values[0]).all()
        assert np.isfinite(found["mixing"].values[1]).all()
        assert np.isfinite(found["concentration"].values).all()
    assert np.isfinite(theirs["mixing"].values).all()


def test_other_depths_are_compared_as_shares_of_the_whole(twins):
    found = analysis.compare_stages(*twins, loops=5)
    assert (found.attrs["depth"], found.attrs["feed_forward_depth"]) == (15, 9)
    figure = plots.compare_stages(*twins, 5)
    assert "15 and 9 layers" in figure.layout.title.subtitle.text
    same = plots.compare_stages(*twins, theme="dark")
    assert {trace.name for trace in same.data} == {"loop (loops)", "deep (feed-forward)"}


def test_what_cannot_be_compared(twins, synthetic_run_path):
    loop, deep = twins
    with pytest.raises(InputError, match="iterations=1"):
        analysis.compare_stages(deep, loop)
    with pytest.raises(InputError, match="loops=6"):
        analysis.compare_stages(loop, deep, loops=6)
    with pytest.raises(AnalysisError, match="no prompt in common"):
        analysis.compare_stages(ll.open_run(synthetic_run_path), deep)
