"""The loop as a map: tokens by themselves, derivatives, starts of other dtypes, bad input."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import looplens
from looplens.dynamics.maps import derivatives
from looplens.dynamics.maps.derivatives import MATH, REVERSE
from looplens.dynamics.maps.loop_maps import SequenceMap, TokenMap
from looplens.dynamics.maps.loop_step import loop_step
from looplens.dynamics.maps.recorded import recorded
from looplens.dynamics.maps.state_map import StateMap
from looplens.errors import InputError
from looplens.models import LoopedConfig, LoopedTransformer

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
BUNDLED = [3, 1, 4, 1, 5, 2, 2, 6]
TINY = {"d_model": 16, "n_heads": 4, "d_mlp": 24, "d_vocab": 12, "n_ctx": 16, "n_core": 2}
KINDS = {
    "huginn": {"norm": "huginn", "injection": "linear", "qk_bias": True, "rope_style": "adjacent"},
    "ouro": {
        "norm": "sandwich",
        "injection": "none",
        "loop_norm": True,
        "initial_state": "prelude",
    },
    "retrofit": {"norm": "post", "injection": "linear", "n_kv_heads": 2, "qk_norm": "projection"},
    "qwen": {"norm": "pre", "injection": "add", "qkv_bias": True, "qk_norm": "head"},
    "parcae": {
        "norm": "pre",
        "injection": "diagonal",
        "n_kv_heads": 1,
        "qk_norm": "rotated",
        "mlp": "relu2",
        "n_prelude": 1,
        "value_embeddings": (0, 2),
        "value_gate_width": 8,
        "prelude_norm": True,
        "first_injection": False,
    },
}


def make(dtype=torch.float64, **changes):
    torch.manual_seed(0)
    model = LoopedTransformer(LoopedConfig(**(TINY | changes)))
    with torch.no_grad():
        for weight in model.parameters():  # biases and gates begin as zeros
            weight.add_(0.2 * torch.randn_like(weight))
    return model.to(dtype)


def drawn(*shape, seed=1, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_by_itself_is_the_token_in_its_prompt(kind):
    step = loop_step(make(**KINDS[kind]), IDS)
    positions = [0, 3, 7, 3]
    for context in (drawn(8, 16), drawn(4, 8, 16)):
        alone = TokenMap(step, context, positions)
        whole = TokenMap(step, context, positions, alone=False)
        assert alone.is_alone
        assert not whole.is_alone
        x, v = drawn(4, 16, seed=2), drawn(4, 16, seed=3)
        close = {"rtol": 1e-9, "atol": 1e-11}
        torch.testing.assert_close(alone(x), whole(x), **close)
        torch.testing.assert_close(alone.jvp(x, v), whole.forward_jvp(x, v), **close)
        torch.testing.assert_close(alone.vjp(x, v), whole.vjp(x, v), **close)
        some = torch.tensor([2, 1])
        torch.testing.assert_close(alone.rows(some)(x[some]), whole.rows(some)(x[some]), **close)
        pairs = x.repeat_interleave(2, dim=0)
        torch.testing.assert_close(alone.each(2)(pairs), whole.each(2)(pairs), **close)


def test_all_ways_to_a_product_agree_with_differences():
    step = loop_step(make(**KINDS["huginn"]), IDS)
    x = drawn(2, 16, seed=2)
    tokens = TokenMap(step, drawn(8, 16), [5, 2])
    at = tokens.linearised(x)
    jacobian, h = at.jacobian(), 1e-6
    units = torch.eye(16, dtype=torch.float64)
    differences = [(tokens(x + h * e) - tokens(x - h * e)) / (2 * h) for e in units]
    torch.testing.assert_close(jacobian, torch.stack(differences, -1), rtol=1e-6, atol=1e-8)
    v = drawn(3, 2, 16, seed=4)
    for products in (
        at.jvps(v),
        torch.stack([at.jvp(one) for one in v]),
        torch.stack([tokens.forward_jvp(x, one) for one in v]),
        torch.einsum("rij,krj->kri", jacobian, v),
    ):
        torch.testing.assert_close(products, at.jvps(v), rtol=1e-9, atol=1e-11)
    u = drawn(2, 16, seed=5)
    torch.testing.assert_close(at.vjp(u), torch.einsum("rij,ri->rj", jacobian, u))
    assert tokens.ways.derivative == REVERSE


def test_the_sequence_is_block_triangular_with_the_blocks_of_the_tokens():
    step = loop_step(make(**KINDS["ouro"]), IDS)
    context = drawn(8, 16)
    whole = SequenceMap(step).linearised(context.reshape(1, -1)).jacobian()[0]
    blocks = whole.reshape(8, 16, 8, 16).transpose(1, 2)
    assert not blocks[torch.ones(8, 8).triu(1).bool()].any()
    own = TokenMap(step, context, range(8)).linearised(context).jacobian()
    torch.testing.assert_close(own, blocks[range(8), range(8)], rtol=1e-9, atol=1e-11)


def test_a_hook_makes_the_whole_prompt_run():
    step = loop_step(make(**KINDS["huginn"]), IDS)
    lengths = []
    heard = step.with_hooks([("core.0.hook_resid_pre", lambda value, hook: lengths.append(value))])
    tokens = TokenMap(heard, drawn(8, 16), [4])
    tokens(drawn(1, 16))
    assert [value.shape[1] for value in lengths] == [8]
    assert not tokens.is_alone
    assert TokenMap(step, drawn(8, 16), [4]).is_alone


def test_products_follow_a_knob_and_reuse_the_graph_of_a_fixed_map():
    calls, gain = [], [1.0]

    def f(states):
        calls.append(len(states))
        return gain[0] * states**2

    x, v = torch.tensor([[1.0, 2.0]]), torch.ones(1, 2)
    turned = StateMap(f, (2,), dtype=torch.float32)
    assert turned.jvp(x, v).tolist() == [[2, 4]]
    gain[0] = 3.0
    assert turned.jvp(x, v).tolist() == [[6, 12]]
    gain[0] = 1.0
    fixed = StateMap(f, (2,), dtype=torch.float32, is_fixed=True)
    fixed.jvp(x, v)
    before = len(calls)
    fixed.jvp(x, v)
    assert fixed.vjp(x, v).tolist() == [[2, 4]]
    assert len(calls) == before
    x += 1  # the same tensor, other numbers
    assert fixed.jvp(x, v).tolist() == [[4, 6]]
    assert fixed.derivatives == 4


class NoForward(torch.autograd.Function):
    """x^2 like a custom kernel: a backward that can be differentiated, and no forward mode."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad * ctx.saved_tensors[0]


