"""States swapped between prompts and clean activations in corrupt ones, against runs by hand."""

import numpy as np
import pytest
import torch
from pushed_modules import chain

import looplens as ll
from looplens import plots
from looplens.dynamics import causal_effect, swap_states
from looplens.errors import InputError, SiteError
from looplens.recording import Intervention, hooks_for

CLEAN, CORRUPT = [1, 2, 3, 4, 5], [1, 4, 3, 4, 2]
A, B, T = 0.7, 0.5, 12


@pytest.fixture(scope="module")
def linear():
    return chain(lambda h: A * h, b=B, feed=1.0, steps=T)


@pytest.fixture(scope="module")
def trained():
    return ll.load_model("affine-huginn-mini")


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("effects") / "run"
    return ll.record(trained, ["3+4*2", "2+4*2", "1+1"], out=out, iterations=16, progress=False)


def by_hand(model, ids, patched=None, token=None, passes=(), clean=None):
    """Return the logits at the last position, with a token put to its clean value in passes."""
    module, x = model.module, model.module.embed(torch.tensor([ids]))
    h = x
    for t in range(1, T + 1):
        h = module.cell(h, x)
        if t in passes:
            h = h.clone()
            h[:, token] = clean[t][:, token]
    return module.head(h)[0, -1].detach()


def test_a_patch_recovers_what_it_does_by_hand(linear):
    right, wrong = 0, 5
    found = causal_effect(linear, CLEAN, corrupt=CORRUPT, answers=(right, wrong))
    assert found["recovered"].dims == ("token", "mode", "layer", "patched")
    assert found["patched"].values.tolist() == [1, 2, 4, 9, 11, 12]
    clean = ll.trace(linear, CLEAN, T).states
    good, bad = by_hand(linear, CLEAN), by_hand(linear, CORRUPT)
    whole = (good - bad)[right] - (good - bad)[wrong]
    for token, mode, t in ((1, "once", 9), (1, "held", 9), (4, "once", 11), (3, "held", 2)):
        passes = [t] if mode == "once" else range(t, T + 1)
        logits = by_hand(linear, CORRUPT, 0, token, passes, clean)
        share = ((logits - bad)[right] - (logits - bad)[wrong]) / whole
        cell = found.sel(token=token, mode=mode, patched=t).isel(layer=0)
        assert float(cell["recovered"]) == pytest.approx(float(share), abs=1e-6)
        kl = torch.nn.functional.kl_div(
            logits.log_softmax(-1), good.log_softmax(-1), reduction="sum", log_target=True
        )
        assert float(cell["kl"]) == pytest.approx(float(kl), rel=1e-4, abs=1e-8)
    np.testing.assert_allclose(found["corrupt_answer"], wrong)
    # All tokens in the last pass are the clean run.
    both = causal_effect(
        linear, CLEAN, corrupt=CORRUPT, together=True, patched=[3, T], answers=(right, wrong)
    )
    assert both["token"].values.tolist() == [4]
    np.testing.assert_allclose(both["recovered"].sel(patched=T), 1.0, atol=1e-6)
    np.testing.assert_allclose(both["recovered"].sel(mode="held"), 1.0, atol=1e-6)
    lasting = float(both["recovered"].sel(mode="once", patched=3).squeeze())
    assert abs(lasting) < 0.6  # the input takes it back
    assert np.isnan(
        causal_effect(linear, CLEAN, corrupt=CORRUPT, answers=(1, 1))["recovered"]
    ).all()


def test_a_run_may_hold_the_clean_values(trained, run):
    done = []
    stored = causal_effect(
        trained, run, corrupt=1, tokens=[0, -1], progress=lambda *seen: done.append(seen)
    )
    assert done[-1] == (2 * 2 * 2 * len(stored["patched"]),) * 2
    live = causal_effect(trained, "3+4*2", corrupt="2+4*2", tokens=[0, -1], iterations=4)
    same = causal_effect(trained, run, corrupt=1, tokens=[0, -1], iterations=4)
    np.testing.assert_allclose(live["kl"], same["kl"], atol=1e-4)
    assert stored.attrs["corrupt"] == 1
    inside = causal_effect(trained, run, corrupt=1, tokens=[-1], site="mlp_out", patched=[16])
    assert np.isfinite(inside["kl"]).all()
    for theme in ("light", "dark"):
        for value in ("recovered", "kl"):
            made = plots.causal_effect_figure(stored, value=value, theme=theme)
            assert [len(trace.y) for trace in made.data] == [2, 2]
    with pytest.raises(InputError, match="does not fit a corrupt one of 3"):
        causal_effect(trained, run, corrupt=2)
    with pytest.raises(InputError, match="must be the number of another prompt"):
        causal_effect(trained, run, corrupt=0)
    with pytest.raises(InputError, match="passes of 1 to 16 can be patched"):
        causal_effect(trained, run, patched=[17])
    with pytest.raises(InputError, match="has the layers 0 to 1"):
        causal_effect(trained, run, layers=[2])
    with pytest.raises(SiteError, match="matches no hook point"):
        causal_effect(trained, run, site="no_such")


