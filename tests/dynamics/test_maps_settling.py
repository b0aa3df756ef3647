"""What a derivative may not miss: hidden parts, writing in place, randomness, graphs left over."""

import gc
import threading
import weakref

import pytest
import torch

import looplens
from looplens.dynamics.maps.derivatives import FORWARD, REVERSE
from looplens.dynamics.maps.loop_maps import SequenceMap, TokenMap
from looplens.dynamics.maps.loop_step import loop_step
from looplens.dynamics.maps.state_map import StateMap
from looplens.dynamics.solving.fixed_point import fixed_point
from looplens.errors import InputError

IDS = torch.tensor([[3, 1, 4, 1, 5, 2, 2, 6]])


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ways_of(f, state):
    map_ = StateMap.of(f, state)
    x = map_.flat(state)
    map_.jvp(x, torch.ones_like(x))
    return map_.ways


def test_a_map_that_writes_into_its_state_changes_neither_the_start_nor_the_residual():
    def halved(s):
        return s.mul_(0.5).add_(1.0)

    start = torch.ones(3, dtype=torch.float64)
    found = fixed_point(halved, start)
    assert found.verified
    assert found.iterations > 0
    torch.testing.assert_close(found.state, torch.full_like(start, 2.0))
    assert start.tolist() == [1, 1, 1]
    ways = ways_of(halved, start)
    assert (ways.derivative, ways.notes) == (REVERSE, [])

    def crossed(s):  # overwrites what its own backward needs
        s[0] = s[1] * s[2]
        return s.mul_(0.5)

    map_ = StateMap.of(crossed, torch.ones(3))
    x = torch.tensor([[1.0, 2.0, 3.0]])
    expected = torch.tensor([[0.0, 1.5, 1.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.5]])
    assert map_.jvp(x, torch.tensor([[1.0, 10.0, 100.0]])).tolist() == [[115, 5, 50]]
    assert map_.vjp(x, torch.ones(1, 3)).tolist() == [expected.sum(0).tolist()]
    assert map_.ways.derivative == FORWARD
    assert "reverse mode fails (one of the variables needed" in map_.notes[0]