class OnlyBackward(NoForward):
    """The same with a backward that is not recorded."""

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return 2 * grad * ctx.saved_tensors[0]


class OnceOnly(torch.autograd.Function):
    """The identity with a backward that is not recorded."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return grad.clone()


def test_custom_kernels_are_differentiated_where_they_can_be():
    x, v = torch.tensor([[0.5, -2.0]]), torch.tensor([[1.0, 1.0]])
    checked = StateMap(NoForward.apply, (2,), dtype=torch.float32)
    torch.testing.assert_close(checked.jvp(x, v), torch.tensor([[1.0, -4.0]]))
    assert "checked by a difference quotient" in checked.notes[0]
    blocked = StateMap(OnlyBackward.apply, (2,), dtype=torch.float32)
    with pytest.raises(InputError, match="neither by forward mode nor by reverse mode twice, not"):
        blocked.jvp(x, v)
    hidden = StateMap(lambda s: NoForward.apply(s.detach()) + s, (2,), dtype=torch.float32)
    with pytest.raises(InputError, match=r"hidden from autograd.*Compute the step without"):
        hidden.jvp(x, v)
    errors = StateMap(lambda s: s @ torch.ones(3, 3), (2,), dtype=torch.float32)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        errors.jvp(x, v)


def test_fused_attention_without_a_derivative_gives_way_to_the_written_out_one(monkeypatch):
    def fused(q, *rest, **options):
        if torch.nn.attention._cur_sdpa_kernel_backends() != [derivatives.SDPBackend.MATH]:
            return OnceOnly.apply(real(q, *rest, **options))
        return real(q, *rest, **options)

    real = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", fused)
    step = loop_step(make(**KINDS["huginn"]), IDS)
    tokens = TokenMap(step, drawn(8, 16), [6], alone=False)
    x, v = drawn(1, 16, seed=2), drawn(1, 16, seed=3)
    torch.testing.assert_close(tokens.jvp(x, v), tokens.forward_jvp(x, v), rtol=1e-9, atol=1e-11)
    assert tokens.attention == MATH


def test_starts_of_another_dtype_are_cast_and_that_is_said():
    weight = torch.tensor([[0.5, 0.1], [0.0, 0.2]], dtype=torch.float64)
    for start, dtype in (
        (torch.ones(2, dtype=torch.float64), torch.float64),
        (torch.ones(2), torch.float64),
        (torch.tensor([1, 1]), torch.float64),
    ):
        map_ = StateMap.of(lambda s: weight @ s.double(), start)
        assert map_.dtype == dtype
        assert map_(map_.flat(start)).tolist() == [[0.6, 0.2]]
        assert bool(map_.notes) is (start.dtype != dtype)
    half = StateMap.of(torch.cos, torch.ones(2, dtype=torch.bfloat16))
    assert half.dtype == torch.float32
    assert half.notes == ("the start of torch.bfloat16 was taken in torch.float32",)


def test_maps_that_vmap_cannot_batch_run_row_by_row():
    def f(state):
        return state * (2.0 if state[0].item() > 0 else 3.0)

    map_ = StateMap.of(f, torch.ones(2))
    x = torch.tensor([[1.0, 1.0], [-1.0, 1.0]])
    assert map_(x).tolist() == [[2, 2], [-3, 3]]
    assert map_.jvp(x, torch.ones(2, 2)).tolist() == [[2, 2], [3, 3]]
    assert "vmap cannot batch it" in map_.notes[0]


@pytest.mark.parametrize(
    ("state", "f", "message"),
    [
        (np.ones(2), torch.cos, "must be a torch tensor, got ndarray"),
        (torch.ones(2, dtype=torch.complex64), torch.cos, "must hold real floating-point numbers"),
        (torch.tensor([1.0, torch.nan]), torch.cos, "holds 1 of 2 numbers that are not finite"),
        (torch.ones(0), torch.cos, "is empty"),
        (torch.ones(2), lambda s: s[:1], r"of the shape that it is given, \(2,\); got \(1,\)"),
        (torch.ones(2), lambda s: 1.0, "got float"),
        (torch.ones(2), lambda s: s.long(), "must return the dtype that it is given"),
    ],
)
def test_bad_maps_and_states_say_what_was_seen(state, f, message):
    with pytest.raises(InputError, match=message):
        StateMap.of(f, state)


def test_bad_contexts_and_positions_say_what_was_seen():
    step = loop_step(make(), IDS)
    with pytest.raises(InputError, match=r"shape \(7, 16\); expected \[8, 16\]"):
        TokenMap(step, drawn(7, 16), [0])
    with pytest.raises(InputError, match=r"that for each of the 2 rows"):
        TokenMap(step, drawn(3, 8, 16), [0, 1])
    with pytest.raises(InputError, match=r"positions must lie in 0..7, got \[8\]"):
        TokenMap(step, drawn(8, 16), [8])


def test_a_bundled_model_moves_as_it_was_recorded():
    model = looplens.load_model("affine-huginn-mini")
    found = recorded(model, BUNDLED, iterations=12, initial_state=torch.zeros(1, 8, 64))
    assert found.causal
    tokens = TokenMap(found.step, found.at(10), range(8))
    # The others stand still, so only the first token, which sees no other, goes where it went.
    after = tokens(found.at(10))
    torch.testing.assert_close(after[0], found.at(11)[0], rtol=1e-4, atol=1e-4)
    double = recorded(model, BUNDLED, iterations=12, dtype=torch.float64)
    assert double.states.dtype == double.step(double.states[-1:]).dtype == torch.float64
    assert double.mismatch < 1e-12
