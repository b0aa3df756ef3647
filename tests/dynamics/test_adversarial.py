"""The search for an initial state that a loop does not forget, on maps whose basins are known."""

import pytest
import torch
from torch import nn

import looplens as ll
from looplens.errors import AnalysisError, InputError, SiteError
from looplens.loops import Loop, LoopSpec
from looplens.models.wrapping import wrap

D, VOCAB = 8, 5
IDS = [1, 2, 3]


class Cell(nn.Module):
    """One pass: h <- tanh(gain h + input). Two wells a dimension for a gain above 1."""

    def __init__(self, gain):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, h, x):
        return torch.tanh(self.gain * h + 0.05 * x)


class Wells(nn.Module):
    def __init__(self, gain, *, without_grad=False, tolerance=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(VOCAB, D)
        self.cell = Cell(gain)
        self.head = nn.Linear(D, VOCAB, bias=False)
        self.steps, self.without_grad, self.tolerance = 12, without_grad, tolerance

    def forward(self, ids):
        x = self.embed(ids)
        h = x
        for _ in range(self.steps):
            before = h
            with torch.set_grad_enabled(not self.without_grad and torch.is_grad_enabled()):
                h = self.cell(h, x)
            if (h - before).norm() < self.tolerance:
                break
        return self.head(h)


def wells(gain, **options):
    spec = LoopSpec(
        loop=Loop("step", 12),
        layers=["cell"],
        iterations="steps",
        readout="head",
        exits_early=bool(options.get("tolerance")),
    )
    return wrap(Wells(gain, **options), loop=spec, d_model=D)


@pytest.mark.parametrize("method", ["lbfgs", "adam"])
def test_another_basin_is_found(method):
    model = wells(2.0)
    found = ll.adversarial_restart(model, IDS, steps=25, method=method)
    # All wells can be flipped, and then the limit is opposite.
    assert found.after < min(-0.9, found.before)
    assert found.longer == pytest.approx(found.after, abs=0.01)
    assert found.agreement_after < 1
    assert min(found.history) < -0.9
    assert found.token_after.shape == (3,)
    norms = found.state.norm(dim=-1)
    torch.testing.assert_close(norms, found.reference.norm(dim=-1))
    again = ll.trace(model, IDS, initial_state=found.state).states
    limit, other = again[-3:].mean(0), ll.trace(model, IDS).states[-3:].mean(0)
    cosine = torch.nn.functional.cosine_similarity(limit.flatten(), other.flatten(), dim=0)
    assert float(cosine) == pytest.approx(found.after, abs=1e-5)


def test_a_contraction_gives_nothing_away_and_slowness_is_seen_through():
    found = ll.adversarial_restart(wells(0.5), IDS, steps=8)
    assert found.after > 0.999
    assert found.agreement_after == 1
    # At gain 1 the wells are about to appear: after few iterations limits look different.
    slow = ll.adversarial_restart(wells(0.95), IDS, iterations=4, steps=10)
    assert slow.longer > slow.after


def test_a_native_model_is_searched_and_left_as_it_was():
    model = ll.load_model("affine-huginn-mini")
    before = [p.requires_grad for p in model.parameters()]
    found = ll.adversarial_restart(model, "3+4*2", iterations=8, steps=3, start=7)
    assert found.after > 0.99
    assert found.iterations == 8
    assert [p.requires_grad for p in model.parameters()] == before
    assert all(p.grad is None for p in model.parameters())
    assert not found.state.requires_grad
    seven = ll.trace(model, "3+4*2", iterations=1, initial_state=7).states[0]
    assert torch.equal(found.start, seven)


def test_what_cannot_be_searched_is_said():
    model = wells(2.0)
    for changes, message in (
        ({"method": "sgd"}, "method must be one of 'lbfgs', 'adam'; got 'sgd'"),
        ({"steps": 0}, "steps must be an integer of at least 1, got 0"),
        ({"steps": 2.5}, "steps must be an integer"),
        ({"learning_rate": -1}, "learning_rate must be positive"),
        ({"start": torch.full((1, 3, D), torch.nan)}, "start holds numbers that are not finite"),
        ({"start": "zeros"}, "nothing to search"),
    ):
        with pytest.raises(InputError, match=message):
            ll.adversarial_restart(model, IDS, **changes)
    broken = wells(2.0)
    broken.module.cell.gain.data.fill_(torch.nan)
    with pytest.raises(AnalysisError, match="no limit to leave"):
        ll.adversarial_restart(broken, IDS)
    with torch.inference_mode():
        assert ll.adversarial_restart(model, IDS, steps=2, iterations=2).after < 1
    with pytest.raises(InputError, match="takes one prompt; got a batch of 2"):
        ll.adversarial_restart(model, torch.tensor([[1, 2], [3, 4]]))
    with pytest.raises(SiteError, match="no gradient comes through the loop"):
        ll.adversarial_restart(wells(2.0, without_grad=True), IDS)
    with pytest.raises(SiteError, match="left the loop after"):
        ll.adversarial_restart(wells(0.5, tolerance=1e-2), IDS)