@pytest.mark.parametrize("share", [1.0, 0.3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_detach_is_found_though_forward_mode_misses_it_too(share, dtype):
    weight = (0.3 * drawn(8, 8)).to(dtype)

    def f(s):
        return torch.tanh(weight @ (share * s.detach() + (1 - share) * s)) + 1

    with pytest.raises(InputError, match=r"differs from its difference quotients.*detach"):
        ways_of(f, drawn(8, seed=1).to(dtype))


def chaos(s):
    for _ in range(40):
        s = 3.9 * s * (1 - s)
    return s


@pytest.mark.parametrize(
    ("f", "state"),
    [
        (chaos, torch.tensor([0.3, 0.4])),
        (lambda s: 1e6 + 0.5 * (s - 1e6) + torch.tanh(s - 1e6), 1e6 + torch.arange(6.0)),
        (lambda s: torch.tanh(s / 1e-20) * 1e-20, 1e-20 * torch.arange(1.0, 6.0)),
        (lambda s: 3 + 1e-6 * torch.tanh(s), torch.arange(6.0)),
        (lambda s: torch.floor(10 * s) / 10, torch.linspace(0.11, 0.87, 5)),
        (lambda s: torch.relu(s - 100), torch.arange(6.0)),
        (lambda s: (2 * s) % 1, torch.linspace(0.11, 0.87, 5)),
    ],
)
def test_quotients_that_cannot_tell_do_not_refuse_a_map(f, state):
    assert ways_of(f, state).derivative == REVERSE


def test_a_product_that_is_zero_or_not_finite_settles_nothing():
    def hidden(s):
        with torch.no_grad():
            y = torch.where(s.sum() > 100, torch.nan, torch.relu(s))
        return y + 0.0 * s

    for first in (-1.0, 1000.0):
        map_ = StateMap.of(hidden, torch.ones(3))
        x = torch.tensor([[first] * 3, [1.0, 2.0, 3.0]])
        assert map_.jvp(x, torch.ones(2, 3))[1].tolist() == [1, 1, 1]
        assert map_.ways.derivative == FORWARD
        assert any("hidden from autograd" in note for note in map_.notes)


def test_a_branch_that_is_not_taken_does_not_spoil_the_transposed_product():
    map_ = StateMap.of(lambda s: torch.where(s > 0, s.sqrt(), 0.5 * s), torch.ones(3))
    x = torch.tensor([[4.0, -1.0, 1.0]])
    expected = torch.tensor([[0.25, 0.5, 0.5]])
    torch.testing.assert_close(map_.jvp(x, torch.ones(1, 3)), expected)
    torch.testing.assert_close(map_.vjp(x, torch.ones(1, 3)), expected)
    torch.testing.assert_close(map_.linearised(x).jacobian(), torch.diag_embed(expected))
    assert "that are not finite" in map_.notes[0]


def test_what_changes_from_call_to_call_has_no_jacobian():
    calls = []

    def counting(s):
        calls.append(s)
        return s * (0.5 if len(calls) % 2 else 0.9)

    draw = torch.Generator().manual_seed(0)
    noisy = [
        lambda s: 0.5 * s + 1e-3 * torch.randn(s.shape, generator=draw),
        lambda s: torch.dropout(s, 0.5, train=True),
        counting,
    ]
    for f in noisy:
        with pytest.raises(InputError, match=r"different results for the same state.*eval\(\)"):
            ways_of(f, torch.ones(20))


def test_constant_maps_with_weights_have_a_jacobian_of_zeros():
    linear = torch.nn.Linear(3, 3)
    map_ = StateMap.of(lambda s: linear(torch.ones(3)), torch.ones(3))
    at = map_.linearised(torch.ones(2, 3))
    v = torch.ones(4, 2, 3)
    for found in (at.jvp(v[0]), at.vjp(v[0]), at.jvps(v), at.jacobian()):
        assert not found.any()
    assert at.jvps(v).shape == v.shape
    assert at.jacobian().shape == (2, 3, 3)
    assert not map_.notes


def test_inference_mode_is_refused_and_its_tensors_are_taken():
    with torch.inference_mode():
        state = torch.ones(3)
        map_ = StateMap.of(torch.cos, state)
        with pytest.raises(InputError, match="outside of it"):
            map_.jvp(map_.flat(state), torch.ones(1, 3))
    x = map_.flat(state)
    expected = -torch.ones(1, 3).sin()
    torch.testing.assert_close(map_.jvp(x, torch.ones(1, 3)), expected)


def test_half_precision_that_cannot_be_left_is_said():
    weight = torch.eye(3, dtype=torch.bfloat16) / 2
    map_ = StateMap.of(lambda s: weight @ s, torch.ones(3, dtype=torch.bfloat16))
    assert map_.dtype == torch.bfloat16
    assert map_.notes == (
        "f takes no other dtype than torch.bfloat16: its derivatives are as coarse",
    )


def test_no_graph_outlives_its_map():
    step = loop_step(looplens.load_model("affine-huginn-mini"), IDS)
    states = torch.randn(*step.shape, generator=torch.Generator().manual_seed(0))
    makers = [
        lambda: (TokenMap(step, states, range(8)), states),
        lambda: (TokenMap(step, states, range(8), alone=False), states),
        lambda: (SequenceMap(step), states.reshape(1, -1)),
        lambda: (StateMap.of(torch.cos, torch.ones(3)), torch.ones(1, 3)),
    ]
    for make in makers:
        gc.collect()
        gc.disable()  # reference counts alone have to free it
        try:
            map_, x = make()
            map_.jvp(x, torch.ones_like(x))
            left = [weakref.ref(map_), weakref.ref(map_._last[2]._value)]
            del map_, x
            assert [each() for each in left] == [None, None]
        finally:
            gc.enable()


def test_threads_take_turns_at_a_model():
    step = loop_step(looplens.load_model("affine-huginn-mini"), IDS)
    states = torch.randn(*step.shape, generator=torch.Generator().manual_seed(0))
    v = torch.ones_like(states)
    found = {}

    def work(number):
        for alone in (True, False):
            tokens = TokenMap(step, states, range(8), alone=alone)
            found[number, alone] = tokens.jvp(states, v)

    work("alone")
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 10
    for (_, alone), product in found.items():
        torch.testing.assert_close(product, found["alone", alone])
