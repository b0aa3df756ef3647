import pytest
import torch
from wrapping_modules import D, Looped

import looplens as ll
from looplens.errors import SiteError
from looplens.loops.spec import Loop, LoopSpec
from looplens.models.wrapping import wrap
from looplens.recording.changing.applying import applied
from looplens.recording.changing.interventions import Intervention

IDS = torch.tensor([[1, 2, 3, 4, 5], [5, 4, 3, 2, 1]])
T = 6


@pytest.fixture(scope="module", params=[False, True], ids=["tensor", "tuple"])
def model(request):
    spec = LoopSpec(
        loop=Loop("step", T), layers=["layers.0", "layers.1"], iterations="steps", readout="head"
    )
    return wrap(Looped(as_tuple=request.param), loop=spec)


def test_the_cache_has_every_pass_of_a_foreign_loop(model):
    output, cache = model.run_with_cache(IDS)
    states, layers, logits = model.module.by_hand(IDS, T)
    torch.testing.assert_close(cache["state"].as_tensor(), states[1:])
    torch.testing.assert_close(cache.stack("resid_post").as_tensor(), layers)
    assert torch.equal(cache["resid_pre", 1][4], cache["resid_post", 0][4])
    torch.testing.assert_close(output, logits[-1])


@pytest.mark.parametrize("site", ["core.0.hook_resid_post", "core.1.hook_resid_pre", "hook_state"])
def test_a_patch_in_a_foreign_loop_changes_its_pass_and_what_follows(model, site):
    clean = ll.trace(model, IDS)
    with applied(model, Intervention.add(f"{site}@3", 1.0, tokens=2)):
        output = model(IDS)
        patched = ll.trace(model, IDS)
    moved = (patched.states - clean.states).abs().amax((1, 3)) > 1e-6  # iteration, pos
    assert not moved[:3].any()
    assert not moved[:, :2].any()
    assert moved[3:, 2].all()
    torch.testing.assert_close(output, patched.logits[-1])
    if site == "hook_state":
        shift = (patched.states - clean.states)[3]
        torch.testing.assert_close(shift[:, 2], torch.ones(2, D))


def test_a_foreign_loop_clamped_to_a_donor_follows_it(model):
    donor = ll.trace(model, IDS.flip(0))
    with applied(model, Intervention.clamp("core.1.hook_resid_post@*", donor)):
        patched = ll.trace(model, IDS)
    torch.testing.assert_close(patched.states[1:], donor.states[1:])


def test_a_recording_of_a_foreign_loop_sees_what_was_changed(model, tmp_path):
    item = Intervention.ablate("hook_state@-2", tokens=[-1])
    with applied(model, item):
        run = ll.record(model, IDS, out=tmp_path / "run", progress=False)
    last = run.state(restart=0, tokens=4)
    assert (last.sel(iteration=T - 1) == 0).all()
    assert (last.sel(iteration=T) != 0).any()


def test_an_address_that_matches_nothing_is_an_error(model):
    with pytest.raises(SiteError, match=r"none of the passes that ran \(iterations 1\.\.6\)"):
        model.run_with_hooks(IDS, fwd_hooks=[("hook_state@9", lambda value, hook: None)])
    with pytest.raises(SiteError, match="matches no hook point"):
        model.run_with_hooks(IDS, fwd_hooks=[("core.7.hook_resid_post", lambda value, hook: None)])
