"""States swapped between prompts and clean activations in corrupt ones, against runs by hand."""

import numpy as np
import pytest
import torch
from pushed_modules import chain

import looplens as ll
from looplens import plots
from looplens.dynamics import causal_effect, recorded, swap_states
from looplens.dynamics.pushing.variants import Loop, side_by_side
from looplens.errors import InputError, SiteError
from looplens.models import LoopedConfig, LoopedTransformer
from looplens.recording import Intervention, applied, hooks_for

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
    assert stored["corrupt_prompt"].values.tolist() == [1, 1]
    assert (live["corrupt_prompt"] == -1).all()
    assert (stored["answer_position"] == 4).all()
    inside = causal_effect(trained, run, corrupt=1, tokens=[-1], site="mlp_out", patched=[16])
    assert np.isfinite(inside["kl"]).all()
    for theme in ("light", "dark"):
        for value in ("recovered", "kl"):
            made = plots.causal_effect_figure(stored, value=value, theme=theme)
            assert [len(trace.y) for trace in made.data] == [2, 2]
    with pytest.raises(InputError, match="the other prompt has 3 tokens and this one 5"):
        causal_effect(trained, run, corrupt=2)
    with pytest.raises(InputError, match="must be the number of another prompt"):
        causal_effect(trained, run, corrupt=0)
    with pytest.raises(InputError, match="that can be patched are 1 to 16"):
        causal_effect(trained, run, patched=[17])
    with pytest.raises(InputError, match="has the layers 0 to 1"):
        causal_effect(trained, run, layers=[2])
    with pytest.raises(SiteError, match="matches no hook point"):
        causal_effect(trained, run, site="no_such")


def test_whose_end_a_swapped_state_reaches(linear, trained, run):
    # A loop that is fed forgets a foreign state; one that is not keeps it.
    done = []
    found = swap_states(trained, run, progress=lambda *seen: done.append(seen))
    assert done[-1] == (5, 5)
    assert found["swapped_at"].values.tolist() == [1, 2, 4, 8, 16]
    assert set(found["ends"].values.ravel()) == {"own"}
    assert set(found["says"].values.ravel()) <= {"own", "both"}
    assert (found["final_distance"] < 1e-5).all()
    assert (found["final_cosine"] > 0.9999).all()
    assert (found["other_prompt"] == 1).all()
    np.testing.assert_allclose(found["distance_other"].sel(after=0), 0, atol=1e-5)
    few = swap_states(
        trained, run, tokens=[3, 1], iteration=4
    )  # the same swap, of which less is told
    np.testing.assert_allclose(
        few["distance"][:, 0, :8],
        found["distance"].sel(token=[3, 1], swapped_at=4)[:, :8],
        atol=1e-5,
    )
    for theme in ("light", "dark"):
        made = plots.swap_states_figure(found, theme=theme)
        assert "<b>own</b>, swapped after pass 1 to 16" in made.layout.title.subtitle.text
        assert [len(trace.y) for trace in made.data] == [65] * 10
    wells = chain(lambda h: torch.tanh(3 * h))
    keeping = swap_states(wells, [1, 2, 3], other=[4, 5, 0])
    assert set(keeping["ends"].values.ravel()) == {"other"}
    shared = swap_states(chain(lambda h: 0.5 * h), [1, 2, 3], other=[4, 5, 0], iterations=80)
    assert set(shared["ends"].values.ravel()) == {"both"}
    with pytest.raises(InputError, match="same number of tokens"):
        swap_states(trained, run, other=2)
    with pytest.raises(InputError, match="no other prompt of the run has as many tokens"):
        swap_states(trained, run, prompt=2)
    with pytest.raises(InputError, match="name one, such as another prompt"):
        swap_states(linear, CLEAN)
    with pytest.raises(InputError, match="swapped must be"):
        swap_states(linear, CLEAN, other=CORRUPT, swapped="some")


