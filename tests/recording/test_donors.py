import numpy as np
import pytest
import torch
from intervening import OTHER, TOKENS, T, make, run

import looplens as ll
from looplens.errors import InputError
from looplens.recording import Intervention


@pytest.fixture(scope="module")
def model():
    return make()


@pytest.fixture(scope="module")
def recorded(model, tmp_path_factory):
    return ll.record(
        model,
        ["".join(map(str, row)) for row in OTHER.tolist()],
        out=tmp_path_factory.mktemp("runs") / "donor",
        iterations=T,
        restarts=2,
        sites=["resid_post", "z"],
        attention=True,
        progress=False,
    )


@pytest.mark.parametrize("kind", ["cache", "trace", "run", "tensor"])
@pytest.mark.parametrize("site", ["hook_state", "core.1.hook_resid_post"])
def test_clamped_to_a_donor_the_model_says_what_the_donor_says(model, recorded, kind, site):
    trace = ll.trace(model, OTHER[:1], T, attention=True)
    values = trace.states[1:] if site == "hook_state" else trace.layer_states[:, 1]
    donor = {
        "cache": run(model, tokens=OTHER[:1])[1],
        "trace": trace,
        "run": recorded,
        "tensor": values,
    }[kind]
    where = {"prompt": 0} if kind == "run" else {}
    item = Intervention.clamp(f"{site}@*", donor, **where)
    logits, cache = run(model, item)  # both sequences of TOKENS follow the donor's one
    torch.testing.assert_close(logits, trace.logits[-1].expand(2, -1, -1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        cache["hook_state"].as_tensor(), trace.states[1:].expand(-1, 2, -1, -1), atol=1e-5, rtol=0
    )
    if site == "hook_state":  # what was clamped is the donor's to the bit
        assert kind != "tensor" or torch.equal(cache["state"].as_tensor()[:, :1], values)


def test_a_clamp_of_one_pass_is_followed_by_the_donors_passes(model):
    # The model injects its prompt: with the same prompt, one clamped state decides all the rest.
    donor = ll.trace(model, TOKENS, T, initial_state=5)
    _, cache = run(model, Intervention.clamp("hook_state@3", donor))
    for t in range(3, T + 1):
        torch.testing.assert_close(cache["state"][t], donor.states[t], atol=1e-5, rtol=0)
    assert (cache["state"][2] - donor.states[2]).abs().max() > 1e-3


def test_runs_and_traces_give_heads_and_maps_by_restart(model, recorded):
    seed = recorded.restart_seeds[1]
    trace = ll.trace(model, OTHER[1:], T, initial_state=seed, attention=True)
    maps = Intervention.clamp(
        "core.*.attn.hook_pattern@4", recorded, prompt=1, restart=1, heads=[1]
    )
    _, cache = run(model, maps)
    for layer in (0, 1):
        pattern = cache["pattern", layer][4]
        torch.testing.assert_close(
            pattern[0, 1], trace.attention[3, layer, 0, 1], atol=1e-5, rtol=0
        )
    _, other = run(model, Intervention.clamp("core.*.attn.hook_pattern@4", trace, heads=[1]))
    torch.testing.assert_close(other["state"][4], cache["state"][4], atol=1e-5, rtol=0)
    z = Intervention.clamp("core.0.attn.hook_z@2", recorded, prompt=1, restart=1, tokens=3, heads=0)
    _, cache = run(model, z)
    expected = recorded.site("z", restart=1, tokens=6 + 3, layer=0).sel(iteration=2)[0]
    np.testing.assert_allclose(cache["z", 0][2][0, 3, 0], expected, atol=1e-6)


def test_tokens_of_a_longer_donor(model):
    donor = ll.trace(model, torch.cat((OTHER, OTHER), dim=1), T)
    item = Intervention.clamp("hook_state@2", donor, tokens=[1, -1], donor_tokens=[8, 3])
    _, cache = run(model, item)
    assert torch.equal(cache["state"][2][:, [1, 5]], donor.states[2][:, [8, 3]])
    item = Intervention.clamp("hook_state@2", donor, tokens=-1)  # last to last
    assert torch.equal(run(model, item)[1]["state"][2][:, -1], donor.states[2][:, -1])
    with pytest.raises(InputError, match="the donor has 12 positions and this sequence 6"):
        run(model, Intervention.clamp("hook_state@2", donor))


def test_a_donor_that_lacks_the_site_says_what_it_holds(model, recorded):
    trace = ll.trace(model, TOKENS, T)
    _, cache = run(model, names_filter="hook_state@:3")
    for donor, options, message in (
        (trace, {}, r"trace does not hold 'core\.0\.hook_mlp_out' but hook_state, core"),
        (cache, {}, "donor cache does not hold it: 'core.0.hook_mlp_out"),
        (recorded, {"prompt": 0}, "donor run does not hold .* but hook_state, resid_post, z"),
    ):
        with pytest.raises(InputError, match=message):
            run(model, Intervention.clamp("core.0.hook_mlp_out@2", donor, **options))
    with pytest.raises(InputError, match=r"holds 2 prompts: say which one with prompt="):
        Intervention.clamp("hook_state", recorded)
    with pytest.raises(InputError, match=r"restarts 0\.\.1, not 2"):
        Intervention.clamp("hook_state", recorded, prompt=1, restart=2)


def test_a_description_names_the_donor(recorded):
    item = Intervention.clamp("hook_state@2:", recorded, prompt=1, restart=1)
    assert item.describe()["donor"] == {
        "from": "run",
        "model": "tiny",
        "input_hash": recorded.input_hash(),
        "prompt": 1,
        "restart": 1,
    }


def test_a_thinned_run_gives_the_passes_that_it_kept(model, tmp_path):
    some = ll.record(
        model, ["".join(map(str, OTHER[0].tolist()))], out=tmp_path / "some", iterations=T,
        keep_iterations=[2, T], progress=False,
    )  # fmt: skip
    states = ll.trace(model, OTHER[:1], T).states
    for kept in (2, T):
        clamp = Intervention.clamp(f"hook_state@{kept}", some)
        _, cache = run(model, clamp, tokens=TOKENS[:1])
        torch.testing.assert_close(cache[f"hook_state@{kept}"], states[kept], rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="did not keep pass 1 but 2 others"):
        run(model, Intervention.clamp("hook_state@1", some), tokens=TOKENS[:1])
