import dataclasses
import itertools

import numpy as np
import pytest
import torch

from looplens.errors import InputError, SiteError
from looplens.models import LoopedConfig, LoopedTransformer, char_tokenizer

BASE = LoopedConfig(
    d_model=32,
    n_heads=4,
    n_kv_heads=2,
    d_mlp=48,
    d_vocab=10,
    n_ctx=32,
    n_prelude=1,
    n_core=2,
    n_coda=1,
)
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8, 1, 8]])


def make(**changes) -> LoopedTransformer:
    torch.manual_seed(0)
    cfg = dataclasses.replace(BASE, **changes)
    return LoopedTransformer(cfg, char_tokenizer("0123456789"), name="tiny").eval()


# ---------------------------------------------------------------- the mathematics, by hand in NumPy


def rms(x, weight, eps=1e-6):
    return weight * x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)


def numpy_block(block, x, cfg, adjacent):
    """One layer in float64, written from the formulas, sharing nothing with the model."""
    w = {name: value.detach().double().numpy() for name, value in block.named_parameters()}
    positions, hd = x.shape[0], cfg.d_head

    def heads(name, n):
        return (x_in @ w[f"attn.{name}.weight"].T).reshape(positions, n, hd)

    def rotary(y):
        angle = np.arange(positions)[:, None] * cfg.rope_theta ** (-np.arange(0, hd, 2) / hd)
        turned = np.empty_like(y)
        for i in range(hd // 2):
            a, b = (2 * i, 2 * i + 1) if adjacent else (i, i + hd // 2)
            cos, sin = np.cos(angle[:, i])[:, None], np.sin(angle[:, i])[:, None]
            turned[..., a] = y[..., a] * cos - y[..., b] * sin
            turned[..., b] = y[..., b] * cos + y[..., a] * sin
        return turned

    x_in = rms(x, w["norm_1.weight"])
    q, k = heads("q_proj", cfg.n_heads), heads("k_proj", cfg.n_kv_heads)
    if cfg.qk_bias:
        q, k = q + w["attn.q_bias"], k + w["attn.k_bias"]
    q, k, v = rotary(q), rotary(k), heads("v_proj", cfg.n_kv_heads)
    z = np.zeros((positions, cfg.n_heads, hd))
    for h, query in itertools.product(range(cfg.n_heads), range(positions)):
        group = h // (cfg.n_heads // cfg.n_kv_heads)
        scores = k[: query + 1, group] @ q[query, h] / np.sqrt(hd)
        weights = np.exp(scores - scores.max())
        z[query, h] = weights / weights.sum() @ v[: query + 1, group]
    attn = z.reshape(positions, -1) @ w["attn.o_proj.weight"].T
    if cfg.norm == "sandwich":
        attn = rms(attn, w["norm_2.weight"])
    x = x + attn
    if cfg.norm == "huginn":
        x = rms(x, w["norm_2.weight"])
    y = rms(x, w["norm_3.weight"])
    gate = y @ w["mlp.gate_proj.weight"].T
    mlp = gate / (1 + np.exp(-gate)) * (y @ w["mlp.up_proj.weight"].T)
    mlp = mlp @ w["mlp.down_proj.weight"].T
    if cfg.norm == "sandwich":
        mlp = rms(mlp, w["norm_4.weight"])
    x = x + mlp
    return rms(x, w["norm_4.weight"]) if cfg.norm == "huginn" else x


@pytest.mark.parametrize("norm", ["pre", "sandwich", "huginn"])
@pytest.mark.parametrize("injection", ["none", "add", "linear"])
def test_the_forward_is_the_formula(norm, injection):
    adjacent = injection == "linear"
    model = make(
        norm=norm,
        injection=injection,
        rope_style="adjacent" if adjacent else "half_split",
        loop_norm=norm == "sandwich",
        coda_norm=norm == "huginn",
        qk_bias=norm == "huginn",
        tie_embeddings=norm != "pre",
        embedding_scale=3.0,
        initial_state="prelude",
    )
    with torch.no_grad():  # norms and biases away from their trivial start
        for name, weight in model.named_parameters():
            if weight.ndim < 2 or "bias" in name:
                weight.add_(0.3 * torch.randn_like(weight))
    w = {name: value.detach().double().numpy() for name, value in model.named_parameters()}

    def run(blocks, x):
        for block in blocks:
            x = numpy_block(block, x, model.cfg, adjacent)
        return x

    injected = run(model.prelude, 3.0 * w["embed.weight"][TOKENS[0].numpy()])
    state = injected
    for _ in range(3):
        x = state
        if injection == "add":
            x = state + injected
        elif injection == "linear":
            x = np.concatenate([state, injected], -1) @ w["adapter.weight"].T
        state = run(model.core, x)
        if model.cfg.loop_norm:
            state = rms(state, w["ln_final.weight"])
    y = rms(state, w["ln_final.weight"]) if model.cfg.coda_norm else state
    y = rms(run(model.coda, y), w["ln_final.weight"])
    head = w["embed.weight"] if model.cfg.tie_embeddings else w["unembed.weight"]
    logits = model(TOKENS[:1], iterations=3)[0].detach().numpy()
    np.testing.assert_allclose(logits, y @ head.T, atol=2e-4)


# ---------------------------------------------------------------- behaviour


def test_fused_and_written_out_attention_agree():
    model = make()
    fused = model(TOKENS, iterations=6)
    explicit, cache = model.run_with_cache(
        TOKENS, iterations=6, names_filter="core.*.attn.hook_pattern@*"
    )
    assert (fused - explicit).abs().max() < 1e-5
    pattern = cache["core.1.attn.hook_pattern"]  # [T, batch, head, query, key]
    assert pattern.shape == (6, 2, 4, 8, 8)
    torch.testing.assert_close(pattern.sum(-1), torch.ones(6, 2, 4, 8))
    assert (pattern.triu(1) == 0).all()


def test_readouts_after_each_iteration_equal_shorter_forwards():
    model = make()
    readouts = model(TOKENS, iterations=5, return_readouts=True)
    for t in (1, 3, 5):
        torch.testing.assert_close(readouts[t - 1], model(TOKENS, iterations=t))


def test_hooks_by_pass_see_and_change_that_pass_only():
    model = make()
    seen = []

    def zero(value, hook):
        seen.append((hook.name, model.clock.iteration))
        return torch.zeros_like(value)

    _, clean = model.run_with_cache(TOKENS, iterations=6, names_filter="core.**")
    with model.hooks(fwd_hooks=[("core.0.hook_mlp_out@3", zero)]):
        _, patched = model.run_with_cache(TOKENS, iterations=6, names_filter="core.**")
    assert seen == [("core.0.hook_mlp_out", 3)]
    site = "core.0.hook_resid_post"
    torch.testing.assert_close(clean[f"{site}@2"], patched[f"{site}@2"])
    assert (clean[f"{site}@3"] - patched[f"{site}@3"]).abs().max() > 1e-3
    assert not any(hook.fwd_hooks for hook in model.hook_points())  # nothing is left behind


def test_the_cache_holds_what_the_address_names():
    _, cache = make().run_with_cache(
        TOKENS, iterations=6, names_filter=["core.*.hook_resid_post@4:", "hook_embed"]
    )
    assert cache.iterations("core.1.hook_resid_post") == [4, 5, 6]
    assert cache["core.1.hook_resid_post"].shape == (3, 2, 8, 32)
    assert cache["hook_embed"].shape == (2, 8, 32)
    with pytest.raises(KeyError, match=r"pass '2' .*kept: 4\.\.6"):
        cache["core.1.hook_resid_post@2"]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("core.7.hook_resid_post", r"matches no hook point\. Did you mean"),
        ("core.0.hook_resid_post@9", r"none of the passes that ran \(iterations 1\.\.4\)"),
        ("prelude.0.hook_resid_post@1", "never fired inside the loop"),
    ],
)
def test_an_address_that_matches_nothing_is_an_error(address, message):
    with pytest.raises(SiteError, match=message):
        make().run_with_hooks(TOKENS, iterations=4, fwd_hooks=[(address, lambda value, hook: None)])


