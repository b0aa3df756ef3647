"""Certificates hold when the loop goes on; radii are distances."""

import numpy as np
import pytest
import torch

import looplens as ll
from looplens import plots
from looplens.dynamics.readouts._answer_radius import exact_radius
from looplens.dynamics.readouts.certificates import certificate, way_left
from looplens.errors import InputError
from looplens.models import LoopedConfig, LoopedTransformer


def contracting(**more) -> LoopedTransformer:
    """A random model whose core forgets most of its state, with a readout of one matrix."""
    torch.manual_seed(1)
    cfg = LoopedConfig(
        d_model=16, n_heads=2, d_mlp=24, d_vocab=12, n_ctx=32, n_prelude=1, n_core=2, **more
    )
    model = LoopedTransformer(cfg)
    with torch.no_grad():
        model.adapter.weight[:, :16] *= 0.4
        model.ln_final.weight.uniform_(0.5, 1.5)
    return model


TOKENS = [[1, 5, 3, 7, 2, 9, 4, 8, 0, 11], [2, 2, 2, 3, 3, 1, 10, 6, 5, 4]]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("more", [{}, {"readout_map": True, "tie_embeddings": False}])
def test_a_certified_answer_stays(more, seed):
    model = contracting(**more)
    found, certified = [], 0
    for tokens in TOKENS:
        early = certificate(model, tokens, iterations=6, initial_state=seed)
        assert early.attrs["exact"]
        longer = ll.trace(model, tokens, 80, initial_state=seed)
        states = longer.states[:, 0].double().numpy()
        travelled = np.linalg.norm(states[7:] - states[6], axis=-1).max(0)
        answers = longer.logits[5:, 0].argmax(-1).numpy()
        stays = (answers == early["prediction"].values).all(0)
        sure = early["status"].values == "certified"
        assert stays[sure].all()
        bounded = np.isfinite(early["remaining"].values)
        assert (travelled <= early["remaining"].values)[bounded].all()
        certified += int(sure.sum())
        found.append(early)
    assert certified > 5
    assert min(float(d["safety"].min()) for d in found) < 20  # the bound is not vacuous


def test_the_radius_is_the_distance_to_another_answer():
    model = contracting()
    end = ll.trace(model, TOKENS[0], 6).states[-1, 0]
    best = model.readout(end[None])[0].argmax(-1)
    radius = exact_radius(model, end, best)
    head = model.embed.weight * model.ln_final.weight**2
    with torch.no_grad():
        for token in range(len(end)):
            apart = head[best[token]] - head
            ahead = (apart @ end[token]) / apart.norm(dim=-1)
            ahead[best[token]] = torch.inf
            nearest = apart[ahead.argmin()] / apart[ahead.argmin()].norm()
            for factor, same in ((0.99, True), (1.01, False)):
                moved = end.clone()
                moved[token] -= factor * radius[token].float() * nearest
                answer = model.readout(moved[None])[0, token].argmax()
                assert bool(answer == best[token]) is same


def test_the_way_left_of_a_geometric_approach():
    t = np.arange(12)[:, None]
    states = np.stack([1 + 0.5**t, np.zeros_like(t) + 0.0], -1)
    rate, last, remaining = way_left(states, torch.float32)
    assert rate == pytest.approx(0.5)
    assert last == pytest.approx(0.5**11)
    assert remaining == pytest.approx(0.5**11, rel=1e-2)
    turning = np.stack([np.cos(t), np.sin(t)], -1)
    assert np.isnan(way_left(turning, torch.float32)[2]).all()


def test_behind_a_coda_it_is_a_search_and_says_so():
    model = ll.load_model("affine-huginn-mini")
    late = certificate(model, "3+4*2", iterations=16, directions=2)
    assert not late.attrs["exact"]
    assert set(late["status"].values) <= {"holds", "may change", "not shrinking"}
    assert (late["status"].values == "holds").any()
    longer = ll.trace(model, "3+4*2", 64).logits[15:, 0].argmax(-1).numpy()
    holds = late["status"].values == "holds"
    assert (longer == late["prediction"].values).all(0)[holds].all()
    assert np.isnan(late["radius"]).all()


def test_the_search_finds_the_distance_where_the_coda_does_nothing():
    model = contracting(n_coda=1, norm="pre")
    with torch.no_grad():
        for layer in (model.coda[0].attn.o_proj, model.coda[0].mlp.down_proj):
            layer.weight.zero_()
    for tokens in TOKENS:
        found = certificate(model, tokens, iterations=5, initial_state=0)
        end = ll.trace(model, tokens, 5, initial_state=0).states[-1, 0]
        radius = exact_radius(model, end, torch.tensor(found["prediction"].values)).numpy()
        exact = radius / found["remaining"].values
        searched = found["safety"].values
        inside = np.isfinite(exact) & (exact < 50)
        assert inside.sum() > 5
        # Every direction leads through the boundary at the earliest where it is nearest.
        assert (searched[inside] >= 0.99 * exact[inside]).all()
        assert np.median(searched[inside] / exact[inside]) < 1.1


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_figure_shows_every_token(theme):
    found = certificate(contracting(), TOKENS[0], iterations=6)
    made = plots.certificate_figure(found, theme=theme)
    assert sum(len(trace.x) for trace in made.data) == len(TOKENS[0])


def test_what_never_settles_is_not_certified():
    model = ll.load_model("phop-ouro-mini")
    found = certificate(model, [1, 8, 11, 10, 11, 10, 10, 11], iterations=16)
    assert "certified" not in found["status"].values


def test_refusals():
    model = contracting()
    with pytest.raises(InputError, match="at least 4 iterations"):
        certificate(model, TOKENS[0], iterations=3)
    with pytest.raises(InputError, match="native model"):
        certificate(torch.nn.Linear(2, 2), TOKENS[0])
    with pytest.raises(InputError, match="One prompt"):
        certificate(model, torch.tensor(TOKENS), iterations=6)
