"""Loops with a known illness, and the numbers by hand."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from looplens.errors import InputError
from looplens.models import LoopedConfig, LoopedTransformer, load_model
from looplens.models.health import health
from looplens.models.health.numbers import radial_share, token_correlation
from looplens.models.looping import loop_layers

CFG = LoopedConfig(
    d_model=32, n_heads=4, d_mlp=48, d_vocab=10, n_ctx=32, n_prelude=1, n_core=2, n_coda=1
)
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8, 1, 8]])


@pytest.fixture
def model():
    torch.manual_seed(0)
    return LoopedTransformer(CFG, name="tiny").eval()


def signs(report):
    return {sign.name: sign for sign in report.signs}


def test_the_series_are_what_they_say(model):
    seen = health(model, TOKENS, iterations=5, initial_state=3)
    with torch.no_grad():
        injected = model.embed_tokens(TOKENS)
        states = [model.initial_state(injected, 3)]
        states += list(model.iterate(states[0], injected, 5))
    s = torch.stack(states).double()
    unit = s / s.norm(dim=-1, keepdim=True)
    cosines = (unit @ unit.transpose(-1, -2))[..., ~torch.eye(8, dtype=torch.bool)]
    assert seen.token_correlation == pytest.approx(cosines.mean((1, 2)), abs=1e-6)
    assert seen.state_norm == pytest.approx(s.norm(dim=-1).mean((1, 2)), rel=1e-5)
    step = s[1:] - s[:-1]
    relative = step.norm(dim=-1) / s[1:].norm(dim=-1)
    assert seen.relative_step == pytest.approx(relative.mean((1, 2)), rel=1e-5)
    along = (step * unit[:-1]).sum(-1).square() / step.square().sum(-1)
    assert seen.radial_share == pytest.approx(along.mean((1, 2)), rel=1e-4)
    assert (seen.iterations, seen.sequences, seen.positions) == (5, 2, 8)


def test_use_of_the_iterations_by_loss_and_by_readout(model):
    targets = torch.full_like(TOKENS, -1)
    targets[:, -1] = 4
    seen = health(model, {"tokens": TOKENS, "targets": targets}, iterations=6)
    with torch.no_grad():
        readouts = model(TOKENS, iterations=6, return_readouts=True).log_softmax(-1)
    losses = -readouts[:, :, -1, 4].mean(1)
    assert seen.loss_one_iteration == pytest.approx(losses[0].item(), rel=1e-5)
    assert seen.loss == pytest.approx(losses[-1].item(), rel=1e-5)
    kl = (readouts[-1].exp() * (readouts[-1] - readouts[0])).sum(-1).mean()
    assert seen.readout_kl == pytest.approx(kl.item(), rel=1e-4)
    assert signs(seen)["iterations unused"].value == pytest.approx(
        abs(losses[0] - losses[-1]).item(), rel=1e-4
    )
    batch = SimpleNamespace(tokens=TOKENS.numpy(), targets=targets.numpy())
    assert health(model, batch, iterations=6).loss == seen.loss


def test_a_loop_that_ignores_its_state_is_found(model):
    healthy = health(model, TOKENS, iterations=6)
    assert not signs(healthy)["state ignored"].raised
    assert healthy.sensitivity[0] > 0.01
    with torch.no_grad():
        model.adapter.weight[:, : CFG.d_model] = 0
    seen = health(model, TOKENS, iterations=6)
    assert seen.sensitivity == pytest.approx(np.zeros(6))
    assert {"state ignored", "iterations unused"} <= {sign.name for sign in seen.raised}
    assert not seen.healthy
    assert "BAD state ignored" in str(seen)
    assert "arXiv:2502.05171, section 4.3" in str(seen)


def test_collapsed_tokens_are_found(model):
    with torch.no_grad():
        model.adapter.weight[:, : CFG.d_model] = 0
        model.embed.weight.copy_(model.embed.weight[:1].expand_as(model.embed.weight))
    seen = health(model, TOKENS, iterations=3)
    assert seen.token_correlation[-1] == pytest.approx(1, abs=1e-5)
    assert signs(seen)["tokens collapse"].raised


def test_growth_in_place_is_found():
    """Without norms on the residual and without attention, the stream can grow along itself."""
    torch.manual_seed(0)
    cfg = LoopedConfig(
        d_model=16, n_heads=2, d_mlp=24, d_vocab=10, n_ctx=32, norm="pre", injection="none",
        initial_state="embedding",
    )  # fmt: skip
    model = LoopedTransformer(cfg).eval()
    model.core[0].register_forward_hook(lambda _, args, __: 1.2 * args[0])
    seen = health(model, TOKENS, iterations=8)
    assert seen.state_norm[1:] / seen.state_norm[:-1] == pytest.approx(np.full(8, 1.2))
    assert seen.radial_share == pytest.approx(np.ones(8))
    assert seen.sensitivity == pytest.approx(1.2 ** np.arange(1, 9), rel=1e-3)
    assert {"norm grows", "steps are radial"} <= {sign.name for sign in seen.raised}


def test_a_trained_model_has_no_bad_sign():
    model = load_model("affine-huginn-mini")
    seen = health(model, torch.randint(0, 8, (4, 24), generator=torch.Generator().manual_seed(0)))
    assert seen.healthy, str(seen)
    assert seen.iterations == model.cfg.default_iterations
    assert "affine-huginn-mini: no bad sign" in str(seen)
    assert json.loads(json.dumps(seen.to_dict(), allow_nan=False))["healthy"] is True
    assert seen.block == model.cfg.n_core


def test_ordinary_and_looped_hugging_face_models():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=50, initializer_range=0.2,
    )  # fmt: skip
    plain = transformers.LlamaForCausalLM(config).eval()
    weights_only = health(plain, TOKENS)
    assert weights_only.iterations == 0
    assert weights_only.token_correlation is None
    assert max(weights_only.block_cosine_by_size.values()) < 0.1
    assert "only its weights are compared" in str(weights_only)
    with loop_layers(plain, 1, 4, iterations=3) as looped:
        seen = health(looped, TOKENS)
        longer = health(looped, TOKENS, iterations=5)
    assert (seen.iterations, seen.block) == (3, 3)
    assert longer.state_norm[:4] == pytest.approx(seen.state_norm)
    assert seen.sensitivity is None
    assert np.isnan(signs(seen)["state ignored"].value)
    assert not signs(seen)["state ignored"].raised
    assert seen.to_dict()["signs"][2]["value"] is None


def test_a_wrapped_module():
    from looplens.loops.spec import Loop, LoopSpec
    from looplens.models.wrapping import wrap

    class Looped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.layer = torch.nn.Embedding(10, 16), torch.nn.Linear(16, 16)
            self.head, self.steps = torch.nn.Linear(16, 10), 5

        def forward(self, ids):
            h = self.embed(ids)
            for _ in range(self.steps):
                h = torch.tanh(self.layer(h))
            return self.head(h)

    torch.manual_seed(0)
    module = Looped()
    spec = LoopSpec(loop=Loop("step", 5), layers=["layer"], iterations="steps")
    seen = health(wrap(module, spec), TOKENS, iterations=4)
    assert seen.iterations == 4
    assert seen.sensitivity is not None
    assert any("weights are not compared" in note for note in seen.notes)
    assert any("no readout" in note for note in seen.notes)


def test_numbers_at_their_edges():
    assert token_correlation(torch.randn(1, 1, 4)).isnan().all()
    state = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert radial_share(3 * state, state).tolist() == [1, 1]
    assert radial_share(state + state.flip(-1), state).tolist() == [0, 0]
    assert radial_share(state, state).isnan().all()


@pytest.mark.parametrize(
    ("batch", "options", "message"),
    [
        (TOKENS, {"iterations": 1}, "from 2 iterations on, got 1"),
        (TOKENS, {"targets": TOKENS[:, :3]}, r"shape \(2, 3\) do not fit tokens of shape \(2, 8\)"),
        (TOKENS, {"targets": torch.full((2, 8), -1)}, "no position has a target"),
        ({"ids": TOKENS}, {}, r"expected 'tokens' or 'input_ids' in the batch, got \['ids'\]"),
        (
            {"input_ids": TOKENS, "attention_mask": torch.tensor([[0, 1], [1, 1]])},
            {},
            "this batch is padded",
        ),
        (TOKENS, {"block": 9}, "block must lie between 1 and 3 in a model of 4 layers, got 9"),
    ],
)
def test_bad_input_is_refused(model, batch, options, message):
    with pytest.raises(InputError, match=message):
        health(model, batch, **options)


def test_what_is_no_model_is_refused():
    for wrong in (torch.nn.Linear(2, 2), "affine-huginn-mini"):
        with pytest.raises(InputError, match="expected a LoopedTransformer"):
            health(wrong, TOKENS)
