"""Losses over iterations, against values worked out by hand."""

import math

import pytest
import torch

from looplens.errors import InputError
from looplens.models import LoopedConfig, LoopedTransformer
from looplens.models.weight_cosine import weight_cosine
from looplens.training.losses import (
    LoopingRegulariser,
    Loss,
    adaptive_gate_loss,
    block_similarity,
    cross_entropies,
    exit_entropy,
    expected_exit_loss,
)


def logit(p):
    return math.log(p / (1 - p))


def test_cross_entropies_are_minus_log_probabilities_of_targets():
    first, second = [[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], [[0.7, 0.2, 0.1], [0.4, 0.4, 0.2]]
    p = torch.tensor([[first], [second]])  # two iterations, one sequence of two positions
    found = cross_entropies(p.log(), torch.tensor([[1, -1]]))
    assert found.shape == (2, 1)
    assert found[:, 0].tolist() == pytest.approx([-math.log(0.25), -math.log(0.2)])
    moving = torch.tensor([[[1, -1]], [[0, -1]]])  # the answer is another one after iteration 2
    found = cross_entropies(p.log(), moving)
    assert found[:, 0].tolist() == pytest.approx([-math.log(0.25), -math.log(0.7)])
    with pytest.raises(InputError, match="same positions must have targets"):
        cross_entropies(p.log(), torch.tensor([[[1, -1]], [[-1, 1]]]))


def test_expected_loss_weighs_iterations_by_their_exits():
    # lambda = (1/2, 1/4, anything): p = (1/2, 1/8, 3/8), since what is left leaves at the end.
    gates = torch.tensor([[logit(0.5)], [logit(0.25)], [9.0]])
    losses = torch.tensor([[2.0], [1.0], [0.4]])
    entropy = -(0.5 * math.log(0.5) + 0.125 * math.log(0.125) + 0.375 * math.log(0.375))
    assert exit_entropy(gates).item() == pytest.approx(entropy)
    expected = 0.5 * 2 + 0.125 * 1 + 0.375 * 0.4
    assert expected_exit_loss(losses, gates, 0.0).item() == pytest.approx(expected)
    assert expected_exit_loss(losses, gates, 0.1).item() == pytest.approx(expected - 0.1 * entropy)


def test_the_entropy_bonus_moves_a_sure_gate_back():
    losses = torch.tensor([[0.5], [0.5], [0.5]])
    gates = torch.tensor([[6.0], [6.0], [6.0]], requires_grad=True)  # all leave at once
    expected_exit_loss(losses, gates, 0.1).backward()
    assert gates.grad[0] > 0  # descent lowers the first gate
    assert expected_exit_loss(losses, torch.full((3, 1), 60.0), 0.1).isfinite()


@pytest.mark.parametrize("entropy", [0.0, 0.1])
def test_a_gate_that_is_certain_keeps_finite_gradients(entropy):
    # In float32 no weight at all is left for the second exit: the entropy is infinitely steep.
    gates = torch.tensor([[110.0], [0.0], [0.0]], requires_grad=True)
    expected_exit_loss(torch.tensor([[1.0], [2.0], [0.5]]), gates, entropy).backward()
    assert gates.grad.isfinite().all()


def test_adaptive_gate_loss_by_hand():
    losses = torch.tensor([[1.0, 0.3], [0.2, 0.3], [0.195, 0.5]], requires_grad=True)
    leave = torch.tensor([[0.9, 0.9], [0.2, 0.6], [0.7, 0.4]])
    gates = (leave / (1 - leave)).log().requires_grad_()

    def wish(improvement):
        return 1 / (1 + math.exp(-50 * (improvement - 0.005)))

    def cost(go_on, leaving):
        return -(go_on * math.log(1 - leaving) + (1 - go_on) * math.log(leaving))

    second = (cost(wish(0.8), 0.2) + cost(wish(0.0), 0.6)) / 2
    third = (cost(wish(0.005), 0.7) + cost(wish(0.0), 0.4)) / 2  # a loss that grows counts as 0
    loss = adaptive_gate_loss(losses, gates)
    assert loss.item() == pytest.approx((second + third) / 3)
    assert wish(0.0) == pytest.approx(0.438, abs=5e-4)  # the floor of the label
    loss.backward()
    assert losses.grad is None  # labels carry no gradient
    assert gates.grad[0].abs().sum() == 0  # the first iteration has no label
    assert gates.grad[1, 0] > 0  # the second improved: descent lets fewer leave there
    with pytest.raises(InputError, match="2 iterations or more; got 1"):
        adaptive_gate_loss(losses[:1], gates[:1])


@pytest.fixture
def four_layers():
    torch.manual_seed(0)
    cfg = LoopedConfig(
        d_model=8, n_heads=2, d_mlp=16, d_vocab=5, n_ctx=8, n_prelude=1, n_core=2, n_coda=1,
        injection="none", initial_state="prelude",
    )  # fmt: skip
    return LoopedTransformer(cfg)


def test_block_similarity_is_the_published_mean_of_cosines(four_layers):
    for block in (1, 2):
        by_group = weight_cosine(four_layers).one_block_apart(block)
        expected = sum(by_group.values()) / len(by_group)
        assert block_similarity(four_layers, block).item() == pytest.approx(expected, abs=1e-6)
    with torch.no_grad():
        for one, other in ((0, 1), (1, 0)):  # coda and second core layer become copies
            source = [four_layers.prelude[0], four_layers.core[0]][one]
            copy = [four_layers.coda[0], four_layers.core[1]][other]
            copy.load_state_dict(source.state_dict())
    # Layers are (prelude, core 0, core 1, coda) = (a, b, c = a, d = b) now.
    assert block_similarity(four_layers, 2).item() == pytest.approx(1, abs=1e-6)


def test_a_step_with_the_regulariser_raises_similarity(four_layers):
    before = block_similarity(four_layers, 2)
    (-before).backward()
    with torch.no_grad():
        for parameter in four_layers.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
    assert block_similarity(four_layers, 2) > before
    with pytest.raises(InputError, match=r"Blocks of 3 layers need a model of 6, 9.* has 4"):
        block_similarity(four_layers, 3)


def test_settings_say_what_they_need():
    with pytest.raises(InputError, match="one of last, every, expected, gate; got 'first'"):
        Loss(kind="first")
    with pytest.raises(InputError, match="entropy >= 0 and slope > 0; got -1"):
        Loss(kind="expected", entropy=-1.0)
    with pytest.raises(InputError, match="block >= 1 and strength >= 0; got 0"):
        LoopingRegulariser(block=0)