def test_some_positions_may_be_swapped_and_each_by_itself(linear):
    # Of the state of another prompt the part at position i moves on by the matrix power.
    gap = (ll.trace(linear, CORRUPT, T).states - ll.trace(linear, CLEAN, T).states)[4, 0]
    own, before = (torch.tensor([x] * n, dtype=torch.float64) for x, n in ((A, 5), (B, 4)))
    power = torch.linalg.matrix_power(torch.diag(own) + torch.diag(before, -1), 6)
    end = ll.trace(linear, CLEAN, 10).states[-1, 0]
    options = {"other": CORRUPT, "iteration": 4, "iterations": 6}
    for swapped in ([1], [1, 4], "all"):
        chosen = torch.zeros(5, 1).double()
        chosen[range(5) if swapped == "all" else swapped] = 1
        found = swap_states(linear, CLEAN, swapped=swapped, **options)
        exact = (power @ (chosen * gap)).norm(dim=-1) / end.norm(dim=-1)
        np.testing.assert_allclose(found["final_distance"][:, 0], exact, rtol=1e-9, atol=1e-14)
    each = swap_states(linear, CLEAN, swapped="each", tokens=[4, 1], **options)
    exact = A**6 * gap.norm(dim=-1) / end.norm(dim=-1)
    np.testing.assert_allclose(each["final_distance"][:, 0], exact[[4, 1]], rtol=1e-9, atol=1e-14)


FAMILIES = {
    "huginn": {"norm": "huginn", "injection": "linear", "qk_bias": True},
    "parcae": {
        "norm": "pre",
        "injection": "diagonal",
        "n_kv_heads": 2,
        "n_prelude": 1,
        "n_coda": 1,
        "value_embeddings": (0, 3),
        "value_gate_width": 8,
        "first_injection": False,
    },
}


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_whole_forwards_with_the_same_interventions(family):
    torch.manual_seed(0)
    sizes = {"d_model": 16, "n_heads": 4, "d_mlp": 24, "d_vocab": 12, "n_ctx": 16, "n_core": 2}
    model = LoopedTransformer(LoopedConfig(**sizes, **FAMILIES[family])).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    ids, other = [3, 1, 4, 1, 5, 9], [2, 7, 1, 8, 2, 8]
    found = recorded(model, ids, iterations=8)
    donor = ll.trace(model, other, 8)
    items = [
        Intervention.add("core.0.hook_resid_post@3", 0.3, tokens=2),
        Intervention.noise("core.1.attn.hook_z@4:", 0.7, tokens=[1, 5], heads=[0, 2]),
        Intervention.ablate("core.*.hook_mlp_out@3:6", mode="mean", tokens=3),
        Intervention.ablate("core.0.attn.hook_pattern@5", tokens=4),
        Intervention.clamp("hook_state@4:7", donor, tokens=5, donor_tokens=1),
    ]
    run = side_by_side(Loop(found.step), found.at(2), 2, 8, [(item,) for item in items])
    *_, (_, t, rows, alone) = run
    assert t == 8
    close = {"rtol": 1e-9, "atol": 1e-11}
    torch.testing.assert_close(alone, found.at(8), **close)
    for row, item in zip(rows, items, strict=True):
        with applied(model, item):
            torch.testing.assert_close(row, ll.trace(model, ids, 8).states[-1, 0], **close)
    # The readout looks at the tokens of its own prompt again, where the coda embeds values.
    effect = causal_effect(model, ids, corrupt=other, answers=(1, 2), tokens=[5], patched=[8])
    with torch.no_grad():
        for name, prompt in (("clean", ids), ("corrupt", other)):
            logits = model(prompt, iterations=8)[0, -1]
            difference = float(logits[1] - logits[2])
            assert float(effect[f"{name}_difference"][0]) == pytest.approx(difference, abs=1e-5)


def test_the_corrupt_prompt_has_another_answer_if_it_can(trained, tmp_path):
    prompts = ["3+4*2", "3+4*2", "2+4*2"]
    run = ll.record(trained, prompts, out=tmp_path / "run", iterations=8, progress=False)
    found = causal_effect(trained, run, tokens=[-1], patched=[8])
    assert found["corrupt_prompt"].item() == 2
    assert found["clean_answer"].item() != found["corrupt_answer"].item()


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