def test_backward_hooks_cannot_name_a_pass():
    with pytest.raises(SiteError, match="gradients arrive after the loop"):
        make().run_with_hooks(
            TOKENS, bwd_hooks=[("core.0.hook_resid_post@1", lambda value, hook: None)]
        )


@pytest.mark.parametrize(
    ("tokens", "options", "message"),
    [
        ([[3, 10]], {}, r"token id 10 is outside the vocabulary \(0\.\.9\)"),
        ([[-1]], {}, "token id -1 is outside"),
        ([[]], {}, "none of them empty"),
        ([[1] * 33], {}, "33 tokens, more than n_ctx=32"),
        ([[0.5]], {}, "must be integers"),
        ([[1]], {"iterations": 0}, "at least 1, got 0"),
        ([[1]], {"initial_state": "nois"}, "Did you mean 'noise'"),
        ([[1]], {"initial_state": torch.zeros(1, 2, 32)}, "does not broadcast"),
        ("12a", {}, "character 'a' at place 2"),
        ("", {}, "the prompt is empty"),
    ],
)
def test_bad_input_says_what_was_expected_and_seen(tokens, options, message):
    given = tokens if isinstance(tokens, str) else torch.tensor(tokens)
    with pytest.raises(InputError, match=message):
        make()(given, **options)


