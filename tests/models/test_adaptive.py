"""Layers that loop by themselves, against the formulas in NumPy."""

import dataclasses

import numpy as np
import numpy_families as reference
import pytest
import torch

import looplens
from looplens.errors import InputError
from looplens.models import save_model
from looplens.models.adaptive import AdaptiveConfig, AdaptiveTransformer

BASE = AdaptiveConfig(
    d_model=16,
    n_heads=4,
    n_kv_heads=2,
    d_mlp=24,
    d_vocab=11,
    n_ctx=32,
    n_layers=2,
    max_steps=3,
    local_slots=5,
    global_slots=7,
)
IDS = [3, 1, 4, 1, 5, 9]


def make(**changes):
    torch.manual_seed(0)
    model = AdaptiveTransformer(dataclasses.replace(BASE, **changes), name="tiny").eval()
    with torch.no_grad():  # away from the start, where a layer is nearly the identity
        for name, parameter in model.named_parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
            if name.endswith("loop_scales"):
                parameter.add_(7.0)
    return model


def numpy_layer(model, number, x):
    """States after every step, halting distribution and output of one layer."""
    layer, cfg = model.layers[number], model.cfg
    w = {name: value.detach().double().numpy() for name, value in layer.named_parameters()}
    bank = {
        name: value.detach().double().numpy() for name, value in model.memory.named_parameters()
    }
    steps, d, hd = cfg.max_steps, cfg.d_model, cfg.d_model // cfg.n_heads

    def sigmoid(y):
        return 1 / (1 + np.exp(-y))

    def layer_norm(y, name, of):
        y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5)
        return y * of[f"{name}.weight"] + of[f"{name}.bias"]

    def attention(y):
        def heads(kind, count):
            return (y @ w[f"attn.{kind}_proj.weight"].T).reshape(len(y), count, hd)

        frequency = reference.frequencies(cfg.rope_theta, hd)
        q = reference.rotary(heads("q", cfg.n_heads), frequency, False)
        k = reference.rotary(heads("k", cfg.n_kv_heads), frequency, False)
        z = reference.causal_attention(q, k, heads("v", cfg.n_kv_heads))
        return z @ w["attn.o_proj.weight"].T

    def mlp(y):
        gate = reference.silu(y @ w["mlp.gate_proj.weight"].T)
        return (gate * (y @ w["mlp.up_proj.weight"].T)) @ w["mlp.down_proj.weight"].T

    states, halting, left, h = [x], [], np.ones(len(x)), x
    output = np.zeros_like(x)
    for n in range(steps):
        query = layer_norm(layer_norm(h, "mem_norm", w), "q_norm", bank)
        y = h
        for which in ("local", "global"):
            keys, values = bank[f"{which}_keys"], bank[f"{which}_values"]
            if which == "local":
                keys, values = keys[number], values[number]
            scores = np.exp(query @ layer_norm(keys, "k_norm", bank).T / np.sqrt(d))
            read = scores / scores.sum(-1, keepdims=True) @ values
            gate = f"mem_gates.{which}"
            opened = sigmoid(h @ w[f"{gate}.gate.weight"].T + w[f"{gate}.gate.bias"])
            y = y + opened * (read @ w[f"{gate}.project.weight"].T)
        scale = np.log1p(np.exp(w["loop_scales"][n]))
        u = y + scale * attention(reference.rms(y, w["norm_1.weight"], cfg.norm_eps))
        h = u + scale * mlp(reference.rms(u, w["norm_2.weight"], cfg.norm_eps))
        route = np.concatenate([h, np.full((len(h), 1), n / (steps - 1))], -1)
        lam = sigmoid(route @ w["halt_router.weight"][0] + w["halt_router.bias"])
        p = left * lam if n < steps - 1 else left
        output += p[:, None] * h
        states.append(h)
        halting.append(p)
        left = left - p
    return np.stack(states), np.stack(halting), output


def test_every_state_and_halting_probability_is_the_formula():
    model = make()
    trace = model.trace(IDS)
    assert trace.states.shape == (2, 4, 1, 6, 16)
    x = model.embed.weight.detach().double().numpy()[IDS]
    for number in range(2):
        states, halting, output = numpy_layer(model, number, x)
        np.testing.assert_allclose(trace.states[number, :, 0].numpy(), states, atol=2e-4)
        np.testing.assert_allclose(trace.halting[number, :, 0].numpy(), halting, atol=2e-5)
        np.testing.assert_allclose(trace.outputs[number, 0].numpy(), output, atol=2e-4)
        x = output


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"halting": "change"},
        {"memory_gate": "scalar"},
        {"local_slots": 0, "global_slots": 0},
        {"max_steps": 1, "qk_norm": True, "tie_embeddings": True},
    ],
)
def test_halting_is_a_distribution_over_steps(changes):
    model = make(**changes)
    trace = model.trace(IDS)
    torch.testing.assert_close(trace.halting.sum(1), torch.ones(2, 1, 6))
    assert (trace.halting >= 0).all()
    assert 1 <= trace.expected_steps.min() <= trace.expected_steps.max() <= model.cfg.max_steps
    assert 0 <= trace.ponder_cost <= 1
    assert torch.equal(trace.logits, model(torch.tensor([IDS])))


def test_a_layer_stops_early_when_nothing_is_left():
    model = make()
    with torch.no_grad():
        for layer in model.layers:
            layer.halt_router.bias.fill_(50.0)
    _, cache = model.run_with_cache(torch.tensor([IDS]), stop_early=True)
    assert cache.iterations("layers.0.hook_state") == [1]
    torch.testing.assert_close(
        model(torch.tensor([IDS]), stop_early=True), model(torch.tensor([IDS]))
    )


def test_hooks_name_the_step_of_a_layer():
    model = make()
    seen = []
    model.run_with_hooks(
        torch.tensor([IDS]),
        fwd_hooks=[
            ("layers.1.hook_state@2", lambda value, hook: seen.append(model.clock.iteration))
        ],
    )
    assert seen == [2]


def test_a_saved_adaptive_model_comes_back(tmp_path):
    model = make()
    again = looplens.load_model(save_model(model, tmp_path / "m"))
    assert isinstance(again, AdaptiveTransformer)
    assert again.cfg == model.cfg
    assert torch.equal(again(torch.tensor([IDS])), model(torch.tensor([IDS])))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_steps": 0}, "max_steps must be at least 1"),
        ({"memory_gate": "sum"}, "memory_gate must be one of elementwise, scalar"),
        ({"local_slots": -1}, "local_slots must not be negative"),
    ],
)
def test_an_adaptive_config_checks_itself(changes, message):
    with pytest.raises(InputError, match=message):
        make(**changes)