def test_whose_end_a_swapped_state_reaches(linear, trained, run):
    # A loop that is fed forgets a foreign state; one that is not keeps it.
    found = swap_states(trained, run, iteration=[2, 8, 16])
    assert found["swapped_at"].values.tolist() == [2, 8, 16]
    assert set(found["ends"].values.ravel()) == {"own"}
    assert set(found["says"].values.ravel()) <= {"own", "both"}
    assert (found["final_distance"] < 1e-5).all()
    assert (found["final_cosine"] > 0.9999).all()
    assert np.isnan(found["distance"].sel(swapped_at=8, iteration=7)).all()
    at_once = found["distance_other"].sel(swapped_at=8, iteration=8)
    np.testing.assert_allclose(at_once, 0, atol=1e-5)
    keeping = swap_states(chain(lambda h: torch.tanh(3 * h)), [1, 2, 3], other=[4, 5, 0])
    assert set(keeping["ends"].values.ravel()) == {"other"}
    one = swap_states(chain(lambda h: torch.tanh(3 * h)), [1, 2, 3], other=[4, 5, 0], tokens=[1])
    assert one["token"].values.tolist() == [1]
    shared = swap_states(chain(lambda h: 0.5 * h), [1, 2, 3], other=[4, 5, 0], iterations=80)
    assert set(shared["ends"].values.ravel()) == {"both"}
    with pytest.raises(InputError, match="same number of tokens"):
        swap_states(trained, run, other=2)
    with pytest.raises(InputError, match="name one, such as another prompt"):
        swap_states(linear, CLEAN)


def test_noise_has_the_length_that_is_asked_and_its_own_direction(trained):
    site = "core.0.hook_mlp_out@3"
    _, before = trained.run_with_cache("3+4*2", iterations=4, initial_state=0)

    def noisy(**options):
        hooks = hooks_for(Intervention.noise(site, 0.25, **options), trained)
        with trained.hooks(fwd_hooks=hooks):
            _, after = trained.run_with_cache("3+4*2", iterations=4, initial_state=0)
        return after[site] - before[site]

    shift = noisy()
    size = shift.norm(dim=-1) / before[site].norm(dim=-1)
    torch.testing.assert_close(size, torch.full_like(size, 0.25), rtol=1e-3, atol=0)
    # Of a token it is the same, whichever others get some; another seed gives another.
    torch.testing.assert_close(noisy(tokens=2)[:, 2], shift[:, 2], rtol=1e-3, atol=1e-5)
    assert (noisy(tokens=2)[:, :2] == 0).all()
    assert torch.cosine_similarity(noisy(seed=1)[0], shift[0], dim=-1).abs().max() < 0.7
    heads = Intervention.noise("core.0.attn.hook_z@3", 0.5, heads=1, tokens=[1, 2])
    with trained.hooks(fwd_hooks=hooks_for(heads, trained)):
        _, after = trained.run_with_cache("3+4*2", iterations=4, initial_state=0)
    z = "core.0.attn.hook_z@3"
    moved = (after[z] - before[z]).norm(dim=-1) / before[z].norm(dim=-1)
    torch.testing.assert_close(moved[0, 1:3, 1], torch.full((2,), 0.5), rtol=1e-3, atol=0)
    assert (moved[0, :, 0] == 0).all()
    assert heads.describe()["seed"] == 0
    assert "noise('core.0.attn.hook_z@3', size=0.5, seed=0" in repr(heads)
    with pytest.raises(InputError, match="noise needs a size above 0"):
        Intervention.noise(site, 0)
    pattern = hooks_for(Intervention.noise("core.0.attn.hook_pattern@1"), trained)
    with trained.hooks(fwd_hooks=pattern), pytest.raises(InputError, match="add noise to q, k"):
        trained("3+4*2", iterations=2)
