"""What makes an idle forward quick changes nothing of what it computes or lets be seen."""

import dataclasses

import pytest
import torch

from looplens.models import LoopedConfig, LoopedTransformer
from looplens.models.hook_point import HookPoint

CONFIG = LoopedConfig(d_model=32, n_heads=4, n_kv_heads=2, d_mlp=48, d_vocab=10, n_ctx=16, n_core=2)
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])


@pytest.mark.parametrize("direction", ["fwd", "bwd"])
def test_a_hook_point_is_passed_by_only_while_nobody_listens(direction):
    point, value, seen = HookPoint(), torch.ones(3, requires_grad=True), []
    assert point(value) is value
    point.add_hook(lambda tensor, hook: seen.append(tensor.shape), dir=direction)
    (2 * point(2 * value)).sum().backward()
    assert seen == [value.shape]
    point.remove_hooks("both")
    assert point(value) is value


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rope_style", ["half_split", "adjacent"])
def test_writing_in_place_without_gradients_gives_the_same_numbers(rope_style, dtype):
    torch.manual_seed(0)
    cfg = dataclasses.replace(CONFIG, rope_style=rope_style)
    model = LoopedTransformer(cfg).to(dtype)
    with torch.no_grad():
        model.core[0].norm_1.weight.normal_()
        idle, cache = model.run_with_cache(TOKENS, iterations=3)
    trained, again = model.run_with_cache(TOKENS, iterations=3)
    assert torch.equal(trained, idle)
    for name, value in again.items():  # nothing was written into once it had been seen
        assert torch.equal(value, cache[name]), name
    trained.sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())