# ---------------------------------------------------------------- the initial state


def test_noise_depends_on_seed_and_position_alone():
    model = make()
    injected = model.embed_tokens(TOKENS)
    state = model.initial_state(injected, 5)
    assert torch.equal(state[0], state[1])
    assert torch.equal(state[:1, :3], model.initial_state(injected[:1, :3], 5))
    assert not torch.equal(state, model.initial_state(injected, 6))
    assert torch.equal(model(TOKENS), model(TOKENS, initial_state=0))


def test_noise_is_a_normal_truncated_at_three_deviations():
    model = make(initial_state_std=0.5)
    draw = torch.stack(
        [model.initial_state(torch.zeros(1, 32, 32), seed) for seed in range(100)]
    ).flatten()
    assert draw.abs().max() <= 1.5
    assert draw.std() == pytest.approx(0.5 * 0.98658, rel=0.01)  # of the truncated normal
    assert draw.mean() == pytest.approx(0, abs=0.01)


def test_perturbed_starts_lie_around_the_models_own():
    model = make(initial_state="embedding", injection="none")
    with torch.no_grad():
        embedding = model.token_embedding(TOKENS)
        start = model.initial_state(
            model.run_prelude(embedding), "perturbed:0.2", embedding=embedding, seed=3
        )
    relative = (start - embedding).norm(dim=-1) / embedding.norm(dim=-1)
    assert relative.mean() == pytest.approx(0.2, rel=0.15)
    with pytest.raises(InputError, match="starts from its embedding, which draws nothing"):
        model(TOKENS, initial_state=3)


# ---------------------------------------------------------------- the configuration


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm": "outer"}, "norm must be one of pre, post, sandwich, huginn, got 'outer'"),
        ({"n_kv_heads": 3}, "multiple of n_kv_heads"),
        ({"d_head": 7}, "d_head must be even"),
        ({"n_core": 0}, "n_core must be at least 1"),
        ({"norm_eps": 0.0}, "norm_eps must be positive"),
    ],
)
def test_a_config_checks_itself(changes, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(BASE, **changes)


def test_a_config_survives_a_dictionary_and_refuses_unknown_keys():
    assert LoopedConfig.from_dict(BASE.to_dict()) == BASE
    with pytest.raises(InputError, match=r"'n_cores'\. Did you mean 'n_core'"):
        LoopedConfig.from_dict({**BASE.to_dict(), "n_cores": 1})
    with pytest.raises(InputError, match="lacks d_mlp"):
        LoopedConfig.from_dict({k: v for k, v in BASE.to_dict().items() if k != "d_mlp"})
