"""The bound on the change of attention: as a theorem, on real models, and where it says no."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import looplens as ll
from looplens import analysis, plots, reports
from looplens.analysis.analyzers.attention_bound import input_of, seen
from looplens.errors import AnalysisError, InputError
from looplens.models import LoopedConfig, LoopedTransformer
from looplens.models.native import as_looped
from looplens.recording import Intervention
from looplens.recording.attention_kappa import attention_kappa
from looplens.testing import synthetic_run

BOTH = ("resid_pre", "resid_post")


def tiny(seed=0, **changes):
    torch.manual_seed(seed)
    sizes = {"d_model": 16, "n_heads": 4, "d_mlp": 16, "d_vocab": 11, "n_ctx": 16, "n_core": 2}
    model = LoopedTransformer(LoopedConfig(**(sizes | changes)))
    with torch.no_grad():  # fresh weights hardly attend
        for name, weight in model.named_parameters():
            if any(part in name for part in ("q_proj", "k_proj", "norm_1", "q_bias", "k_bias")):
                weight.mul_(4).add_(torch.randn_like(weight) * 0.3)
    return model


def record(model, path, **options):
    options = {"iterations": 12, "attention": True, "sites": BOTH, "readout": False} | options
    return ll.record(model, [[1, 2, 3, 4, 5, 6]], out=path, progress=False, **options)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 3), st.floats(0.01, 3))
def test_no_change_of_scores_with_rotations_passes_the_bound(seed, step, size):
    rng = np.random.default_rng(seed)
    tokens, width, d_head = 5, 6, 4
    x = size * rng.standard_normal((2, tokens, width))
    x[1] = x[0] + step * rng.standard_normal((tokens, width))
    weights = rng.standard_normal((2, width, d_head))
    angle = rng.uniform(0, 6, (tokens, d_head // 2))  # any rotations, not only those of RoPE
    q, k = (rotated(x @ weight, angle) for weight in weights)
    scores = q @ np.swapaxes(k, -1, -2) / np.sqrt(d_head)
    scores = np.where(np.tri(tokens, dtype=bool), scores, -np.inf)
    maps = np.exp(scores - scores.max(-1, keepdims=True))
    maps /= maps.sum(-1, keepdims=True)
    kappa = [np.prod(np.linalg.norm(weights, ord=2, axis=(1, 2)))]
    found = analysis.attention_bound(x, maps[:, None], kappa, d_head=d_head)
    assert (found.measured <= found.bound * (1 + 1e-12)).all()
    assert found.input_step[0] == pytest.approx(np.linalg.norm(x[1] - x[0]))


def rotated(y, angle):
    one, other = np.split(y, 2, axis=-1)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.concatenate([one * cos - other * sin, one * sin + other * cos], axis=-1)


def test_one_score_between_two_keys_comes_close_to_the_bound():
    # The query is large and still, the keys move along it and softmax stands at its steepest.
    x = np.zeros((2, 3, 2))
    x[:, 2, 0] = 50.0
    x[1, 1, 0], x[1, 0, 0] = 1e-4, -1e-4
    scores = x[:, 2:, :1] * x[:, None, :2, 0]
    maps = np.zeros((2, 1, 3, 3))
    weights = np.exp(scores)
    maps[:, 0, 2, :2] = (weights / weights.sum(-1, keepdims=True))[:, 0]
    found = analysis.attention_bound(x, maps, [1.0], d_head=1)
    assert found.slack[0, 0] == pytest.approx(2, rel=1e-3)  # both summands, only one of them moves


def test_both_sides_are_their_definitions():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 3, 5)) * np.array([1.0, 3.0, 0.5, 2.0])[:, None, None]
    maps = rng.dirichlet(np.ones(3), size=(4, 2, 3))
    found = analysis.attention_bound(x, maps, [2.0, 7.0], d_head=9)
    norm = np.linalg.norm(x, axis=(1, 2))
    step = np.linalg.norm(np.diff(x, axis=0), axis=(1, 2))
    larger = np.maximum(norm[1:], norm[:-1])
    np.testing.assert_allclose(found.input_norm, larger)
    np.testing.assert_allclose(found.input_step, step)
    expected = 0.5 * 2 * (larger * step)[:, None] * np.array([2.0, 7.0]) / 3
    np.testing.assert_allclose(found.bound, expected)
    change = np.linalg.norm(np.diff(maps, axis=0), axis=(2, 3))
    np.testing.assert_allclose(found.measured, change)
    np.testing.assert_allclose(found.slack, expected / change)


def test_errors_and_nothing_that_moves():
    x, maps = np.ones((3, 4, 2)), np.full((3, 2, 4, 4), 0.25)
    found = analysis.attention_bound(x, maps, [1, 1], d_head=2, biased=True)
    assert (found.measured == 0).all()
    assert np.isnan(found.slack).all()
    np.testing.assert_allclose(found.input_norm, np.sqrt(8 + 4))  # a constant 1 for each token
    with pytest.raises(InputError, match=r"must agree; got shapes \(3, 3, 2\)"):
        analysis.attention_bound(x[:, :3], maps, [1, 1], d_head=2)
    with pytest.raises(InputError, match="d_head must be a whole number of at least 1; got 0"):
        analysis.attention_bound(x, maps, [1, 1], d_head=0)
    with pytest.raises(InputError, match="at least two iterations; got 1"):
        analysis.attention_bound(x[:1], maps[:1], [1, 1], d_head=2)


@pytest.mark.parametrize("changes", [{}, {"n_kv_heads": 2}, {"qk_bias": True, "qkv_bias": True}])
def test_kappa_is_no_less_than_the_norm_for_any_rotation(changes):
    model = tiny(norm="pre", **changes)
    cfg, attention = model.cfg, model.core[1].attn
    kappa = attention_kappa(as_looped(model))
    scale = model.core[1].norm_1.weight.detach()
    q = (attention.q_proj.weight.detach() * scale).view(4, 4, 16)
    k = (attention.k_proj.weight.detach() * scale).view(cfg.n_kv_heads, 4, 16)
    for head in range(4):
        key = k[head * cfg.n_kv_heads // 4]
        turn = torch.linalg.qr(torch.randn(20, 4, 4))[0]
        worst = torch.linalg.matrix_norm(q[head].T @ turn @ key, ord=2).max()
        assert kappa[1][head] >= float(worst) * (1 - 1e-6)
        product = torch.linalg.matrix_norm(q[head], ord=2) * torch.linalg.matrix_norm(key, ord=2)
        if not changes.get("qk_bias"):
            assert kappa[1][head] == pytest.approx(float(product), rel=1e-5)


def test_kappa_is_not_given_where_it_means_nothing():
    assert attention_kappa(as_looped(tiny(qk_norm="head"))) is None
    broken = tiny()
    with torch.no_grad():
        broken.core[0].attn.q_proj.weight[0, 0] = float("nan")
    assert attention_kappa(as_looped(broken)) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"norm": "pre", "injection": "add", "first_injection": False},
        {"norm": "post", "injection": "none", "initial_state": "embedding"},
        {"norm": "sandwich", "injection": "linear", "n_kv_heads": 2, "qkv_bias": True},
        {"norm": "huginn", "injection": "diagonal", "qk_bias": True, "rope_style": "adjacent"},
    ],
    ids=lambda changes: changes["norm"],
)
def test_it_holds_on_models_of_every_kind_and_inputs_are_put_together_exactly(changes, tmp_path):
    model = tiny(**changes)
    run = record(model, tmp_path / "run", sites=(*BOTH, "q"))
    found = analysis.get(run, "attention_bound")
    assert np.isfinite(found["bound"]).all()
    assert float(found["measured"].max()) > 1e-4
    assert (found["measured"] - found["rounding"] <= found["bound"]).all()
    for layer, block in enumerate(model.core):  # what attention saw makes its queries
        weight = block.attn.q_proj.weight.detach().double().numpy()
        if changes["norm"] != "post":
            weight = weight * block.norm_1.weight.detach().numpy()
        q = seen(run, 0, 0, layer) @ weight.T
        if changes.get("qkv_bias"):
            q = q + block.attn.q_proj.bias.detach().numpy()
        q = q.reshape(*q.shape[:2], 4, 4)
        if changes.get("qk_bias"):
            q = q + block.attn.q_bias.detach().numpy()
        stored = run.site("q", restart=0, layer=layer).values
        np.testing.assert_allclose(np.swapaxes(stored, 0, 1), q, rtol=1e-3, atol=1e-4)
    less = record(model, tmp_path / "less", sites="resid_post")
    known = [input_of(less, layer) for layer in (0, 1)]
    kinds = {"add": "state + injected", "none": "state"}
    assert known == [kinds.get(changes["injection"]), "layer before"]
    for layer in (0, 1):
        if known[layer]:
            np.testing.assert_allclose(
                seen(less, 0, 0, layer), seen(run, 0, 0, layer), rtol=1e-4, atol=1e-5
            )


@pytest.mark.parametrize("name", ["affine-huginn-mini", "phop-ouro-mini"])
def test_it_holds_on_trained_models_which_stay_far_below(name, tmp_path):
    model = ll.load_model(name)
    ids = [[1, 4, 2, 6, 3, 5, 7, 2, 1, 8]]
    run = ll.record(
        model,
        ids,
        out=tmp_path / "run",
        iterations=32,
        sites=BOTH,
        attention=True,
        readout=False,
        progress=False,
    )
    run.analyze("attention_bound")
    summary = analysis.summary(run)["attention_bound"]
    assert summary["violated_share"] == 0
    assert summary["layers_bounded"] == run.n_layers
    assert 1 < summary["least_slack"] < summary["median_slack"]
    figure = plots.attention_bound(run, layer=0, theme="dark")
    found = analysis.get(run, "attention_bound").isel(prompt=0, restart=0, layer=0)
    scattered = [trace for trace in figure.data if trace.name == "head 1"]
    np.testing.assert_allclose(scattered[0].y, found["measured"].isel(head=1))
    section = reports.build(run).section("attention_bound")
    assert section.facts[-1].value.startswith("0")


def test_it_says_what_to_record_where_it_is_not_possible(tmp_path):
    analyzer = analysis.ANALYZERS["attention_bound"]
    assert not analyzer.standard
    one = {"n_core": 1}
    cases = {
        "No attention was recorded": record(tiny(), tmp_path / "a", attention=False),
        "normalises its queries": record(tiny(qk_norm="head"), tmp_path / "b"),
        "sites=('resid_pre', 'resid_post')": record(
            tiny(**one), tmp_path / "c", sites="resid_post"
        ),
        "interventions": record(
            tiny(), tmp_path / "d", interventions=Intervention.add("hook_state@3", 0.1)
        ),
        "some tokens": record(tiny(), tmp_path / "e", tokens=[0, 1]),
        "reduced states": record(tiny(), tmp_path / "f", reduce="random:4"),
        "attention_kappa": ll.open_run(synthetic_run(tmp_path / "g", prompts=1)),
    }
    for words, run in cases.items():
        assert words in (analyzer.needs(run) or ""), words
    with pytest.raises(AnalysisError, match="is not possible"):
        cases["interventions"].analyze("attention_bound")
    partly = record(tiny(), tmp_path / "h", sites="resid_post")  # layer 0 is behind an adapter
    assert np.isnan(analysis.get(partly, "attention_bound")["bound"].sel(layer=0)).all()
    with pytest.raises(AnalysisError, match=r"sees in layer 0 is not known \(known: 1\)"):
        plots.attention_bound(partly, layer=0)
