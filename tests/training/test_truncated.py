"""Truncated backpropagation against the full gradient, and the health numbers in closed form."""

import pytest
import torch

from looplens.errors import InputError
from looplens.training import health, unroll
from looplens.training.step import build_model, last_target_only
from looplens.training.truncated import batch_noise, masked_loss


@pytest.fixture
def setting(tiny):
    model = build_model(tiny).double()
    tokens = torch.tensor([[0, 8, 9, 8, 9, 10], [1, 11, 9, 8, 11, 9]])
    targets = torch.tensor([[-1, -1, -1, 9, 8, -1], [-1, -1, 9, 8, -1, 9]])
    state = batch_noise(model.cfg, tokens.shape, tiny.generator("initial_state"))
    return model, tokens, targets, state


def gradients(setting, iterations, backprop_iterations):
    model, tokens, targets, state = setting
    model.zero_grad(set_to_none=True)
    last = unroll(
        model, tokens, iterations=iterations, backprop_iterations=backprop_iterations,
        initial_state=state,
    )  # fmt: skip
    masked_loss(model.readout(last), targets)[0].backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def full_gradients(setting, iterations):
    model, tokens, targets, state = setting
    model.zero_grad(set_to_none=True)
    logits = model(tokens, iterations=iterations, initial_state=state)
    masked_loss(logits, targets)[0].backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("backprop_iterations", [5, 9])
def test_enough_iterations_give_the_full_gradient(setting, backprop_iterations):
    full = full_gradients(setting, 5)
    truncated = gradients(setting, 5, backprop_iterations)
    assert full.keys() == truncated.keys()
    for name, gradient in full.items():
        torch.testing.assert_close(truncated[name], gradient)


def test_fewer_iterations_change_the_core_and_still_reach_the_prelude(setting):
    full, truncated = full_gradients(setting, 5), gradients(setting, 5, 2)
    core = "core.0.mlp.up_proj.weight"
    assert (truncated[core] - full[core]).norm() > 1e-3 * full[core].norm()
    assert truncated["prelude.0.mlp.up_proj.weight"].norm() > 0
    assert truncated["embed.weight"].norm() > 0


def test_truncation_equals_starting_from_the_detached_state(setting):
    model, tokens, targets, state = setting
    truncated = gradients(setting, 5, 2)
    with torch.no_grad():
        middle = unroll(model, tokens, iterations=3, backprop_iterations=3, initial_state=state)
    by_hand = gradients((model, tokens, targets, middle), 2, 2)
    for name, gradient in by_hand.items():
        torch.testing.assert_close(truncated[name], gradient)


def test_unroll_says_what_it_needs(setting):
    model, tokens, _, _ = setting
    with pytest.raises(InputError, match="at least 1; got 0 and 2"):
        unroll(model, tokens, iterations=0, backprop_iterations=2)


def test_each_sequence_gets_its_own_noise(tiny):
    model = build_model(tiny)
    draw = batch_noise(model.cfg, (64, 20), tiny.generator("initial_state"))
    assert draw.shape == (64, 20, 32)
    assert draw.std().item() == pytest.approx(model.cfg.initial_state_std, rel=0.02)
    assert not torch.equal(draw[0], draw[1])
    again = batch_noise(model.cfg, (64, 20), tiny.generator("initial_state"))
    assert torch.equal(draw, again)


def test_health_is_what_it_says(setting):
    model, tokens, targets, state = setting
    seen = health(model, tokens, targets, iterations=4, initial_state=state)
    with torch.no_grad():
        states = [
            unroll(model, tokens, iterations=n, backprop_iterations=1, initial_state=state)
            for n in (1, 3, 4)
        ]
    unit = torch.nn.functional.normalize(states[2], dim=-1)
    cosines = unit @ unit.transpose(1, 2)
    pairs = ~torch.eye(tokens.shape[1], dtype=torch.bool)
    assert seen.token_correlation == pytest.approx(cosines[:, pairs].mean().item())
    first, last = (masked_loss(model.readout(states[i]), targets)[0].item() for i in (0, 2))
    assert (seen.loss_one_iteration, seen.loss) == pytest.approx((first, last))
    step = (states[2] - states[1]).norm(dim=-1) / states[2].norm(dim=-1)
    assert seen.relative_step == pytest.approx(step.mean().item())


def test_collapsed_tokens_show(setting):
    model, tokens, targets, state = setting
    with torch.no_grad():
        model.embed.weight.copy_(model.embed.weight[:1].expand_as(model.embed.weight))
    same = state[:, :1].expand_as(state)
    collapsed = health(model, tokens, targets, iterations=4, initial_state=same)
    assert collapsed.token_correlation == pytest.approx(1.0)


def test_last_target_only():
    targets = torch.tensor([[-1, 3, 0, -1], [2, -1, -1, 5], [-1, -1, -1, -1]])
    expected = [[-1, -1, 0, -1], [-1, -1, -1, 5], [-1, -1, -1, -1]]
    assert last_target_only(targets).tolist() == expected
