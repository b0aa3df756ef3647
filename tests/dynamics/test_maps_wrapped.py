"""The step of models whose code is not ours: by a single pass, by declaration, or a clear error."""

import pytest
import torch
from torch import nn

import looplens as ll
from looplens import Loop, LoopSpec
from looplens.dynamics.maps.derivatives import FORWARD, REVERSE
from looplens.dynamics.maps.loop_maps import SequenceMap, TokenMap
from looplens.dynamics.maps.loop_step import loop_step
from looplens.dynamics.maps.recorded import recorded
from looplens.errors import InputError
from looplens.models import AdaptiveConfig, AdaptiveTransformer, loop_layers
from looplens.models.wrapping import wrap

transformers = pytest.importorskip("transformers")
IDS = [1, 2, 3, 4, 5]
SMALL = {
    "vocab_size": 30,
    "hidden_size": 24,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 20,
    "initializer_range": 0.2,
}


class Mixer(nn.Module):
    """A causal loop in plain torch; a part may be hidden from autograd, or change with the pass."""

    def __init__(self, *, hidden=False, drifting=False):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.layer, self.noted = nn.Embedding(30, 8), nn.Linear(8, 8), nn.Identity()
        self.steps, self.hidden, self.drifting = 12, hidden, drifting

    def move(self, h):
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.hidden):
            before = h.cumsum(1) / torch.arange(1, h.shape[1] + 1)[:, None]
        return 0.5 * h + 0.5 * torch.tanh(self.layer(before))

    def forward(self, ids):
        h = self.embed(ids)
        for step in range(self.steps):
            h = self.noted(self.move(h) + 0.1 * step * self.drifting)
        return h


def mixer(*, step=None, depth="steps", **options):
    module = Mixer(**options)
    spec = LoopSpec(
        loop=Loop("step", 12),
        layers=["layer"],
        state="noted",
        start="embed",
        iterations=depth,
        step=step,
    )
    return wrap(module, spec, d_vocab=30, d_model=8)


def jacobian_by_differences(map_, x, h=1e-6):
    columns = [(map_(x + h * e) - map_(x - h * e)) / (2 * h) for e in torch.eye(x.shape[1]).to(x)]
    return torch.stack(columns, dim=-1)


def test_a_single_pass_is_the_step():
    torch.manual_seed(0)
    albert = transformers.AlbertConfig(
        **SMALL, embedding_size=8, num_hidden_layers=5, inner_group_num=2
    )
    llama = transformers.LlamaConfig(**SMALL, num_hidden_layers=4, num_key_value_heads=3)
    for module, causal in (
        (transformers.AlbertModel(albert).eval(), False),
        (loop_layers(transformers.LlamaForCausalLM(llama).eval(), 1, 3, 6), True),
        (Mixer(), True),
    ):
        model = mixer() if isinstance(module, Mixer) else wrap(module)
        found = recorded(model, IDS)
        assert found.mismatch < 1e-5
        assert found.causal is causal
        # The blocks of the tokens are those of the whole Jacobian.
        tokens, whole = TokenMap(found.step, found.at(), [1, 4]), SequenceMap(found.step)
        assert not tokens.is_alone
        d = found.at().shape[1]
        blocks = tokens.linearised(found.at()[[1, 4]]).jacobian()
        full = whole.linearised(found.at().reshape(1, -1)).jacobian()[0]
        for block, position in zip(blocks, (1, 4), strict=True):
            here = slice(d * position, d * (position + 1))
            torch.testing.assert_close(block, full[here, here], rtol=1e-3, atol=1e-5)


def test_residual_loops_declare_their_step():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**SMALL, num_hidden_layers=4, num_key_value_heads=3)
    for mode in ("residual", "anchored"):
        llama = transformers.LlamaForCausalLM(config).eval()
        with loop_layers(llama, 1, 3, 6, mode) as looped:
            found = recorded(wrap(looped), IDS, iterations=9)  # the share of a pass is 1/9 there
            assert found.mismatch < 1e-5
            assert looped.iterations == 6
            tokens = TokenMap(found.step, found.at(), [2])
            v = torch.ones(1, 24)
            product = tokens.jvp(found.at()[[2]], v)
            reference = tokens.forward_jvp(found.at()[[2]], v)
            torch.testing.assert_close(product, reference, rtol=1e-3, atol=1e-5)
            with pytest.raises(InputError, match="passes through no hook points"):
                found.step.with_hooks([("hook_state", lambda value, hook: value)])


def test_layers_that_loop_by_themselves_have_a_step_while_their_scales_are_equal():
    torch.manual_seed(0)
    cfg = AdaptiveConfig(
        d_model=16, n_heads=2, d_mlp=32, d_vocab=10, n_ctx=32, n_layers=2, max_steps=5
    )
    model = AdaptiveTransformer(cfg)
    with torch.no_grad():
        model.layers[-1].loop_scales.fill_(0.5)
    assert recorded(model, [1, 2, 3]).mismatch < 1e-5
    with torch.no_grad():
        model.layers[-1].loop_scales[2] = 1.0
    with pytest.raises(InputError, match="step n of a layer is scaled by its own"):
        recorded(model, [1, 2, 3])


def test_two_states_have_no_step_of_one():
    torch.manual_seed(0)
    config = transformers.HrmTextConfig(**SMALL, num_hidden_layers=2, head_dim=8)
    model = wrap(transformers.HrmTextForCausalLM(config).eval())
    with pytest.raises(InputError, match=r"several states \(h, l\).*Declare step=function"):
        loop_step(model, torch.tensor([IDS]))


def test_a_step_that_is_not_that_of_the_recording_is_refused():
    with pytest.raises(InputError, match="depends on more than the state and the prompt"):
        recorded(mixer(drifting=True), IDS)
    with pytest.raises(InputError, match="does not lead from one recorded state to the next"):
        recorded(mixer(step=lambda module, state, ids: 0.9 * state), IDS)
    with pytest.raises(InputError, match=r"must return states of the shape .*\(1, 5, 8\); got \(1"):
        recorded(mixer(step=lambda module, state, ids: state[..., :4]), IDS)
    with pytest.raises(
        InputError, match=r"depth of its loop cannot be set to one pass. Declare st"
    ):
        recorded(mixer(depth=None), IDS)
    with pytest.raises(InputError, match=r"step must be a function.* got str"):
        mixer(step="move")
    declared = mixer(depth=None, step=lambda module, state, ids: module.move(state))
    assert recorded(declared, IDS).mismatch < 1e-5


def test_what_is_hidden_from_autograd_is_not_missing_in_the_derivative():
    for hidden, way in ((True, FORWARD), (False, REVERSE)):
        found = recorded(mixer(hidden=hidden), IDS, dtype=torch.float64)
        x = found.at()[[3]]
        tokens = TokenMap(found.step, found.at(), [3])
        product = tokens.linearised(x).jacobian()
        expected = jacobian_by_differences(tokens, x)
        torch.testing.assert_close(product, expected, rtol=1e-6, atol=1e-8)
        assert tokens.ways.derivative == way
        u = torch.ones_like(x)
        torch.testing.assert_close(tokens.vjp(x, u), expected.sum(1))
        assert bool(tokens.notes) is hidden


def test_a_run_of_a_wrapped_model_gives_the_step(tmp_path):
    model = mixer()
    run = ll.record(model, [IDS, [7, 8, 9]], out=tmp_path / "run", iterations=20, progress=False)
    found = recorded(model, run, prompt=1)
    assert found.mismatch < 1e-5
    assert found.numbers([0, 2]) == [5, 7]
    assert found.states.shape == (21, 3, 8)
